# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Significance of differences between two sets of runs."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.05
"""A difference is called sure below this p, if its interval leaves out 0, too."""

CONFIDENCE = 0.95
RESAMPLES = 9999
DRAWS = 200
"""Of test images, each of which is a whole evaluation."""

JACKKNIFE = 300
"""Beyond so many images an interval is by percentiles: BCa leaves out each image once."""


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences.

    Attributes:
        mean: The second run minus the first, averaged over pairs.
        low, high: Its 95 % confidence interval; ``None`` where there is none, as for one pair.
        p: Two-sided p of the sign-flip test; ``None`` where there is none.
        n: Number of pairs.
        over: What was resampled for the interval: ``'seeds'``, or ``'images'`` of one pair, which
            says nothing about other trainings.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None
    n: int
    over: str = 'seeds'

    @property
    def enough(self) -> bool:
        """Whether this number of pairs can give a p below :data:`LEVEL`."""
        return least_p(self.n) < LEVEL

    @property
    def sure(self) -> bool:
        """Whether p is below :data:`LEVEL` and the interval leaves out 0."""
        if self.p is None or self.low is None or self.high is None:
            return False
        return self.p < LEVEL and self.low * self.high > 0

    def verdict(self, less_is_better: bool = False) -> str:
        """In words: ``'better'``, ``'worse'``, ``'not told apart'``, or ``'too few seeds to
        tell'``.
        """
        if not self.enough:
            return 'too few seeds to tell'
        if not self.sure:
            return 'not told apart'
        return 'worse' if (self.mean < 0) != less_is_better else 'better'


def least_p(n: int) -> float:
    """The smallest two-sided p that the sign-flip test of ``n`` pairs can reach."""
    return min(1.0, 2.0 ** (1 - n))


def paired_difference(differences: Sequence[float]) -> Difference | None:
    """Mean, Student's t interval and sign-flip p of paired differences.

    Under the null hypothesis each difference could as well have had the other sign; up to 13 pairs
    all signs are tried, beyond 9999 random ones. A bootstrap of so few pairs gives intervals that
    are much too narrow: of six, BCa's at 95 % covers the mean in 85 % of cases. Both are those of
    :mod:`scipy.stats`.

    Args:
        differences: One for each pair; what is not finite is left out.

    Returns:
        None, if there is no pair.
    """
    values = np.array([d for d in differences if d is not None and math.isfinite(d)])
    n = len(values)
    if not n:
        return None
    mean = math.fsum(values) / n
    if n == 1:
        return Difference(mean, None, None, None, 1)
    from scipy import stats

    # Sums of floating-point numbers depend on their order: ties of the statistic are made exact.
    p = stats.permutation_test(
        (values,),
        lambda x, axis: np.round(np.mean(x, axis), 12),
        permutation_type='samples',
        n_resamples=RESAMPLES,
        vectorized=True,
        random_state=np.random.default_rng(0),
    ).pvalue
    low = high = mean
    if np.ptp(values) > 0:
        low, high = stats.ttest_1samp(values, 0.0).confidence_interval(CONFIDENCE)
    return Difference(mean, float(low), float(high), float(p), n)


def over_images(
    statistic: Callable[[np.ndarray], float], images: int, resamples: int = DRAWS
) -> Difference:
    """A statistic of one pair of runs with its interval over the test images: BCa, or percentiles
    for more than :data:`JACKKNIFE` images.

    Args:
        statistic: The figure, of the images with these numbers; a number may be there several
            times.
        images: How many there are.
        resamples: How often they are drawn.
    """
    numbers = np.arange(images)
    low, high = _interval(numbers, lambda x: statistic(np.asarray(x, int)), resamples)
    return Difference(float(statistic(numbers)), low, high, None, 1, over='images')


def calls(images: int, resamples: int) -> int:
    """How often :func:`over_images` asks for its statistic."""
    return resamples + 1 + (images if images <= JACKKNIFE else 0)


def _interval(
    numbers: np.ndarray, statistic: Callable, resamples: int
) -> tuple[float | None, float | None]:
    if len(numbers) < 2:
        return None, None
    from scipy import stats

    with warnings.catch_warnings():
        # Where all resamples are alike there is no interval, and SciPy warns of it.
        warnings.simplefilter('ignore')
        low, high = stats.bootstrap(
            (numbers,),
            statistic,
            vectorized=False,
            n_resamples=resamples,
            confidence_level=CONFIDENCE,
            method='BCa' if len(numbers) <= JACKKNIFE else 'percentile',
            random_state=np.random.default_rng(0),
        ).confidence_interval
    finite = math.isfinite(low) and math.isfinite(high)
    return (float(low), float(high)) if finite else (None, None)
