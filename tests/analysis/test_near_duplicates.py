"""Near-duplicates among vectors, against all pairs by numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from clipvip.analysis.near_duplicates import Blocks, find_near_duplicates


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def in_blocks(vectors: np.ndarray, sizes: list[int]) -> Blocks:
    parts = np.split(vectors, np.cumsum(sizes)[:-1])
    return [lambda part=part: part for part in parts]  # type: ignore[misc]


def by_all_pairs(vectors: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """The cosine of the nearest other of each, and the first of its group."""
    products = vectors @ vectors.T
    _, labels = connected_components(products >= np.float32(least), directed=False)
    _, firsts = np.unique(labels, return_index=True)
    np.fill_diagonal(products, -1)
    return products.max(axis=1), firsts[labels]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.floats(0.5, 0.99))
def test_few_vectors_are_compared_exactly(seed: int, num: int, least: float) -> None:
    rng = np.random.default_rng(seed)
    vectors = unit(rng.standard_normal((num, 4)))
    wanted, groups = by_all_pairs(vectors, least)
    found = find_near_duplicates(in_blocks(vectors, [num // 2, 0, num - num // 2]), num, least=least)
    np.testing.assert_allclose(found.similarity, wanted, atol=1e-6)
    products = (vectors * vectors[found.nearest]).sum(axis=1)
    np.testing.assert_allclose(products, found.similarity, atol=1e-6)
    assert (found.nearest != np.arange(num)).all()
    assert found.groups.tolist() == groups.tolist()


def test_cells_find_the_planted_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((20, 32))
    vectors = unit(centres[rng.integers(20, size=3000)] + rng.standard_normal((3000, 32)))
    copies = rng.permutation(3000)[:400].reshape(200, 2)
    vectors[copies[:, 1]] = unit(vectors[copies[:, 0]] + 0.01 * rng.standard_normal((200, 32)))
    wanted, groups = by_all_pairs(vectors, 0.97)
    found = find_near_duplicates(
        in_blocks(vectors, [1000, 700, 1300]), 3000, least=0.97, at_once=500, cell=200
    )
    assert (groups[copies[:, 0]] == groups[copies[:, 1]]).all()
    assert found.groups.tolist() == groups.tolist()
    assert (found.similarity <= wanted + 1e-6).all()
    is_alike = wanted >= 0.97
    np.testing.assert_allclose(found.similarity[is_alike], wanted[is_alike], atol=1e-6)
    again = find_near_duplicates(
        in_blocks(vectors, [1000, 700, 1300]), 3000, least=0.97, at_once=500, cell=200
    )
    assert found.similarity.tobytes() == again.similarity.tobytes()


def test_many_equal_vectors_are_one_group() -> None:
    vectors = np.tile(unit(np.ones((1, 8))), (3000, 1))
    found = find_near_duplicates([lambda: vectors], 3000, least=0.99)
    assert (found.groups == 0).all() and (found.nearest != np.arange(3000)).all()
    np.testing.assert_allclose(found.similarity, 1, atol=1e-6)


@pytest.mark.parametrize("num", [0, 1])
def test_nothing_to_compare(num: int) -> None:
    found = find_near_duplicates([lambda: np.ones((num, 4), np.float32)], num, least=0.9)
    assert np.isnan(found.similarity).all() and (found.nearest == -1).all()
    assert found.groups.tolist() == list(range(num))
