# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The stock loss of one batch, recorded, and run again from a tap any number of times."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from .augmentation import FeatureAugmentation
from .batch import Batch, Losses, detached
from .gradients import GradientSum, all_finite, scaled_gradients
from .guards import BatchNormGuard, RandomState, no_autocast, wide, without_dropout
from .loss_state import LossState
from .recording import Recording, record
from .replay import replay
from .tap import FiringError, Tap, TapError
from .tape import Gradients, Source, Tape, TermGradients


class RecordedLoss:
    """One clean pass of the stock loss, recorded at taps.

    Making one runs the stock loss, and takes the gradient of its total toward all taps and, in the
    same sweep, toward the parameters. From each tap that the pass has reached, the loss can then be
    evaluated for other features. Training steps and attacks on a test set are written on it.

    Args:
        model: With ``parse_losses``.
        taps: Where to record.
        batch: The stock loss, and what it is called with.
        state: Of the losses; keeps what a call of the loss changes.
        gradients: Of the parameters that learn; gets what this pass takes toward them. None:
            nothing learns.
        clean_weight: Factor of the clean loss in these gradients.
        scale: Another one, against underflow; gradients of all kinds but those that methods see
            have it.
        keep_prefix: Views or copies will send gradients into what runs before the taps. The graph
            there lives until :meth:`sweep`, which has to be called then.
        contexts: To be open during the clean pass, each as a function of the tape.

    Attributes:
        losses: The stock loss dict, out of the graph.
        total: The clean loss, a scalar.
        fired: The taps that the pass has reached.
        tails: One for each of them that the loss depends on, in the order of ``taps``.
        opened: What ``contexts`` gave.
    """

    def __init__(
        self,
        model: nn.Module,
        taps: Sequence[Tap],
        batch: Batch,
        *,
        state: LossState | None = None,
        gradients: GradientSum | None = None,
        clean_weight: float = 1.0,
        scale: float = 1.0,
        keep_prefix: bool = False,
        contexts: Sequence[Callable[[Tape], AbstractContextManager]] = (),
    ) -> None:
        self.model, self.batch, self.scale = model, batch, scale
        self.gradients = GradientSum(()) if gradients is None else gradients
        self.tape = Tape()
        self.state = LossState(model) if state is None else state
        self._before = self.state.save()
        self._random_before = RandomState()
        self.opened: list[Any] = []
        with ExitStack() as stack:
            recordings = [stack.enter_context(record(tap, self.tape)) for tap in taps]
            self.opened = [stack.enter_context(context(self.tape)) for context in contexts]
            inputs = batch.inputs
            for recording in recordings:
                if recording.tap.module is None:
                    inputs = recording.capture(inputs)
            losses = batch.loss(inputs)
        self._after = self.state.save_after(self._before)
        self._random_after = RandomState()
        try:
            self.total = self._differentiate(losses, recordings, clean_weight, keep_prefix)
        except BaseException:
            self.restore()
            raise
        self.losses = detached(losses)
        self.fired = {r.tap for r in recordings if r.fired}
        tails = [RecordedTail(self, r, clean_weight) for r in recordings if r.fired]
        self.tails = [tail for tail in tails if tail.movable]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Those that learn."""
        return self.gradients.parameters

    def rewind(self) -> None:
        """Random streams, and what losses keep, as the clean pass found them."""
        self.state.restore(self._before)
        self._random_before.restore()

    def restore(self) -> None:
        """Random streams, and what losses keep, as the clean pass left them."""
        self.state.restore(self._after)
        self._random_after.restore()

    def sweep(self) -> None:
        """Take all gradients that arrived at features and recorded results on to the parameters
        before them.
        """
        if self.parameters:
            self.tape.sweep(self.gradients, release=True)
        self.tape.release()

    def release(self) -> None:
        """Let go of all tensors: tails refer to this object, which else waits for the collector."""
        self.tape.release()
        self.tails.clear()
        self.opened.clear()

    def total_of(self, losses: Losses) -> Tensor:
        """Total loss as the framework defines it."""
        return self.model.parse_losses(losses)[0]  # type: ignore[operator]

    def _differentiate(
        self,
        losses: Losses,
        recordings: Sequence[Recording],
        clean_weight: float,
        keep_prefix: bool,
    ) -> Tensor:
        total = self.total_of(losses)
        toward = [*self.parameters, self.tape.token]
        # Kept, because what runs between cuts, outside of modules, may be shared by both sides.
        *found, _ = scaled_gradients(total, toward, self.scale * clean_weight, keep=True)
        self.gradients.add(found, self.tape.waiting)
        # Of several taps, the gradient at the first one comes through the others.
        first = min((r.first_cut for r in recordings if r.fired), default=len(self.tape.cuts))
        self.tape.sweep(self.gradients, until=first + 1)
        if not keep_prefix:
            self.sweep()
        return total.detach()


class RecordedTail:
    """The network behind one tap, for one recorded batch.

    Attributes:
        features: What passed the tap and moves the loss, detached. Others (RoI coordinates, grids)
            are no features to a method.
        gradients: Of the clean loss toward them, fp32 or wider.
        overflow: Whether an attack's gradients were not finite under the loss scale.
    """

    def __init__(self, recorded: RecordedLoss, recording: Recording, clean_weight: float) -> None:
        self.recorded, self.recording, self.tap = recorded, recording, recording.tap
        found = recording.gradients()
        self.movable = [i for i, g in enumerate(found) if g is not None]
        self.features = [recording.features[i] for i in self.movable]
        self.sources = [
            s for s, g in zip(recording.sources, found, strict=True) if s and g is not None
        ]
        factor = 1 / (recorded.scale * clean_weight)
        self.gradients = [wide(g) * factor for g in found if g is not None]
        self.overflow = False

    def losses(
        self,
        features: Sequence[Tensor],
        bn: str,
        *,
        grad: bool = True,
        live: bool = False,
        memoize: bool | None = None,
        full_precision: bool | None = None,
        separate: bool = False,
        drop: bool = True,
    ) -> tuple[Losses, list[tuple[Source, Tensor]]]:
        """The stock losses from the tap on, with the random draws of the clean pass.

        Args:
            features: In place of :attr:`features`.
            bn: How batch norms behind the tap treat the pass; see :class:`BatchNormGuard`.
            grad: Build a graph.
            live: Recorded results are part of it, too, so that a backward pass receives gradients
                there.
            memoize: Use recorded results; None: as the tap says.
            full_precision: Run outside autocast; None: as the tap says.
            separate: Compute with the second set of batch norms.
            drop: False drops nothing.

        Returns:
            The losses, and a list that a backward pass fills with gradients and where they go.

        Raises:
            FiringError: If the tap is reached more or less often than in the clean pass.
            TapError: If gradients are off behind it.
        """
        recorded, tap = self.recorded, self.tap
        memoize = tap.memoize if memoize is None else memoize
        full_precision = tap.full_precision if full_precision is None else full_precision
        every = list(self.recording.features)
        for i, feature in zip(self.movable, features, strict=True):
            every[i] = feature
        recorded.rewind()
        with ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(grad and live))
            if full_precision:
                stack.enter_context(no_autocast(every[0]))
            else:
                # Casts of weights cached by an earlier pass belong to its graph, which is gone.
                torch.clear_autocast_cache()
            if not drop:
                stack.enter_context(without_dropout(recorded.model))
            norms = stack.enter_context(BatchNormGuard(recorded.model))
            norms.apply('frozen')

            def on_fire() -> None:
                if not live:
                    torch.set_grad_enabled(grad)
                # PyTorch 2.1 keeps casts of weights from before, made without a graph.
                torch.clear_autocast_cache()
                norms.apply(bn, separate)

            again = stack.enter_context(
                replay(
                    self.recording,
                    every,
                    on_fire,
                    memoize=memoize,
                    tape=recorded.tape if live else None,
                    widen=full_precision,
                )
            )
            given = recorded.batch.inputs if tap.module is not None else again.substitute()
            losses = recorded.batch.loss(given)
            if again.firing != len(self.recording.firings):
                raise FiringError(f'tap at {tap} was reached less often than in the clean pass')
            if grad and not torch.is_grad_enabled():
                raise TapError(
                    f'tap at {tap}: the model saves the gradient mode before this place and '
                    "restores it behind, so that a view would train nothing; use learn='skips', "
                    'or a tap outside of that block'
                )
            return losses, again.received

    def train(
        self, features: Sequence[Tensor], bn: str, learn: str, weight: float
    ) -> tuple[Tensor, TermGradients]:
        """Loss of one view, and the gradients of ``weight * scale`` times it.

        Args:
            features: Of the view, in the precision of its pass; in the graph of parameters of the
                method's own, which are trained, too.
            bn: See :meth:`losses`.
            learn: What is trained; see :class:`FeatureAugmentation`.
            weight: Factor.
        """
        recorded = self.recorded
        # Where nothing before the tap needs a gradient, there is no use in taking it there.
        onward = [learn == 'network' and source.tensor is not None for source in self.sources]
        leaves = [
            f.detach().requires_grad_(on or f.requires_grad)
            for f, on in zip(features, onward, strict=True)
        ]
        losses, received = self.losses(leaves, bn, live=learn != 'tail')
        total = recorded.total_of(losses)
        if not total.requires_grad:
            return total, TermGradients([None] * len(recorded.parameters))
        wrt = [leaf for leaf in leaves if leaf.requires_grad]
        toward = [*recorded.parameters, *wrt, recorded.tape.token]
        found = scaled_gradients(total, toward, weight * recorded.scale)
        rest = iter(found[len(recorded.parameters) :])
        at_view = [next(rest) if leaf.requires_grad else None for leaf in leaves]
        received += [
            (source, g)
            for source, g, on in zip(self.sources, at_view, onward, strict=True)
            if on and g is not None
        ]
        parameters = self._with_own(found[: len(recorded.parameters)], features, at_view)
        return total.detach(), TermGradients(parameters, received)

    def _with_own(
        self, gradients: Gradients, features: Sequence[Tensor], at_view: Gradients
    ) -> Gradients:
        """Gradients of the parameters, with what a view's features bring that depend on some."""
        pairs = [
            (f, g)
            for f, g in zip(features, at_view, strict=True)
            if f.requires_grad and g is not None
        ]
        if not pairs:
            return gradients
        views, outer = zip(*pairs, strict=True)
        with no_autocast(views[0]):
            # Kept: other views may share the graph, and this one may be run again.
            own = torch.autograd.grad(
                views, self.recorded.parameters, outer, retain_graph=True, allow_unused=True
            )
        return [
            a if b is None else b if a is None else a + b
            for a, b in zip(gradients, own, strict=True)
        ]

    def evaluate(
        self,
        features: Sequence[Tensor],
        augmentation: FeatureAugmentation,
        against: Sequence[str] = (),
        with_grad: bool = True,
    ) -> tuple[Tensor, list[Tensor]]:
        """Loss and gradient toward the features, for an attack of this augmentation; without
        ``with_grad`` the loss and nothing. Parameters get no gradient, and running statistics of
        batch norms stay.

        Raises:
            ValueError: If no term of the loss has a name that holds a word of ``against``.
        """
        recorded = self.recorded
        leaves = [f.detach().requires_grad_() for f in features]
        cast = leaves
        if not self.tap.full_precision:
            cast = [leaf.to(c.dtype) for leaf, c in zip(leaves, self.features, strict=True)]
        policy = augmentation.attack_bn
        losses, _ = self.losses(
            cast,
            policy,
            grad=with_grad,
            separate=augmentation.bn == 'separate',
            drop=policy != 'eval',
        )
        if against:
            chosen = {k: v for k, v in losses.items() if any(word in k for word in against)}
            if not any('loss' in k for k in chosen):
                terms = ', '.join(k for k in losses if 'loss' in k)
                raise ValueError(f'against={tuple(against)!r} names no term of the loss: {terms}')
            losses = chosen
        total = recorded.total_of(losses)
        if not with_grad:
            return total, []
        found: Gradients = [None] * len(leaves)
        if total.requires_grad:
            found = scaled_gradients(total, leaves, recorded.scale)
        self.overflow |= recorded.scale != 1 and not all_finite(found)
        return total.detach(), [
            torch.zeros_like(leaf) if g is None else g / recorded.scale
            for leaf, g in zip(leaves, found, strict=True)
        ]
