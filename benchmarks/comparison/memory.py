# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What makes a run cheaper and changes its figures by rounding only."""

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmfeataug.utils.models import model_of


def contiguous(module: nn.Module, args: Any, outputs: Any) -> tuple[Tensor, ...]:
    """Features as mmcv's operators want them: on a CPU RoIAlign reads other layouts as garbage,
    without a word.
    """
    return tuple(feature.contiguous() for feature in outputs)


class ChannelsLastHook(Hook):
    """Keep the backbone's weights, and with them its features, channels last: there oneDNN instead
    of im2col does pointwise convolutions. A step on one CPU thread takes a sixth to a quarter less
    time.
    """

    def before_run(self, runner: Runner) -> None:
        """Convert the backbone in place."""
        model = model_of(runner)
        model.backbone.to(memory_format=torch.channels_last)
        model.backbone.register_forward_hook(contiguous)
