# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""One augmented iteration: the clean pass, its gradients, and what is added to it."""

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from .batch import Batch
from .copies import Network, add_terms
from .exactness import verify
from .guards import RandomState, no_autocast
from .loss_state import LossState
from .losses import Losses, detached
from .recording import Recording, TapError
from .tail import Place, TailRunner
from .terms import Settings, Terms
from .views import add_views
from .watch import Seen, Watch


class Step:
    """One iteration. Everything that holds tensors lives here and goes with it.

    Args:
        model: In training mode.
        places: The active ones.
        watches: Of the active augmentations that look at copies of the batch.
        batch: The stock loss, and what it is called with.
        settings: Of the handle.
        terms: Gathers what the iteration adds.
        turn: Number of augmented iterations before this one.
    """

    def __init__(
        self,
        model: nn.Module,
        places: Sequence[Place],
        watches: Sequence[Watch],
        batch: Batch,
        settings: Settings,
        terms: Terms,
        turn: int = 0,
    ) -> None:
        self.model, self.places, self.watches, self.batch = model, places, watches, batch
        self.settings, self.terms, self.turn = settings, terms, turn

    def run(self) -> Losses:
        """The stock loss dict with the views' losses and diagnostics added."""
        settings, terms = self.settings, self.terms
        if settings.loss_state is None:
            settings.loss_state = LossState(self.model)
        loss_state = settings.loss_state
        state = loss_state.save()
        losses, recordings, seen = self._clean_pass()
        state, state_after = loss_state.learn(state, loss_state.save())
        random_after = RandomState()
        try:
            slopes = self._differentiate(losses, recordings)
            clean = detached(losses)
            if not terms.graph:
                losses = clean
            for place, recording, toward in zip(self.places, recordings, slopes, strict=True):
                tail = TailRunner(
                    self.model,
                    place,
                    recording,
                    [i for i, g in enumerate(toward) if g is not None],
                    self.batch,
                    loss_state,
                    state,
                    terms.scale,
                )
                verify(tail, clean, settings.strict)
                add_views(tail, [g for g in toward if g is not None], clean, terms)
            for watch, left in zip(self.watches, seen, strict=True):
                network = Network(
                    self.model,
                    watch,
                    left,
                    self.batch,
                    loss_state,
                    state,
                    self.turn,
                    settings.teacher,
                )
                add_terms(network, terms)
        finally:
            # The next iteration draws and sees what it would after a stock call.
            loss_state.restore(state_after)
            random_after.restore()
        return terms.hand_over(losses)

    def _clean_pass(self) -> tuple[Losses, list[Recording], list[Seen]]:
        with ExitStack() as stack:
            recordings = [
                stack.enter_context(place.tap.record(place.live_prefix)) for place in self.places
            ]
            seen = [stack.enter_context(watch.clean_pass()) for watch in self.watches]
            inputs = self.batch.inputs
            for recording in recordings:
                if recording.tap.module is None:
                    inputs = recording.capture(inputs)
            losses = self.batch.loss(inputs)
        for recording in recordings:
            if not recording.fired:
                raise recording.tap.silent()
        return losses, recordings, seen

    def _differentiate(
        self, losses: Losses, recordings: list[Recording]
    ) -> list[list[Tensor | None]]:
        """Gradient of the clean loss toward every tap and, in the same sweep, every parameter.
        Returns those toward the taps, fp32 and unscaled; the clean graph is gone afterwards unless
        it is to be kept.
        """
        graph, scale = self.terms.graph, self.terms.scale
        weight = 1.0 if graph else self.settings.clean_weight
        total = self.model.parse_losses(losses)[0]  # type: ignore[operator]
        points = [handle for recording in recordings for handle in recording.handles]
        toward = points if graph else self.terms.parameters + points
        gradients: Sequence[Tensor | None] = ()
        if toward:
            with no_autocast(total):
                gradients = torch.autograd.grad(
                    total,
                    toward,
                    torch.full_like(total, scale * weight),
                    retain_graph=graph or any(w.augmentation.online for w in self.watches),
                    allow_unused=True,
                )
        count = len(toward) - len(points)
        if not graph:
            self.terms.add_gradients(gradients[:count])
        elif self.terms.scaled:
            self.terms.fit(gradients)
        slopes: list[list[Tensor | None]] = []
        rest = list(gradients[count:])
        for recording in recordings:
            recording.release()
            mine, rest = rest[: len(recording.handles)], rest[len(recording.handles) :]
            if all(g is None for g in mine):
                raise TapError(
                    f'at={recording.tap.at!r}: the training loss does not depend on what passes '
                    'this tap; choose a module on the way to the loss'
                )
            slopes.append([None if g is None else g.float() / (scale * weight) for g in mine])
        return slopes
