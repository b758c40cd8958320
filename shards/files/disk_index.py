"""A mapping from names to texts that does not fit in memory: lines in a file, found by the hash of their key.

Memory is bounded by `AT_ONCE` keys (about 0.3 GB) and 8 bytes for every hundred keys; the disk holds 32
bytes a key while it is made, and 16 then.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Self

import numpy as np

from clipvip.shards.files.hashes import AT_ONCE, key_hash, parts_by_hash, rows_at
from clipvip.shards.files.names import same_name
from clipvip.shards.files.scratch import ScratchFile

# A row of a hash and the place of its key's line, both uint64.
_ROW_BYTES = 16
_KEYS_PER_BUCKET = 64
_MOST_BUCKET_BITS = 20


class RepeatedKeyError(Exception):
    """A key came again, with another value; `at` is the place of its line."""

    def __init__(self, key: str, at: int) -> None:
        super().__init__(key)
        self.key, self.at = key, at


class DiskIndex(Mapping[str, str]):
    """Key -> value. Of lines with one key the first counts; two spellings of a name (`same_name`) are one."""

    def __init__(
        self,
        entries: Iterable[tuple[str, int]],
        read: Callable[[int], tuple[str, str]],
        *,
        repeats_must_agree: bool = False,
        at_once: int = AT_ONCE,
    ) -> None:
        """`entries` are keys and the places of their lines, ascending; `read` gives key and value of a place.

        Raises RepeatedKeyError where two lines give a key two values, and `repeats_must_agree`.
        """
        self._read = read
        self._must_agree = repeats_must_agree
        hashed = chain.from_iterable((key_hash(same_name(key)), at) for key, at in entries)
        unsorted, self._sorted = ScratchFile(), ScratchFile()
        while len(block := np.fromiter(islice(hashed, 2 * at_once), np.uint64)):
            unsorted.append(block.tobytes())
        num_keys = len(unsorted) // _ROW_BYTES
        self._bits = min(_MOST_BUCKET_BITS, (num_keys // _KEYS_PER_BUCKET).bit_length())
        in_bucket = np.zeros(1 << self._bits, np.int64)
        for places, _ in parts_by_hash(unsorted, 2, at_once=at_once):
            kept = self._without_repeats(places)
            self._sorted.append(kept.tobytes())
            # A bucket is a hash's first bits: of 1,000 keys 4, so that the hash 0xA3... is in bucket 10. They
            # are had in two steps: a shift by all 64 bits, where there is one bucket, is undefined.
            buckets = (kept[:, 0] >> np.uint64(63 - self._bits) >> np.uint64(1)).astype(np.int64)
            in_bucket += np.bincount(buckets, minlength=len(in_bucket))
        # Bucket b lies in the sorted places from [b] to [b + 1].
        self._directory = np.concatenate([[0], np.cumsum(in_bucket)])

    @classmethod
    def of_pairs(cls, pairs: Iterable[tuple[str, str]], *, at_once: int = AT_ONCE) -> Self:
        """Keys and values themselves, which are put on the disk too."""
        lines = ScratchFile()

        def entries() -> Iterator[tuple[str, int]]:
            for pair in pairs:
                yield pair[0], lines.append(json.dumps(pair).encode() + b"\n")

        def read(at: int) -> tuple[str, str]:
            key, value = json.loads(lines.line_at(at))
            return key, value

        return cls(entries(), read, at_once=at_once)

    def __getitem__(self, key: str) -> str:
        key = same_name(key)
        number = key_hash(key)
        bucket = number >> (64 - self._bits)
        first, stop = int(self._directory[bucket]), int(self._directory[bucket + 1])
        places = rows_at(self._sorted, first, stop - first, 2)
        for at in places[places[:, 0] == np.uint64(number), 1].tolist():
            its_key, value = self._read(at)
            if same_name(its_key) == key:
                return value
        raise KeyError(key)

    def __len__(self) -> int:
        return int(self._directory[-1])

    def __iter__(self) -> Iterator[str]:
        """The keys in the order of their lines; of the places, 8 bytes a key, all are in memory meanwhile."""
        places = [rows_at(self._sorted, first, AT_ONCE, 2)[:, 1] for first in range(0, len(self), AT_ONCE)]
        for at in np.sort(np.concatenate([np.zeros(0, np.uint64), *places])):
            yield self._read(int(at))[0]

    def _without_repeats(self, places: np.ndarray) -> np.ndarray:
        """In the order of hashes, of each key the first place; of conflicts the first line's is raised."""
        places = places[np.argsort(places[:, 0], kind="stable")]
        same = np.flatnonzero(places[1:, 0] == places[:-1, 0])
        if not len(same):
            return places
        keep = np.ones(len(places), bool)
        first_conflict: RepeatedKeyError | None = None
        known: dict[str, str] = {}
        before = -2
        for number in same.tolist():
            if number != before + 1:  # another hash: two keys with one hash are as good as never
                known = dict([self._read_by_name(int(places[number, 1]))])
            before, at = number, int(places[number + 1, 1])
            key, value = self._read_by_name(at)
            keep[number + 1] = key not in known
            differs = known.setdefault(key, value) != value and self._must_agree
            if differs and (first_conflict is None or at < first_conflict.at):
                first_conflict = RepeatedKeyError(key, at)
        if first_conflict is not None:
            raise first_conflict
        return places[keep]

    def _read_by_name(self, at: int) -> tuple[str, str]:
        key, value = self._read(at)
        return same_name(key), value
