"""How far a score would move with other test queries: percentile intervals from resampled queries.

Queries are drawn with replacement; the gallery stays. Equal scores and seeds give equal intervals.
"""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from clipvip.analysis.retrieval import RECALLS_AT, Ranks

_CHUNK_DRAWS = 2**22
_CONFIDENCE = 0.95

Interval = tuple[float, float]


def rank_intervals(ranks: Ranks, *, resamples: int = 1000, seed: int = 0) -> dict[str, Interval]:
    """95% intervals of `Ranks.metrics` and of `mean_recall`, the mean of R@1, R@5 and R@10.

    Examples:
        >>> import numpy as np
        >>> from clipvip.analysis import rank_intervals, similarity_ranks
        >>> low, high = rank_intervals(similarity_ranks(np.eye(20)))["r1"]  # all are right, however drawn
        >>> low, high
        (1.0, 1.0)
    """
    middle = (ranks.best + ranks.worst) / 2
    hits = {f"r{k}": (ranks.worst <= k).astype(np.float64) for k in RECALLS_AT}
    drawn: dict[str, list[np.ndarray]] = defaultdict(list)
    for rows in _draws(len(middle), resamples, seed):
        recalls = {name: values[rows].mean(axis=1) for name, values in hits.items()}
        for name, values in recalls.items():
            drawn[name].append(values)
        drawn["mean_recall"].append(np.mean(list(recalls.values()), axis=0))
        drawn["median_rank"].append(np.median(middle[rows], axis=1))
        drawn["mean_rank"].append(middle[rows].mean(axis=1))
    return {name: percentiles(np.concatenate(values)) for name, values in drawn.items()}


def mean_interval(values: np.ndarray, *, resamples: int = 1000, seed: int = 0) -> Interval:
    """The 95% interval of the mean of `values` (n,), such as 1 for a right answer and 0 for a wrong one.

    Examples:
        >>> import numpy as np
        >>> from clipvip.analysis import mean_interval
        >>> low, high = mean_interval(np.array([1, 1, 1, 0]))
        >>> low < 0.75 < high
        True
    """
    values = np.asarray(values, np.float64)
    means = [values[rows].mean(axis=1) for rows in _draws(len(values), resamples, seed)]
    return percentiles(np.concatenate(means))


def _draws(num_queries: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Indices of the queries of some resamples at a time: (some, num_queries). ValueError: there are none."""
    if num_queries < 1 or resamples < 1:
        raise ValueError(f"{num_queries} queries and {resamples} resamples: there is nothing to draw")
    rng = np.random.default_rng(seed)
    at_once = max(1, _CHUNK_DRAWS // num_queries)
    for first in range(0, resamples, at_once):
        yield rng.integers(0, num_queries, (min(at_once, resamples - first), num_queries))


def percentiles(drawn: np.ndarray) -> Interval:
    """The range of the middle 95% of `drawn`."""
    outside = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(drawn, [outside, 1 - outside])
    return float(low), float(high)
