"""Two clusters on a processor and on a GPU: the same clusters, whichever finds them."""

import sys
from types import SimpleNamespace

import faiss
import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from clipvip.analysis import clusters, faiss_tools
from clipvip.analysis.clusters import best_start, two_clusters
from clipvip.analysis.domain_gap import cluster_agreement
from clipvip.analysis.faiss_tools import largest_products


def rows_of(num_rows: int, *, shift: float, dim: int = 24, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(num_rows, dim)).astype(np.float32)
    rows[: num_rows // 2, 0] += shift
    return rows


def assign(rows: torch.Tensor, centroids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What faiss does on a GPU, by faiss on a processor."""
    distances, nearest = faiss.knn(rows.numpy(), centroids.numpy(), 1)
    return torch.from_numpy(distances[:, 0]), torch.from_numpy(nearest[:, 0])


def sum_of_squares(rows: np.ndarray, labels: np.ndarray) -> float:
    return sum(float(((part := rows[labels == n]) - part.mean(0)).__pow__(2).sum()) for n in set(labels))


@pytest.mark.parametrize("shift", [3.0, 4.0, 12.0])
def test_clusters_are_those_of_scikit_learn(shift: float) -> None:
    """Of its best of many other starts."""
    rows = rows_of(800, shift=shift)
    oracle = KMeans(2, n_init=40, tol=0, random_state=1).fit(rows).labels_
    for found in (two_clusters(rows.copy(), 3), best_start(torch.from_numpy(rows), 3, assign)):
        assert adjusted_rand_score(oracle, found) > 0.97
        assert sum_of_squares(rows, found) == pytest.approx(sum_of_squares(rows, oracle), rel=1e-4)


@pytest.mark.parametrize("rows", [np.ones((20, 4), np.float32), np.eye(2, 4, dtype=np.float32)])
def test_few_different_rows_are_clustered_as_far_as_they_differ(rows: np.ndarray) -> None:
    for found in (two_clusters(rows.copy(), 0), best_start(torch.from_numpy(rows), 0, assign)):
        assert found.shape == (len(rows),)
        assert len(set(found.tolist())) == len(np.unique(rows, axis=0))


def test_a_gpu_that_faiss_does_not_use_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    on_processor = SimpleNamespace()  # a build of faiss without GPUs
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    faiss_tools.warn_of_unused_gpu.cache_clear()
    assert not faiss_tools.has_gpu(on_processor) and not recwarn.list
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    faiss_tools.warn_of_unused_gpu.cache_clear()
    assert not faiss_tools.has_gpu(on_processor) and not faiss_tools.has_gpu(on_processor)
    (warning,) = recwarn.list
    assert "install faiss-gpu instead of faiss-cpu" in str(warning.message)
    faiss_tools.warn_of_unused_gpu.cache_clear()


def test_only_large_work_goes_to_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(100, shift=3)
    called: list[int] = []
    monkeypatch.setattr(clusters, "has_gpu", lambda faiss: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(clusters, "_on_gpu", lambda _, seed: called.append(seed) or np.zeros(100, int))
    two_clusters(rows.copy(), 1)
    monkeypatch.setattr(clusters, "LEAST_NUMBERS_ON_GPU", rows.size)
    two_clusters(rows.copy(), 2, use_gpu=False)
    two_clusters(rows.copy(), 3)
    cluster_agreement(rows[:50], rows[50:], seed=4)
    cluster_agreement(rows[:50], rows[50:], seed=5, use_gpu=False)
    assert called == [3, 4]


def test_only_many_queries_go_to_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the call for GPUs, which a build without them lacks: here it is done by a processor."""
    queries, vectors = rows_of(3, shift=0), rows_of(40, shift=0, seed=2)
    plain = largest_products(queries, vectors, 5)
    called: list[int] = []

    def knn_gpu(resources: object, queries: np.ndarray, vectors: np.ndarray, most: int, *, metric: int):  # type: ignore[no-untyped-def]
        called.append(most)
        return faiss.knn(queries, vectors, most, metric=metric)

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "StandardGpuResources", SimpleNamespace, raising=False)
    monkeypatch.setattr(faiss, "knn_gpu", knn_gpu)
    faiss_tools.gpu_resources.cache_clear()
    largest_products(queries, vectors, 4)
    monkeypatch.setattr(faiss_tools, "LEAST_PRODUCTS_ON_GPU", 3 * vectors.size)
    largest_products(queries, vectors, 3, use_gpu=False)
    found = largest_products(queries, vectors, 5)
    faiss_tools.gpu_resources.cache_clear()
    assert called == [5]
    assert all(np.array_equal(a, b) for a, b in zip(found, plain, strict=True))


@pytest.mark.gpu
@pytest.mark.needs("faiss_gpu")
def test_a_gpu_finds_the_clusters_of_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "LEAST_NUMBERS_ON_GPU", 0)
    rows = rows_of(4000, shift=4, dim=512)
    found = two_clusters(rows.copy(), 7)
    assert np.array_equal(found, two_clusters(rows.copy(), 7))
    expected = two_clusters(rows.copy(), 7, use_gpu=False)
    assert adjusted_rand_score(expected, found) > 0.99


@pytest.mark.gpu
@pytest.mark.needs("faiss_gpu")
def test_a_gpu_finds_the_neighbours_of_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss_tools, "LEAST_PRODUCTS_ON_GPU", 0)
    queries, vectors = rows_of(50, shift=0, dim=512), rows_of(3000, shift=0, dim=512, seed=1)
    products, rows = largest_products(queries, vectors, 10)
    expected, expected_rows = largest_products(queries, vectors, 10, use_gpu=False)
    np.testing.assert_allclose(products, expected, rtol=1e-4)
    assert (rows == expected_rows).mean() > 0.99


def test_without_faiss_the_message_says_who_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"search needs faiss-cpu, which is not installed; run pip"):
        largest_products(rows_of(2, shift=0), rows_of(2, shift=0), 1)
