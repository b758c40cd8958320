"""faiss: whether it is installed, whether it has a GPU, and exact neighbours on whichever is quicker."""

import sys
import warnings
from functools import cache
from typing import Any

import numpy as np

from clipvip.extras import require_package

# Products of numbers (queries x vectors x dimensions) from which a GPU gains. One core of a processor does so
# many in about 3 ms; copying 1,000 vectors to the GPU and waiting for it takes a few tenths of that.
LEAST_PRODUCTS_ON_GPU = 50_000_000
_MOST_NEIGHBOURS_ON_GPU = 2048  # faiss' limit


def require_faiss(what: str) -> Any:
    """The module faiss; where it is missing a MissingPackage that says that `what` needs it."""
    require_package("faiss", what)
    import faiss

    return faiss


def has_gpu(faiss: Any) -> bool:
    """Whether this build of faiss computes on GPUs, and there is one.

    Warns once where torch finds a GPU and faiss does not: then faiss computes on the processor.
    """
    found = hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0
    if not found:
        warn_of_unused_gpu()
    return bool(found)


@cache
def warn_of_unused_gpu() -> None:
    """Warn, the first time that it is called, where torch finds a GPU."""
    torch = sys.modules.get("torch")  # without it nothing here has asked for a GPU
    if torch is not None and torch.cuda.is_available():
        warnings.warn(
            "faiss finds no GPU, so it computes on the processor; for a GPU install faiss-gpu instead of "
            "faiss-cpu (the extra 'gpu' instead of 'cpu')",
            stacklevel=3,
        )


@cache
def gpu_resources() -> Any:
    """faiss' memory and streams on a GPU: made once, since they take a while and a gigabyte and a half."""
    import faiss

    return faiss.StandardGpuResources()


def largest_products(
    queries: np.ndarray, vectors: np.ndarray, most: int, *, use_gpu: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """The largest inner products of each query with `vectors`, and which vectors: both (queries, most).

    A GPU computes them where faiss has one, `use_gpu` lets it, and the work is large enough to gain; its sums
    may differ from a processor's in the last bits.

    Args:
        queries, vectors: float32 (queries, dim) and (vectors, dim), in rows.

    Raises:
        ImportError: faiss is not installed.
    """
    faiss = require_faiss("search")
    is_large = len(queries) * vectors.size >= LEAST_PRODUCTS_ON_GPU and most <= _MOST_NEIGHBOURS_ON_GPU
    metric = faiss.METRIC_INNER_PRODUCT
    if use_gpu and is_large and has_gpu(faiss):
        found, rows = faiss.knn_gpu(gpu_resources(), queries, vectors, most, metric=metric)
    else:
        found, rows = faiss.knn(queries, vectors, most, metric=metric)
    return found, rows
