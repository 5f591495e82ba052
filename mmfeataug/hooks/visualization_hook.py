# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Pictures of augmented features during training."""

from collections.abc import Iterator
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmfeataug.engine import Augmentation, AugmentedLoss, BatchAugmentation
from mmfeataug.models import layers
from mmfeataug.registry import HOOKS
from mmfeataug.utils.loaders import epoch_length
from mmfeataug.utils.models import model_of
from mmfeataug.utils.pipelines import steps
from mmfeataug.utils.pixels import learn_pipeline
from mmfeataug.utils.settings import whole
from mmfeataug.visualization import (
    Change,
    deepest,
    draw,
    levels,
    record,
    shown,
    stop_recording,
    to_array,
)


@HOOKS.register_module()
class FeatureAugVisualizationHook(Hook):
    """Draws the features of training batches before and after each augmentation.

    A picture shows the image, the feature before and after, their difference, its position in the
    image, and the statistics of channels. It goes to ``runner.visualizer`` and the config's
    ``vis_backends``: local disk (``vis_data/vis_image``), TensorBoard, Weights & Biases. Its
    name is ``<method>.view_<n>``, with the ``<method>`` and ``<n>`` of the logged loss; its step is
    that of the log, the number of iterations done.

    Training is not changed: the hook uses the views of the training step and needs no random
    numbers. Only the main process draws, about one second per picture. An augmentation
    that does not act in the iteration (it has a probability, or a schedule) is drawn the next time
    it does; one with a probability is watched in every iteration until then. Layers that
    ``AugmentedBackbone`` declares need no ``FeatureAugHook``.

    Memory, in the iterations that are watched: ``samples`` images, and for each view the feature of
    ``samples`` images twice, fp32, in main memory; rows without images (RoI vectors) are kept all.

    Args:
        interval: Draw every ``interval`` iterations, and in the first one of the run.
        samples: Images of the batch to draw, each in a picture of its own.
        by_epoch: Draw in the first iteration of every ``interval``-th epoch instead.

    Raises:
        ValueError: For an interval or a number of samples below 1.

    Examples:
        >>> custom_hooks = [
        ...     dict(type='mmfeataug.FeatureAugHook', augmentations=[...]),
        ...     dict(type='mmfeataug.FeatureAugVisualizationHook', interval=500)]
    """

    # Behind FeatureAugHook, whose schedule and clock then know nothing of pictures.
    priority = 'LOW'

    def __init__(self, interval: int = 500, samples: int = 1, by_epoch: bool = False) -> None:
        self.interval, self.samples = whole('interval', interval), whole('samples', samples)
        self.by_epoch = by_epoch
        # Still to be drawn, and what they have done in this iteration.
        self._waiting: dict[str, tuple[str, Augmentation]] = {}
        self._seen: dict[str, list[Change]] = {}
        self._inputs: list[Any] = []
        self._inputs_hook: Any = None

    def before_train(self, runner: Runner) -> None:
        """Look for augmentations.

        Raises:
            ValueError: If nothing in the run augments features.
        """
        self._stop()
        self._waiting = {}
        if not any(_augmentations(model_of(runner))):
            raise ValueError(
                'FeatureAugVisualizationHook finds no augmentation to draw: add '
                "dict(type='mmfeataug.FeatureAugHook', augmentations=[...]) to custom_hooks, with "
                'a priority above LOW'
            )
        # Without FeatureAugHook nobody has told the model yet how its images are normalised.
        learn_pipeline(model_of(runner), steps(runner.train_dataloader.dataset))
        if not runner.visualizer._vis_backends:
            runner.logger.warning(
                'FeatureAugVisualizationHook: the visualizer has vis_backends=[], so that pictures '
                "go nowhere: add dict(type='LocalVisBackend')"
            )

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Record features if this iteration is drawn."""
        if not is_main_process():
            return
        self._stop()
        model = model_of(runner)
        if self._is_due(runner, batch_idx):
            self._waiting = _named(model)
        self._seen = {
            name: record(augmentation, samples=self.samples, always=False)
            for name, (_, augmentation) in self._waiting.items()
            if _may_act(model, name, augmentation)
        }
        if self._seen:
            self._inputs_hook = model.data_preprocessor.register_forward_hook(self._keep_inputs)

    def after_train_iter(self, runner: Runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Draw the recorded features."""
        if not self._seen:
            return
        seen, inputs = self._seen, self._inputs
        self._stop()
        for name, changes in seen.items():
            if changes:
                place, augmentation = self._waiting.pop(name)
                try:
                    self._draw(runner, name, place, augmentation, changes, inputs)
                except Exception as error:
                    # No training should end for a picture.
                    runner.logger.warning(
                        '%s at %s is not drawn: %s: %s', name, place, type(error).__name__, error
                    )

    def after_train(self, runner: Runner) -> None:
        """Stop recording."""
        self._stop()
        self._waiting = {}

    def _is_due(self, runner: Runner, batch_idx: int) -> bool:
        if runner.iter == 0:
            return True
        if self.by_epoch:
            # In IterBasedTrainLoop all of the training is epoch 0, and batch_idx the iteration.
            passed, batch = divmod(batch_idx, epoch_length(runner.train_dataloader))
            return batch == 0 and (runner.epoch + passed + 1) % self.interval == 0
        return self.every_n_train_iters(runner, self.interval)

    def _stop(self) -> None:
        for name in self._seen:
            stop_recording(self._waiting[name][1])
        if self._inputs_hook is not None:
            self._inputs_hook.remove()
        self._seen, self._inputs, self._inputs_hook = {}, [], None

    def _keep_inputs(self, module: nn.Module, args: Any, output: Any) -> None:
        """The batch as the model gets it: its number of images, and the first of them."""
        inputs = output.get('inputs') if isinstance(output, dict) else None
        if isinstance(inputs, Tensor) and not self._inputs:
            first = inputs[: self.samples].detach().to('cpu', torch.float32, copy=True)
            self._inputs = [len(inputs), first]

    def _draw(
        self,
        runner: Runner,
        name: str,
        place: str,
        augmentation: Augmentation,
        changes: list[Change],
        inputs: list[Any],
    ) -> None:
        if not inputs:
            raise TypeError('the data preprocessor yields no tensor of images')
        model, (batch, first) = model_of(runner), inputs
        show = shown(model, (type(t).__name__ for t in steps(runner.train_dataloader.dataset)))
        images = show(first)
        if isinstance(augmentation, BatchAugmentation):
            changes = deepest(changes)
        for change in changes:
            each = change.images is None and change.is_map and change.count == batch
            for i in range(len(images) if each else 1):
                tag = f'{name}.view_{change.index}'
                tag += f'.level_{change.level}' if levels(changes, change) > 1 else ''
                tag += f'.image_{i}' if self.samples > 1 and each else ''
                figure = draw(
                    augmentation,
                    change.sample(i) if each else change,
                    images[i : i + 1] if each else images,
                    f'{name} at {place}, view {change.index}, iteration {runner.iter + 1}',
                    model,
                    show,
                    # The cut sample has its place in the cut batch.
                    batch,
                )
                runner.visualizer.add_image(tag, to_array(figure), runner.iter + 1)


def _augmentations(model: nn.Module) -> Iterator[tuple[str, str, Augmentation]]:
    """Name, place and object: those that a handle drives, then layers declared in the model."""
    handle = vars(model).get('loss')
    if isinstance(handle, AugmentedLoss):
        for name, augmentation in handle.augmentations.items():
            yield name, ', '.join(augmentation.paths), augmentation
    for layer, path in layers(model).items():
        yield layer.name, path, layer


def _named(model: nn.Module) -> dict[str, tuple[str, Augmentation]]:
    found: dict[str, tuple[str, Augmentation]] = {}
    for name, place, augmentation in _augmentations(model):
        unique, count = name, 1
        while unique in found:
            count += 1
            unique = f'{name}{count}'
        found[unique] = place, augmentation
    return found


def _may_act(model: nn.Module, name: str, augmentation: Augmentation) -> bool:
    """False if the handle leaves it out of this iteration."""
    handle = vars(model).get('loss')
    if not isinstance(handle, AugmentedLoss) or handle.augmentations.get(name) is not augmentation:
        # A layer declared in the model.
        return True
    return handle.acts(name)
