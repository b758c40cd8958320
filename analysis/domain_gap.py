"""The language-domain gap of two sets of texts: how well K-means tells their features apart (Section 3.2).

Making the features is the caller's; `draw_samples` tells which rows the measure will look at.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from clipvip.analysis.clusters import two_clusters

Normalizer = Literal["arithmetic", "geometric", "min", "max"]
Side = Literal["source", "target"]


@dataclass(frozen=True)
class DomainGap:
    """NMI of each draw: 0 where the sets cannot be told apart, 1 where two clusters are the sets."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def std(self) -> float:
        """Standard deviation over the draws (divided by their number)."""
        return float(np.std(self.values))


def domain_gap(
    source: np.ndarray,
    target: np.ndarray,
    *,
    samples: int = 1000,
    repeats: int = 10,
    seed: int = 0,
    normalizer: Normalizer = "arithmetic",
) -> DomainGap:
    """Normalised mutual information between K-means clusters and the set that a text is from (Table 1).

    `repeats` times, draw `samples` rows of each side without replacement, find two clusters in them, and
    compare. Equal arguments give equal values.

    The paper fixes 2 clusters, 1000 texts a side and 10 repeats, but neither how NMI is normalised (here by
    scikit-learn's default) nor how K-means starts (here the best of 10 random starts).

    Args:
        source, target: features (n, dim) and (m, dim), one row per text.

    Raises:
        ValueError: a side with fewer rows than `samples`, features that are not finite or do not fit.
        ImportError: faiss is not installed.

    Examples:
        >>> import numpy as np
        >>> from clipvip.analysis import domain_gap
        >>> features = np.random.default_rng(0).normal(size=(80, 8))
        >>> domain_gap(features[:40], features[40:] + 9, samples=40, repeats=2).mean  # far apart
        1.0
    """
    source, target = _checked(source, "source"), _checked(target, "target")
    if source.shape[1] != target.shape[1]:
        raise ValueError(
            f"the source's features have {source.shape[1]} dimensions, the target's {target.shape[1]}; "
            "compute both with one model"
        )
    rows = draw_samples(len(source), samples=samples, repeats=repeats, seed=seed, side="source")
    columns = draw_samples(len(target), samples=samples, repeats=repeats, seed=seed, side="target")
    values = [
        cluster_agreement(source[row], target[column], seed=seed + n, normalizer=normalizer)
        for n, (row, column) in enumerate(zip(rows, columns, strict=True))
    ]
    return DomainGap(tuple(values))


def draw_samples(num_texts: int, *, samples: int, repeats: int, seed: int, side: Side) -> np.ndarray:
    """The rows that `domain_gap` looks at on one side: int64 (repeats, samples), each row without repetition.

    The draws of a side do not depend on the other, so one set of features serves all pairs. The two sides
    draw differently, so a set against itself is compared by two different samples of it.

    Raises:
        ValueError: fewer texts than `samples`, or fewer than 1 sample or repeat.

    Examples:
        >>> from clipvip.analysis import draw_samples
        >>> rows = draw_samples(100, samples=3, repeats=2, seed=0, side="source")
        >>> [len(row) for row in rows]
        [3, 3]
    """
    if samples < 1 or repeats < 1:
        raise ValueError(f"{samples = }, {repeats = }: give 1 or more of each")
    if num_texts < samples:
        raise ValueError(f"the {side} has {num_texts} texts, fewer than the {samples} to draw; ask for fewer")
    rng = np.random.default_rng([seed, ("source", "target").index(side)])
    return np.stack([rng.choice(num_texts, samples, replace=False) for _ in range(repeats)])


def cluster_agreement(
    source: np.ndarray,
    target: np.ndarray,
    *,
    seed: int = 0,
    normalizer: Normalizer = "arithmetic",
    use_gpu: bool = True,
) -> float:
    """NMI between two K-means clusters of all rows and the side that each row is from, in [0, 1].

    Clusters of many rows are found on a GPU where faiss has one, unless `use_gpu` is false.

    Examples:
        >>> import numpy as np
        >>> from clipvip.analysis import cluster_agreement
        >>> cluster_agreement(np.zeros((20, 4)), np.ones((20, 4)), seed=0)
        1.0
    """
    # scikit-learn takes half a second to import, and this package offers functions that need none of it.
    from sklearn.metrics import normalized_mutual_info_score

    features = np.ascontiguousarray(np.concatenate([source, target]), dtype=np.float32)
    labels = two_clusters(features, seed, use_gpu=use_gpu)
    sides = np.repeat([0, 1], [len(source), len(target)])
    score = normalized_mutual_info_score(sides, labels, average_method=normalizer)
    return float(min(max(score, 0.0), 1.0))


def _checked(features: np.ndarray, side: Side) -> np.ndarray:
    features = np.asarray(features)
    if features.ndim != 2 or features.shape[1] == 0:
        raise ValueError(f"the {side}'s features must be (texts, dimensions), not of shape {features.shape}")
    if not np.isfinite(features).all():
        raise ValueError(f"the {side}'s features hold NaN or infinity")
    return features
