"""Numbers from several seeds as a mean with an interval, and pairs of them as a difference."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and the ends of its interval; without an interval (one seed) both ends are None."""

    mean: float
    low: float | None
    high: float | None
    count: int


def estimate(values: Sequence[float]) -> Estimate:
    """The mean over seeds with its 95% interval by Student's t; ValueError where there is none."""
    if not len(values):
        raise ValueError("no values to average")
    array = np.asarray(values, np.float64)
    mean = float(array.mean())
    if len(array) == 1:
        return Estimate(mean, None, None, 1)
    from scipy.stats import t  # takes a while to import

    half = float(t.ppf((1 + _LEVEL) / 2, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array)))
    return Estimate(mean, mean - half, mean + half, len(array))


def difference(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """The mean of first - second, paired by seed; ValueError where there is none, or not one of each."""
    if len(first) != len(second):
        raise ValueError(f"{len(first)} values cannot be paired with {len(second)}; give as many of both")
    return estimate([a - b for a, b in zip(first, second, strict=True)])


def are_apart(higher: Estimate, lower: Estimate) -> bool:
    """Whether the interval of `higher` lies above that of `lower`; never without intervals."""
    return higher.low is not None and lower.high is not None and higher.low > lower.high
