# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Test with the second set of batch norms."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmfeataug.engine import has_auxiliary, stock_state_dict
from mmfeataug.registry import HOOKS


@HOOKS.register_module()
class AuxiliaryBNHook(Hook):
    """Replaces the first batch norms of a loaded checkpoint by the second ones.

    For tests; ``tools/test.py --aux-bn`` adds it. The release of https://arxiv.org/abs/2009.08965
    takes the second set for data far from what the model was trained on (Stylized ImageNet,
    sketches) and the first set elsewhere.
    """

    # Before EMAHook, which takes its copy of the weights out of the checkpoint.
    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Change the loaded weights.

        Raises:
            ValueError: If the checkpoint has no second batch norms.
        """
        weights = checkpoint.get('state_dict', checkpoint)
        if not has_auxiliary(weights):
            raise ValueError(
                "the checkpoint has no second batch norms (keys with 'aux_bn.'): it was not "
                "trained with bn='separate'; test it without --aux-bn"
            )
        checkpoint['state_dict'] = stock_state_dict(weights, aux_bn=True)
