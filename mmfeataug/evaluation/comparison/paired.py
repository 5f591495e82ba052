# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Runs against their baseline, seed by seed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from mmfeataug.utils.corruptions import ALL, FAMILIES

from ..robustness import counted, mean
from .compare import Comparison
from .runs import Run, distinct_seeds
from .significance import Difference, paired_difference

Pairs = list[tuple[int, int]]
"""Positions of a run among those of a name, and of its partner among those of the baseline."""


def pair(runs: Sequence[Run], baseline: Sequence[Run]) -> tuple[Pairs, str | None]:
    """Which runs belong together: those with the same ``randomness.seed`` in their configs; where a
    config says none, or two say the same, those at the same position.

    Returns:
        Pairs, and a note where something is left out or seeds are not known.
    """
    seeds, others = [[run.seed for run in of] for of in (runs, baseline)]
    if not (distinct_seeds(runs) and distinct_seeds(baseline)):
        count = min(len(runs), len(baseline))
        note = (
            'paired in the order given, because not every config has a randomness.seed of its own'
        )
        left = len(runs) + len(baseline) - 2 * count
        if left:
            note += f'; {left} run(s) are left without a partner'
        return [(i, i) for i in range(count)], note
    pairs = [(i, others.index(seed)) for i, seed in enumerate(seeds) if seed in others]
    alone = sorted(seed for seed in {*seeds} ^ {*others} if seed is not None)
    note = f'seeds {", ".join(map(str, alone))} are left out: only one of the two has them'
    return pairs, note if alone else None


@dataclass
class Against:
    """Comparison of one name with the baseline, in one metric.

    Attributes:
        differences: By key of ``Comparison.values``; those that are undefined in a pair are over
            the others.
        seen: Evaluated corruptions that resemble the training of one of the two.
        near, far: Difference of the mean over ``seen``, of those that mPC is over, and over the
            rest of these; ``None`` where there are none.
        unseen: Difference of the mean over the unseen corruptions that neither trained near.
        note: Of the pairing.
    """

    differences: dict[str, Difference] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    near: Difference | None = None
    far: Difference | None = None
    unseen: Difference | None = None
    note: str | None = None


def against(one: Comparison, metric: str, baseline: str) -> dict[str, Against]:
    """Compare every other name with the baseline.

    Args:
        one: Of tables.
        metric: Which one.
        baseline: A name in it.
    """
    base = one.values[metric][baseline]
    found = {}
    for name, values in one.values[metric].items():
        if name == baseline:
            continue
        pairs, note = pair(one.runs[name], one.runs[baseline])
        result = found[name] = Against(note=note)
        for key in values:
            if key in base and (d := _difference(values[key], base[key], pairs)):
                result.differences[key] = d
        rows = one.by_corruption[metric][name], one.by_corruption[metric][baseline]
        evaluated = {c for row in rows[0] for c in row}
        trained = {c for n in (name, baseline) for run in one.runs[n] for c in run.trained_on}
        result.seen = [c for c in ALL if c in trained & evaluated]
        of_mpc = counted({c: {} for c in ALL if c in evaluated})
        result.near = _over([c for c in of_mpc if c in trained], rows, pairs)
        result.far = _over([c for c in of_mpc if c not in trained], rows, pairs)
        unseen = [c for c in FAMILIES['unseen'] if c not in trained]
        result.unseen = _over(unseen, rows, pairs)
    return found


def _over(
    corruptions: Sequence[str], rows: tuple[list[dict], list[dict]], pairs: Pairs
) -> Difference | None:
    """Difference of the mean over some corruptions."""
    own, base = ([mean(row.get(c) for c in corruptions) for row in of] for of in rows)
    return _difference(own, base, pairs)


def _difference(
    own: Sequence[float | None], base: Sequence[float | None], pairs: Pairs
) -> Difference | None:
    both = [(own[i], base[j]) for i, j in pairs]
    return paired_difference(
        [a - b for a, b in both if a is not None and b is not None and math.isfinite(a - b)]
    )
