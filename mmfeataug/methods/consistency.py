# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Base of FMA and stability training, which compare a distorted copy with the clean batch."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from mmfeataug.engine import BatchAugmentation, CopyPass, no_autocast, stock_state_dict
from mmfeataug.utils.distortions import (
    DISTORTIONS,
    build_distortions,
    combined_distortion,
    refuse_channels,
)
from mmfeataug.utils.pixels import PixelScale, channels_of
from mmfeataug.utils.settings import non_negative

TARGETS = ('detached', 'online', 'frozen')


class Consistency(BatchAugmentation):
    """A loss term that is small if a distorted copy of the batch gives similar features.

    Args:
        at: One place or several.
        distortions: One is drawn for each image (combined augmentations): configs of kornia's
            intensity augmentations, acting on images in 0 to 1. Pixels stay in place, so
            boxes and masks stay valid.
        weight: Factor of the term.
        task_weight: Factor of the training loss on the copy; 0 runs the copy only up to the last
            place.
        target: What the copy is compared with: ``'detached'``: the clean pass, without gradient;
            ``'online'``: with gradient; ``'frozen'``: the model with the weights of
            ``teacher``, in evaluation mode of its batch norms.
        teacher: Checkpoint of the frozen target, usually the ``load_from`` of the fine-tuning.
        side, bn, hold: See :class:`BatchAugmentation`.
        image_range: See :class:`mmfeataug.utils.pixels.PixelScale`.

    Raises:
        ValueError: For invalid settings, such as a distortion that moves pixels, or takes no
            images of so many channels.
    """

    def __init__(
        self,
        *,
        at: str | Sequence[str],
        distortions: Sequence[dict] = DISTORTIONS,
        weight: float = 1.0,
        task_weight: float = 0.0,
        target: str = 'detached',
        teacher: str | None = None,
        side: str = 'output',
        bn: str = 'frozen',
        hold: str | Sequence[str] = (),
        image_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(at=at, side=side, bn=bn, hold=hold, online=target == 'online')
        self.image_range = image_range
        if target not in TARGETS:
            raise ValueError(f'target={target!r} at {at!r}: choose one of {", ".join(TARGETS)}')
        if (target == 'frozen') != (teacher is not None):
            raise ValueError(
                f"target={target!r} with teacher={teacher!r} at {at!r}: target='frozen' and a "
                'checkpoint as teacher belong together (the weights of the start are gone when a '
                'run is resumed)'
            )
        self.weight = non_negative('weight', weight, at)
        self.task_weight = non_negative('task_weight', task_weight, at)
        self.target, self.teacher = target, teacher
        self._distortions = build_distortions(distortions)
        self._pixels: PixelScale | None = None
        self._frozen: dict[str, Tensor] | None = None

    @property
    def active(self) -> bool:
        """False if neither term has a weight."""
        return bool(self.weight or self.task_weight)

    def bind(self, model: nn.Module) -> None:
        """Learn the scale of pixels, try the distortions, and load the frozen target."""
        self._pixels = PixelScale(model, self.image_range)
        refuse_channels(self._distortions, channels_of(model))
        if self.teacher is not None:
            from mmengine.runner.checkpoint import CheckpointLoader

            loaded = CheckpointLoader.load_checkpoint(self.teacher, map_location='cpu')
            self._frozen = loaded.get('state_dict', loaded)
            stock = stock_state_dict(model.state_dict())
            missing = [key for key in stock if key not in self._frozen]
            if missing:
                raise ValueError(
                    f'teacher={self.teacher!r} lacks {len(missing)} weights of the model, such as '
                    f'{missing[0]}: give a checkpoint of the same model'
                )

    @abstractmethod
    def distance(self, x: Tensor, target: Tensor) -> Tensor:
        """How far a feature of the copy is from its target, a scalar."""

    def losses(
        self, inputs: Tensor, clean: list[Tensor], network: CopyPass, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """One term; see :meth:`BatchAugmentation.losses`."""
        assert self._pixels is not None
        with no_autocast(inputs):
            raw = self._pixels.raw(inputs.float()) / 255
            distorted = combined_distortion(raw.clamp(0, 1), self._distortions)
            images = self._pixels.preprocessed(distorted * 255).to(inputs.dtype)
        if self._frozen is not None:
            self._frozen = {k: v.to(inputs.device) for k, v in self._frozen.items()}
            with torch.no_grad():
                clean = network(inputs, weights=self._frozen)
        if self.task_weight:
            features, total = network(images, loss=True)
        else:
            features, total = network(images), 0.0
        distances = [self.distance(f, c) for f, c in zip(features, clean, strict=True)]
        consistency = torch.stack(distances).mean()
        yield self.weight * consistency + self.task_weight * total
