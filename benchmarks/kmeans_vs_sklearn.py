"""The domain gap of one draw beside scikit-learn's K-means: processor time of one thread, and the NMI found.

    python benchmarks/kmeans_vs_sklearn.py [--texts 1000 --texts 10000 --texts 100000] [--rounds 5]

Made features: unit vectors whose variances fall as those of text features do, the two sides a little apart.
The ways take turns. "scikit-learn" is KMeans(2, n_init=10) as it comes, "random starts" the same with the
starts, and the most iterations, of clipvip; both with NMI, as clipvip's time has it.
"""

import os

if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import statistics
import time
from collections.abc import Callable

import click
import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score

from clipvip.analysis.domain_gap import cluster_agreement

_APART = 0.5


def made_features(num_texts: int, dim: int, *, shift: float, seed: int) -> np.ndarray:
    """Float32 (num_texts, dim) of unit length."""
    rows = np.random.default_rng(seed).standard_normal((num_texts, dim), np.float32)
    rows /= np.sqrt(np.arange(1, dim + 1, dtype=np.float32))
    rows[:, 0] += shift
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def by_sklearn(source: np.ndarray, target: np.ndarray, **settings: object) -> float:
    labels = KMeans(2, n_init=10, random_state=0, **settings).fit(np.concatenate([source, target])).labels_
    sides = np.repeat([0, 1], [len(source), len(target)])
    return float(normalized_mutual_info_score(sides, labels))


@click.command()
@click.option("--texts", multiple=True, default=(1_000, 10_000, 100_000), show_default=True, help="A side.")
@click.option("--dim", default=512, show_default=True)
@click.option("--rounds", default=5, show_default=True)
def main(texts: tuple[int, ...], dim: int, rounds: int) -> None:
    """Print a row a size: median seconds of each way, our part of scikit-learn's time, and the NMIs."""
    ways: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
        "clipvip": lambda a, b: cluster_agreement(a, b, use_gpu=False),
        "scikit-learn": by_sklearn,
        "random starts": lambda a, b: by_sklearn(a, b, init="random", max_iter=50),
    }
    click.echo(f"| texts a side | {' | '.join(f'{way}, s' for way in ways)} | clipvip / scikit-learn | NMI |")
    click.echo("|---|" + "---|" * (len(ways) + 2))
    few = made_features(100, dim, shift=0, seed=0)
    for way in ways.values():  # imports
        way(few, few)
    for num_texts in texts:
        source = made_features(num_texts, dim, shift=_APART, seed=1)
        target = made_features(num_texts, dim, shift=0, seed=2)
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        found: dict[str, float] = {}
        for _ in range(rounds):
            for name, way in ways.items():
                begin = time.process_time()
                found[name] = way(source, target)
                seconds[name].append(time.process_time() - begin)
        medians = [statistics.median(taken) for taken in seconds.values()]
        times = " | ".join(f"{median:.3f}" for median in medians)
        nmis = ", ".join(f"{value:.4f}" for value in found.values())
        click.echo(f"| {num_texts:,} | {times} | {medians[0] / medians[1]:.2f} | {nmis} |")


if __name__ == "__main__":
    main()
