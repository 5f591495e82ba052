# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""One augmented iteration: the clean pass, its gradients, and what is added to them."""

from collections.abc import Mapping, Sequence
from functools import partial

from torch import nn

from .batch import Batch, Losses
from .checks import gradients_now, refuse_inner_backward
from .copies import Copies, CopyTaps
from .copy_losses import add_copies
from .exactness import verify
from .objective import Objective
from .recorded_loss import RecordedLoss
from .settings import Outcome, Plan, Settings
from .tap import Member, Tap, TapError
from .views import add_views
from .votes import on_all_ranks


def run_step(
    model: nn.Module,
    taps: Mapping[Tap, Sequence[Member]],
    copy_taps: Sequence[CopyTaps],
    batch: Batch,
    settings: Settings,
    plan: Plan,
    step_count: int = 0,
    update_count: int = 0,
) -> tuple[Losses, Outcome]:
    """Run the stock loss and all that augmentations add to it.

    Args:
        model: In training mode.
        taps: With their augmentations that act.
        copy_taps: Of those that act and look at copies of the batch.
        batch: The stock loss, and what it is called with.
        settings: Of the handle.
        plan: Of the iteration.
        step_count: Number of augmented iterations before this one.
        update_count: Number of optimizer steps with such iterations before this one.

    Returns:
        The stock loss dict with the views' losses and diagnostics added, and what was done.
    """
    written = None if settings.backward_checked else gradients_now(model)
    objective = Objective(model, settings, plan)
    learns = [augmentation.learn for members in taps.values() for _, augmentation in members]
    recorded = RecordedLoss(
        model,
        list(taps),
        batch,
        state=settings.loss_state,
        gradients=objective.sum,
        clean_weight=objective.clean_weight,
        scale=objective.scale,
        keep_prefix=any(learn != 'tail' for learn in learns)
        or any(known.augmentation.online for known in copy_taps),
        contexts=[known.clean_pass for known in copy_taps],
    )
    try:
        tails = {tail.tap: tail for tail in recorded.tails}
        for tap in taps:
            if tap not in tails and not tap.was_reached:
                raise _unreached(tap, recorded)
        every = on_all_ranks([tap in tails for tap in taps], recorded.total) if taps else []
        for (tap, members), reached in zip(taps.items(), every, strict=True):
            if reached:
                tap.was_reached = True
                verify(tails[tap], settings.strict, step_count)
                add_views(tails[tap], members, objective)
            else:
                for name, _ in members:
                    objective.skip(name, recorded.total)
        for known, clean in zip(copy_taps, recorded.opened, strict=True):
            shared = objective.shared_generator(known.name)
            reseed = partial(objective.seed_streams, known.name)
            copies = Copies(recorded, known, clean, update_count, settings.teacher, shared, reseed)
            add_copies(copies, objective)
    finally:
        # The next iteration draws and sees what it would after a stock call, and so does the clean
        # graph, which may need what losses keep.
        recorded.restore()
    recorded.sweep()
    recorded.release()
    if written is not None:
        refuse_inner_backward(model, written)
        settings.backward_checked = True
    return objective.hand_over(recorded.losses, recorded.total), objective.outcome


def _unreached(tap: Tap, recorded: RecordedLoss) -> TapError:
    if tap in recorded.fired:
        return TapError(
            f'at={tap.at!r}: the training loss does not depend on what passes this tap; choose a '
            'module on the way to the loss'
        )
    return tap.not_reached_error()
