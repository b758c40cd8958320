"""In which order samples are used: a pure function of the seed and of how many samples each shard holds.

Because nothing but arithmetic decides the order, any process can find any position at once: a resumed run
skips without reading, and neither the number of workers nor of processes changes a batch.
"""

from functools import lru_cache

import numpy as np

_SHARDS, _SAMPLES = 0, 1  # which of the random streams


class SampleOrder:
    """The shuffled order of a data set, epoch by epoch.

    Each epoch deals the shards into groups of `group_shards` at random and shuffles the samples within a
    group, so that a reader has only so many shards in use at a time.
    """

    def __init__(self, samples_per_shard: list[int], *, seed: int, group_shards: int) -> None:
        self._counts = np.asarray(samples_per_shard, np.int64)
        self._seed = seed
        self._group_shards = group_shards
        self._shards_of_epoch = lru_cache(maxsize=2)(self._shuffle_shards)
        self._samples_of_group = lru_cache(maxsize=4)(self._shuffle_group)

    @property
    def num_samples(self) -> int:
        """Samples in an epoch."""
        return int(self._counts.sum())

    def locate(self, epoch: int, position: int) -> tuple[int, int]:
        """The sample at `position` (0 <= position < num_samples) of an epoch, as (shard, index within it)."""
        shards, group_ends = self._shards_of_epoch(epoch)
        group = int(np.searchsorted(group_ends, position, side="right"))
        start = int(group_ends[group - 1]) if group else 0
        sample = int(self._samples_of_group(epoch, group)[position - start])
        members = shards[group * self._group_shards : (group + 1) * self._group_shards]
        ends = np.cumsum(self._counts[members])
        member = int(np.searchsorted(ends, sample, side="right"))
        return int(members[member]), sample - (int(ends[member - 1]) if member else 0)

    def _shuffle_shards(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The shards in the order of `epoch`, and the positions at which their groups end."""
        shards = np.random.default_rng([self._seed, _SHARDS, epoch]).permutation(len(self._counts))
        starts = np.arange(0, len(shards), self._group_shards)
        return shards, np.cumsum(np.add.reduceat(self._counts[shards], starts))

    def _shuffle_group(self, epoch: int, group: int) -> np.ndarray:
        _, group_ends = self._shards_of_epoch(epoch)
        size = int(group_ends[group] - (group_ends[group - 1] if group else 0))
        return np.random.default_rng([self._seed, _SAMPLES, epoch, group]).permutation(size)

    def __getstate__(self) -> tuple[list[int], int, int]:
        return self._counts.tolist(), self._seed, self._group_shards

    def __setstate__(self, state: tuple[list[int], int, int]) -> None:
        SampleOrder.__init__(self, state[0], seed=state[1], group_shards=state[2])


def split_by_weight(total: int, weights: list[float]) -> list[int]:
    """Divide `total` rows in proportion to the weights, by largest remainder: 10 by [2, 1] is [7, 3]."""
    exact = [total * weight / sum(weights) for weight in weights]
    parts = [int(value) for value in exact]
    by_remainder = sorted(range(len(parts)), key=lambda i: (parts[i] - exact[i], i))
    for index in by_remainder[: total - sum(parts)]:
        parts[index] += 1
    return parts


def share(total: int, part: int, num_parts: int) -> tuple[int, int]:
    """Part `part` of `total` rows as [start, stop): share(10, 0, 3) is (0, 4), then (4, 7), (7, 10)."""
    size, extra = divmod(total, num_parts)
    start = part * size + min(part, extra)
    return start, start + size + (part < extra)
