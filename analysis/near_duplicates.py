"""Near-duplicates among unit vectors: the nearest other of each, and which are alike.

Few vectors are all compared with each other. Many are dealt into cells by K-means first, each into the two
whose centroids are nearest, and compared inside cells: near-duplicates that no cell has both of are missed.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from clipvip.analysis.faiss_tools import largest_products, require_faiss

# Vectors that are compared with each other at once: 256 MB of 512 numbers each.
AT_ONCE = 1 << 17
_CELL = 1 << 14
_CELLS_EACH = 2
_ROWS = 1024
_ROWS_OF_ALIKE = 128  # of which each may be like all others
_TRAINED_BY_EACH = 64
_ITERATIONS = 10

Blocks = Sequence[Callable[[], np.ndarray]]
"""Vectors in parts: each call gives float32 (rows, dim), of unit length, again."""


@dataclass(frozen=True)
class NearDuplicates:
    """Of each vector: `similarity` float32, the cosine of the nearest other, whose number is `nearest`.

    `groups` int64 is the first of those that are alike, itself where none is: a is like b from a cosine
    that was asked for on, and what is like the same is alike. Where nothing was compared with a vector,
    `similarity` is NaN and `nearest` -1.
    """

    similarity: np.ndarray
    nearest: np.ndarray
    groups: np.ndarray


def find_near_duplicates(
    blocks: Blocks, num: int, *, least: float, use_gpu: bool = True, at_once: int = AT_ONCE, cell: int = _CELL
) -> NearDuplicates:
    """Find the nearest other of each of `num` vectors, and those that are alike from the cosine `least` on.

    Up to `at_once` vectors are in memory together and compared exactly. Of more, memory has 40 bytes each,
    and those of one cell, about `cell`; a temporary file has each twice, 4 KB for 512 numbers. A cell of more
    than `at_once` is compared in parts of so many: what is alike in different parts is missed.

    Raises:
        ImportError: faiss is not installed.
    """
    require_faiss("finding near-duplicates")
    found = _Comparison(num, least, use_gpu)
    if num <= at_once:
        parts = [block() for block in blocks]
        if num > 1:
            found.compare(np.concatenate(parts), np.arange(num))
        return found.result()
    with tempfile.TemporaryDirectory(prefix="clipvip-cells-") as folder:
        for vectors, numbers in _cells(blocks, num, Path(folder), -(-num // cell), use_gpu):
            for start in range(0, len(vectors), at_once):
                found.compare(vectors[start : start + at_once], numbers[start : start + at_once])
    return found.result()


class _Comparison:
    def __init__(self, num: int, least: float, use_gpu: bool) -> None:
        self._least, self._use_gpu = np.float32(least), use_gpu
        self._similarity = np.full(num, -np.inf, np.float32)
        self._nearest = np.full(num, -1, np.int64)
        self._first = np.arange(num)  # a forest: each points to an earlier one that it is like, or itself

    def compare(self, vectors: np.ndarray, numbers: np.ndarray) -> None:
        """Compare vectors with each other; `numbers` says which they are, in rising order."""
        if len(vectors) < 2:
            return
        vectors = np.ascontiguousarray(vectors, np.float32)
        for start in range(0, len(vectors), _ROWS):
            rows = slice(start, min(start + _ROWS, len(vectors)))
            similarity, columns = largest_products(vectors[rows], vectors, 2, use_gpu=self._use_gpu)
            # The nearest is the vector itself, unless others are equal to it.
            is_self = columns == np.arange(rows.start, rows.stop)[:, None]
            other = np.where(is_self[:, 0], 1, 0)
            each = np.arange(len(columns))
            self._note_nearest(numbers[rows], similarity[each, other], numbers[columns[each, other]])
            alike = np.flatnonzero(similarity[each, other] >= self._least) + rows.start
            for first in range(0, len(alike), _ROWS_OF_ALIKE):
                self._join_alike(vectors, numbers, alike[first : first + _ROWS_OF_ALIKE])

    def _note_nearest(self, numbers: np.ndarray, similarity: np.ndarray, nearest: np.ndarray) -> None:
        is_nearer = similarity > self._similarity[numbers]
        self._similarity[numbers[is_nearer]] = similarity[is_nearer]
        self._nearest[numbers[is_nearer]] = nearest[is_nearer]

    def _join_alike(self, vectors: np.ndarray, numbers: np.ndarray, rows: np.ndarray) -> None:
        """Put each of some rows into one group with all that are like it."""
        places, columns = np.nonzero(vectors[rows] @ vectors.T >= self._least)
        ends = np.stack([self._roots(numbers[rows[places]]), self._roots(numbers[columns])], axis=1)
        ends = np.unique(ends[ends[:, 0] != ends[:, 1]], axis=0)
        if not len(ends):
            return
        roots, edges = np.unique(ends, return_inverse=True)
        edges = edges.reshape(ends.shape)
        graph = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(len(roots), len(roots)))
        _, labels = connected_components(graph, directed=False)
        # `roots` rises, so the first of a component is its earliest.
        _, firsts = np.unique(labels, return_index=True)
        self._first[roots] = roots[firsts[labels]]

    def _roots(self, numbers: np.ndarray) -> np.ndarray:
        found = self._first[numbers]
        while (further := self._first[found]).tobytes() != found.tobytes():
            found = further
        self._first[numbers] = found
        return found

    def result(self) -> NearDuplicates:
        similarity = np.where(self._nearest < 0, np.float32(np.nan), np.minimum(self._similarity, 1))
        return NearDuplicates(similarity, self._nearest, self._roots(np.arange(len(self._first))))


def _cells(
    blocks: Blocks, num: int, folder: Path, num_cells: int, use_gpu: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The vectors of one cell after another, and which they are, in rising order."""
    centroids = _centroids(blocks, num, num_cells)
    each = min(_CELLS_EACH, num_cells)
    cells = np.empty((num, each), np.int32)
    done = 0
    for block in blocks:
        vectors = block()
        if len(vectors):
            _, nearest = largest_products(vectors, centroids, each, use_gpu=use_gpu)
            cells[done : done + len(vectors)] = nearest
            done += len(vectors)
    order = np.argsort(cells.reshape(-1), kind="stable")
    starts = np.searchsorted(cells.reshape(-1)[order], np.arange(num_cells + 1))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    spilled: Any = np.memmap(folder / "cells", np.float32, "w+", shape=(len(order), centroids.shape[1]))
    done = 0
    for block in blocks:
        vectors = block()
        for copy in range(each):
            spilled[place[done * each + copy : (done + len(vectors)) * each : each]] = vectors
        done += len(vectors)
    for start, stop in pairwise(starts):
        yield np.asarray(spilled[start:stop]), order[start:stop] // each


def _centroids(blocks: Blocks, num: int, num_cells: int) -> np.ndarray:
    """Of K-means over evenly taken vectors, float32 (cells, dim)."""
    faiss = require_faiss("finding near-duplicates")
    step = max(1, num // (num_cells * _TRAINED_BY_EACH))
    taken, done = [], 0
    for block in blocks:
        vectors = block()
        if len(vectors):
            taken.append(vectors[-done % step :: step])
        done += len(vectors)
    sample = np.concatenate(taken)
    kmeans = faiss.Kmeans(
        sample.shape[1], num_cells, niter=_ITERATIONS, spherical=True, seed=1, min_points_per_centroid=1
    )
    kmeans.train(sample)
    centroids: np.ndarray = kmeans.centroids
    return centroids
