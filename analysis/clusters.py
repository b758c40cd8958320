"""K-means for two clusters: the best of some random starts, by scikit-learn, or on a GPU with faiss."""

import warnings
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from clipvip.analysis.faiss_tools import gpu_resources, has_gpu, require_faiss

if TYPE_CHECKING:
    import torch

    Assign = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

_CLUSTERS = 2
_ITERATIONS = 50
_STARTS = 10
# Numbers (rows x dimensions) from which a GPU gains: 10,000 texts a side of 512. Fewer take a core of a
# processor half a second at most, which a GPU's start and its 100 to 200 short passes take, too.
LEAST_NUMBERS_ON_GPU = 10_000_000


def two_clusters(features: np.ndarray, seed: int, *, use_gpu: bool = True) -> np.ndarray:
    """The cluster, 0 or 1, of each row of `features`, (n, dim) float32 in rows, which may be changed.

    Equal arguments give equal clusters on the same device.

    Raises:
        ImportError: faiss is not installed.
    """
    faiss = require_faiss("the domain gap")
    if use_gpu and features.size >= LEAST_NUMBERS_ON_GPU and has_gpu(faiss):
        import torch

        if torch.cuda.is_available():
            return _on_gpu(features, seed)
    return _on_processor(features, seed)


def _on_processor(features: np.ndarray, seed: int) -> np.ndarray:
    # scikit-learn takes half a second to import.
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    kmeans = KMeans(
        _CLUSTERS,
        init="random",
        n_init=_STARTS,
        max_iter=_ITERATIONS,
        random_state=seed % 2**32,
        copy_x=False,
    )
    # Sums over threads come in any order; one thread gives the same clusters every time.
    with _threads().limit(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # texts that are all the same are one cluster
        labels: np.ndarray = kmeans.fit(features).labels_
    return labels


@cache
def _threads() -> Any:
    """Of the libraries that scikit-learn computes with; finding them takes milliseconds."""
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()


def _on_gpu(features: np.ndarray, seed: int) -> np.ndarray:
    """K-means with the rows kept on the GPU.

    `faiss.Kmeans` on a GPU copies them there at each iteration and sums them on the host, which with two
    clusters takes as long as the processor alone.
    """
    import faiss
    import faiss.contrib.torch_utils  # lets faiss' functions take tensors
    import torch

    def assign(rows: "torch.Tensor", centroids: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
        distances, nearest = faiss.knn_gpu(gpu_resources(), rows, centroids, 1)
        return distances[:, 0], nearest[:, 0]

    return best_start(torch.from_numpy(features).to("cuda"), seed, assign)


def best_start(rows: "torch.Tensor", seed: int, assign: "Assign") -> np.ndarray:
    """The clusters of the start whose rows are nearest to their centroids, in sum of squares.

    Args:
        rows: float32 (n, dim), on any device.
        assign: of rows and centroids (2, dim), the squared distance to the nearest and its number, both (n,).
    """
    random = np.random.default_rng(seed)
    best: tuple[float, torch.Tensor] | None = None
    for _ in range(_STARTS):
        first = random.choice(len(rows), _CLUSTERS, replace=False)
        distance, labels = _from(rows[first.tolist()], rows, assign)
        if best is None or distance < best[0]:
            best = distance, labels
    assert best is not None
    return best[1].cpu().numpy()


def _from(centroids: "torch.Tensor", rows: "torch.Tensor", assign: "Assign") -> "tuple[float, torch.Tensor]":
    import torch

    distances, labels = assign(rows, centroids)
    for _ in range(_ITERATIONS):
        members = torch.nn.functional.one_hot(labels, _CLUSTERS).to(rows.dtype)
        counts = members.sum(dim=0)[:, None]
        # As a product, whose sums come in one order, unlike those of index_add_ on a GPU.
        means = (members.T @ rows) / counts.clamp(min=1)
        centroids = torch.where(counts > 0, means, centroids)
        before = labels
        distances, labels = assign(rows, centroids)
        if torch.equal(labels, before):
            break
    return float(distances.sum()), labels
