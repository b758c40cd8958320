"""faiss on the GPU: K-means of the domain gap and the search among clips, beside the processor."""

import numpy as np

from clipvip.analysis.faiss_tools import LEAST_PRODUCTS_ON_GPU, has_gpu, largest_products, require_faiss
from gpu_sections.rows import Check

_DIM = 512


def neighbours(check: Check) -> None:
    """A draw of the domain gap at three sizes, and queries among the 1,000 clips of a shard."""
    from kmeans_vs_sklearn import made_features

    from clipvip.analysis.domain_gap import cluster_agreement

    try:
        faiss_has_gpu = has_gpu(require_faiss("this section"))
    except ImportError as error:
        check.row("(the section)", left_out=str(error))
        return
    ways = {"processor": False} | ({"GPU": True} if check.on_gpu and faiss_has_gpu else {})
    if check.on_gpu and not faiss_has_gpu:
        check.row("faiss", left_out="this build of faiss sees no GPU; install faiss-gpu")
    for num_texts in (1_000,) if check.tiny else (1_000, 10_000, 50_000):
        source = made_features(num_texts, _DIM, shift=0.5, seed=1)
        target = made_features(num_texts, _DIM, shift=0, seed=2)
        for way, use_gpu in ways.items():
            name = f"K-means, {num_texts:,} texts a side, {way}"
            if not check.has_time_for(name, 10):
                continue
            found: list[float] = []

            def draw(use_gpu: bool = use_gpu, found: list[float] = found) -> None:
                found.append(cluster_agreement(source, target, use_gpu=use_gpu))  # noqa: B023

            seconds = check.seconds(draw, times=1 if check.tiny else 3, warm_up=1)
            check.row(name, ms=1000 * seconds, nmi=found[-1])
    vectors = made_features(1_000, _DIM, shift=0, seed=3)
    enough = -(-LEAST_PRODUCTS_ON_GPU // vectors.size)
    for num_queries in (8,) if check.tiny else (enough, 10 * enough):
        queries = made_features(num_queries, _DIM, shift=0, seed=4)
        rows: list[np.ndarray] = []
        for way, use_gpu in ways.items():
            seconds = check.seconds(lambda: largest_products(queries, vectors, 10, use_gpu=use_gpu))  # noqa: B023
            rows.append(largest_products(queries, vectors, 10, use_gpu=use_gpu)[1])
            same = 100 * float((rows[0] == rows[-1]).mean())
            name = f"search, {num_queries:,} queries among 1,000 clips, {way}"
            check.row(name, ms=1000 * seconds, same_clips_percent=same)
