# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Views at one tap: asked for, run, and added to the terms of the iteration."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from .augmentation import FeatureAugmentation, Tail, View
from .gradients import all_finite
from .guards import RunningStatistics, anywhere, everywhere
from .losses import Losses, perturbation_norms
from .recording import TapError
from .tail import TailRunner
from .terms import Terms


def add_views(tail: TailRunner, slopes: list[Tensor], losses: Losses, terms: Terms) -> None:
    """All views of all augmentations at one tap.

    Args:
        tail: Behind the tap.
        slopes: Gradients of the clean loss toward the features.
        losses: Of the clean pass.
        terms: Gathers what comes out.

    Raises:
        RuntimeError: Around what a method raises, with its name and the tap.
    """
    clean = [f.float() for f in tail.clean]
    tail.place.shapes = [tuple(f.shape) for f in clean]
    clean_is_finite = bool(tail.total(losses).isfinite())
    for name, augmentation in tail.place.members:
        if not augmentation.active or not terms.wants(name):
            continue
        views = _Views(tail, name, augmentation, clean, clean_is_finite, terms)
        terms.begin(name, clean[0])
        try:
            for index, view in enumerate(views.make(slopes)):
                weight = terms.offer(name, view.weight)
                if anywhere(bool(weight), clean[0]):
                    views.add(index, view, weight)
        except TapError:
            raise
        except Exception as error:
            raise RuntimeError(f'{name} failed at the tap {tail.place.tap}: {error}') from error
        terms.overflow |= tail.overflow
        if parts := tail.parts:
            terms.parts[name] = parts


@dataclass
class _Views:
    """Those of one augmentation."""

    tail: TailRunner
    name: str
    augmentation: FeatureAugmentation
    clean: list[Tensor]
    clean_is_finite: bool
    terms: Terms

    def make(self, slopes: list[Tensor]) -> Iterator[View]:
        """As many on every process. One without a view of its own runs along, or collectives inside
        the tail (normalisers of mmdet's losses, SyncBN) would leave the others waiting.
        """
        if not everywhere(self.augmentation.accepts(self.clean), self.clean[0]):
            self.terms.log(f'{self.name}.skipped', self.clean[0].new_ones(()))
            return
        generator = self.terms.generator(self.name, self.clean[0])
        ask = Tail(partial(self.tail.evaluate, augmentation=self.augmentation), generator)
        views = iter(self.augmentation.views(self.clean, slopes, ask))
        while True:
            view = next(views, None)
            if not anywhere(view is not None, self.clean[0]):
                return
            yield view or View(self.clean, 0.0)

    def add(self, index: int, view: View, weight: float) -> None:
        """Train on a view. Every process takes the same turns, or collectives inside the tail would
        not meet.
        """
        tail, terms, bn = self.tail, self.terms, self.augmentation.bn
        key = f'{self.name}.loss_{index}'
        taught = RunningStatistics(tail.model) if bn in ('shared', 'separate') else None
        gradients: Sequence[Tensor | None] = ()
        finite = everywhere(all_finite(view.features), self.clean[0])
        if finite:
            features, lost = tail.cast(view.features, self.name)
            if lost is not None:
                terms.log(f'{self.name}.lost_by_cast', lost)
            part = None if terms.samples is None else tail.part(terms.samples, terms.seed)
            total = tail.total(tail.losses(features, bn, part=part))
            # Real data has batches whose loss is infinite and whose gradient is not (boxes without
            # an area).
            finite = not self.clean_is_finite or bool(total.isfinite())
            finite &= taught is None or all_finite(taught.current)
            if not terms.graph:
                gradients = tail.gradient(total, terms.parameters, weight)
                finite &= terms.fit(gradients)
            finite = everywhere(finite, total)
        if taught is not None and not (finite and weight):
            taught.restore()
        if not finite:
            terms.drop(self.name, key, self.clean[0])
        elif weight or terms.graph:
            terms.add(key, total, weight, gradients)
            self._look(index, [f.detach() for f in view.features])

    def _look(self, index: int, moved: list[Tensor]) -> None:
        if self.augmentation.observer is not None:
            self.augmentation.observer(self.clean, moved, index=index)
        for measure, value in perturbation_norms(self.clean, moved).items():
            self.terms.log(f'{self.name}.{measure}', value)
