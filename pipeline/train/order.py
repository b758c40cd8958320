"""In which order samples are used: a pure function of the seed and of how many samples each shard holds.

So any process can find any position at once: a resumed run skips without reading, and neither the number of
workers nor of processes changes a batch.
"""

from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any

import numpy as np

ORDER_VERSION = 3
"""1: what does not fill a batch at the end of an epoch is left out. 2: batches run on into the next epoch.
3: where several folders have captions of a clip, all of them count; before, those of the first folder."""

# A sample: its shard, and its number among the shard's.
SamplePlace = tuple[int, int]

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
        # Shards of 3, 2 and 4 samples in groups of two, seed 42: epoch 0 has shards 2 and 1 at positions 0 to
        # 5, then shard 0. The first group's shuffle has its sample 4 at position 0: shard 2 holds 0 to 3 of
        # the group, so that is sample 0 of shard 1.
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

    def __reduce__(self) -> tuple[Any, ...]:
        counts = self._counts.tolist()
        return partial(SampleOrder, counts, seed=self._seed, group_shards=self._group_shards), ()


class BatchOrder:
    """Which samples make up the `rows` rows of each batch, and what stands in for one that cannot be used.

    Rows are counted through all batches, samples through all epochs, and row i is sample i. So every sample
    is used once an epoch, and a batch may begin in one epoch and end in the next. A sample that would then be
    in it twice changes places with one that the next epoch has after that batch. `version`: ORDER_VERSION.
    """

    def __init__(self, order: SampleOrder, *, rows: int, version: int = ORDER_VERSION) -> None:
        self._order = order
        self.rows = rows
        self._version = version
        self.num_samples = order.num_samples
        # Those that an epoch uses.
        self.samples_per_epoch = self.num_samples // rows * rows if version == 1 else self.num_samples
        # Whether an epoch's first and last batch are so far apart that its moves can be found alone.
        self._is_long = self.num_samples >= 2 * rows
        self._moves_of_epoch: dict[int, dict[int, int]] = {}
        self._batch_end = lru_cache(maxsize=2)(self._find_batch_end)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch, the last of which may belong to the next too."""
        return self.num_steps(1)

    def num_steps(self, epochs: int) -> int:
        """Batches until each sample was used `epochs` times; the last one is filled from the epoch after."""
        return -(-epochs * self.samples_per_epoch // self.rows)

    def epochs_after(self, step: int) -> float:
        """How many epochs are done after `step` batches."""
        return step * self.rows / self.samples_per_epoch

    def ends_epoch(self, step: int) -> bool:
        """Whether the last sample of an epoch is in the `step`-th batch, counted from 1."""
        done = step * self.rows
        return done // self.samples_per_epoch > (done - self.rows) // self.samples_per_epoch

    def at(self, step: int, row: int) -> tuple[int, SamplePlace]:
        """The epoch and the sample of a row of the batch of `step`, counted from 0."""
        epoch, position = divmod(step * self.rows + row, self.samples_per_epoch)
        return epoch, self._locate(epoch, position)

    def num_substitutes(self, step: int) -> int:
        """How many of the samples outside a batch each of its rows has for itself."""
        return (self.num_samples - self._batch_end(step)[2]) // self.rows

    def substitutes(self, step: int, row: int, *, most: int) -> Iterator[tuple[int, SamplePlace]]:
        """What stands in for a row, best first, `most` at most; begins about half an epoch further on.

        No two rows of a batch have one in common, and none is in the batch: so each process can replace what
        it finds unusable without asking the others. Of 9 samples in the order 1 3 6 7 8 0 4 2 5 the first
        batch of 3 is 1 3 6, and they are 4 7 for row 0, 2 8 for row 1 and 5 0 for row 2.
        """
        epoch, position, _, barred = self._batch_end(step)
        count = self.num_substitutes(step)
        for attempt in range(min(count, most)):
            turn = (count // 2 + attempt) % count
            sample = self._locate(epoch, (position + row + turn * self.rows) % self.num_samples)
            if sample not in barred:
                yield epoch, sample

    def outside(self, step: int) -> Iterator[tuple[int, SamplePlace]]:
        """All samples that are not in a batch, those that come next first."""
        epoch, position, num_rows, barred = self._batch_end(step)
        for offset in range(self.num_samples - num_rows):
            sample = self._locate(epoch, (position + offset) % self.num_samples)
            if sample not in barred:
                yield epoch, sample

    def _find_batch_end(self, step: int) -> tuple[int, int, int, frozenset[SamplePlace]]:
        """The epoch in which a batch ends, the position after it, its rows of that epoch, its others."""
        epoch, last = divmod((step + 1) * self.rows - 1, self.samples_per_epoch)
        num_rows = min(last + 1, self.rows)
        before = frozenset(self.at(step, row)[1] for row in range(self.rows - num_rows))
        return epoch, last + 1, num_rows, before

    def _locate(self, epoch: int, position: int) -> SamplePlace:
        return self._order.locate(epoch, self._moves(epoch).get(position, position))

    def _moves(self, epoch: int) -> dict[int, int]:
        """Which positions of an epoch have changed places."""
        if epoch not in self._moves_of_epoch:
            first = epoch
            if not self._is_long:  # each epoch's depend on the one before
                first = max((known + 1 for known in self._moves_of_epoch if known < epoch), default=0)
            for number in range(first, epoch + 1):
                self._moves_of_epoch[number] = self._find_moves(number)
                self._moves_of_epoch.pop(number - 3, None)
        return self._moves_of_epoch[epoch]

    def _find_moves(self, epoch: int) -> dict[int, int]:
        size = self.num_samples
        tail = epoch * size % self.rows  # rows that the first batch of this epoch has of the one before
        if self._version == 1 or tail == 0:
            return {}
        # 5 samples in twos, seed 3: epoch 0 is 1 4 0 2 3 and epoch 1 is 3 0 2 4 1, so the third batch would
        # be 3 3. Positions 0 and 1 change places: it is 3 0, and the fourth 3 2.
        head = self.rows - tail
        # Not into the rows that this epoch's last batch shares with the next, where there is room elsewhere.
        stop = size - (epoch + 1) * size % self.rows if self._is_long else size
        locate = self._order.locate if self._is_long else self._locate
        taken = {locate(epoch - 1, position) for position in range(size - tail, size)}
        free = (spot for spot in range(head, stop) if self._order.locate(epoch, spot) not in taken)
        moves = {}
        for position in range(head):
            if self._order.locate(epoch, position) in taken:
                spot = next(free)
                moves[position], moves[spot] = spot, position
        return moves

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(BatchOrder, self._order, rows=self.rows, version=self._version), ()


def split_by_weight(total: int, weights: list[float]) -> list[int]:
    """Divide `total` rows in proportion to the weights, by largest remainder: 10 by [2, 1] is [7, 3]."""
    exact = [total * weight / sum(weights) for weight in weights]
    parts = [int(value) for value in exact]
    by_remainder = sorted(range(len(parts)), key=lambda i: parts[i] - exact[i])
    for index in by_remainder[: total - sum(parts)]:
        parts[index] += 1
    return parts


def share(total: int, part: int, num_parts: int) -> tuple[int, int]:
    """Part `part` of `total` rows as [start, stop): share(10, 0, 3) is (0, 4), then (4, 7), (7, 10)."""
    size, extra = divmod(total, num_parts)
    start = part * size + min(part, extra)
    return start, start + size + (part < extra)
