"""A mapping from names to texts that does not fit in memory: lines in a file, found by the hash of their key.

Memory is bounded by `_AT_ONCE` keys (about 0.2 GB) and 8 bytes for every hundred keys; the disk holds 32
bytes a key while it is made, and 16 then.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Self

import numpy as np

from clipvip.shards.files.hashes import key_hash
from clipvip.shards.files.names import same_name
from clipvip.shards.files.scratch import ScratchFile

_AT_ONCE = 1 << 22
_PLACE = np.dtype([("hash", "<u8"), ("at", "<u8")])
_HASH_BYTES = 8
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
        at_once: int = _AT_ONCE,
    ) -> None:
        """`entries` are keys and the places of their lines, ascending; `read` gives key and value of a place.

        Raises RepeatedKeyError where two lines give a key two values, and `repeats_must_agree`.
        """
        self._read = read
        self._must_agree = repeats_must_agree
        unsorted, sizes = ScratchFile(), []
        for block in _blocks(entries, at_once):
            kept = self._without_repeats(block)
            unsorted.append(kept.tobytes())
            sizes.append(len(kept))
        self._sorted, self._directory, self._bits = self._sort(unsorted, sizes, at_once)

    @classmethod
    def of_pairs(cls, pairs: Iterable[tuple[str, str]], *, at_once: int = _AT_ONCE) -> Self:
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
        data = self._sorted.read(first * _PLACE.itemsize, (stop - first) * _PLACE.itemsize)
        wanted = number.to_bytes(_HASH_BYTES, "little")
        found = data.find(wanted)
        while found >= 0:
            if found % _PLACE.itemsize == 0:
                place = data[found + _HASH_BYTES : found + _PLACE.itemsize]
                its_key, value = self._read(int.from_bytes(place, "little"))
                if same_name(its_key) == key:
                    return value
            found = data.find(wanted, found + 1)
        raise KeyError(key)

    def __len__(self) -> int:
        return int(self._directory[-1])

    def __iter__(self) -> Iterator[str]:
        """The keys in the order of their lines; of the places, 8 bytes a key, all are in memory meanwhile."""
        places = [_places(self._sorted, first, _AT_ONCE)["at"] for first in range(0, len(self), _AT_ONCE)]
        for at in np.sort(np.concatenate([np.zeros(0, np.uint64), *places])):
            yield self._read(int(at))[0]

    def _sort(self, unsorted: ScratchFile, sizes: list[int], at_once: int) -> tuple[ScratchFile, Any, int]:
        """All places by hash, how many lie before each bucket, and the bits that number buckets.

        Blocks of such `sizes`, each in order, are dealt out by the hash's first bits to parts that fit in
        memory.
        """
        total = sum(sizes)
        part_bits = max(0, (2 * total // at_once).bit_length()) if len(sizes) > 1 else 0
        edges = np.array([number << (64 - part_bits) for number in range(1, 1 << part_bits)], np.uint64)
        starts = [0, *np.cumsum(sizes).tolist()]
        cuts = [
            np.searchsorted(_places(unsorted, first, size)["hash"], edges).tolist()
            for first, size in zip(starts, sizes, strict=False)
        ]
        bits = min(_MOST_BUCKET_BITS, (total // _KEYS_PER_BUCKET).bit_length())
        in_bucket = np.zeros(1 << bits, np.int64)
        result = ScratchFile()
        for part in range(1 << part_bits):
            pieces = [np.zeros(0, _PLACE)]
            for first, size, cut in zip(starts, sizes, cuts, strict=False):
                begin, end = [0, *cut, size][part : part + 2]
                pieces.append(_places(unsorted, first + begin, end - begin))
            kept = self._without_repeats(np.concatenate(pieces))
            # In two steps: a shift by all 64 bits, where there is one bucket, is undefined.
            buckets = (kept["hash"] >> np.uint64(63 - bits) >> np.uint64(1)).astype(np.int64)
            in_bucket += np.bincount(buckets, minlength=1 << bits)
            result.append(kept.tobytes())
        return result, np.concatenate([[0], np.cumsum(in_bucket)]), bits

    def _without_repeats(self, places: np.ndarray) -> np.ndarray:
        """In the order of hashes, of each key the first place; of conflicts the first line's is raised."""
        places = places[np.argsort(places["hash"], kind="stable")]
        same = np.flatnonzero(places["hash"][1:] == places["hash"][:-1])
        if not len(same):
            return places
        keep = np.ones(len(places), bool)
        first_conflict: RepeatedKeyError | None = None
        known: dict[str, str] = {}
        before = -2
        for number in same.tolist():
            if number != before + 1:  # another hash: two keys with one hash are as good as never
                known = dict([self._read_by_name(int(places["at"][number]))])
            before, at = number, int(places["at"][number + 1])
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


def _blocks(entries: Iterable[tuple[str, int]], at_once: int) -> Iterator[np.ndarray]:
    hashed = ((key_hash(same_name(key)), at) for key, at in entries)
    while len(block := np.fromiter(islice(hashed, at_once), _PLACE)):
        yield block


def _places(file: ScratchFile, first: int, count: int) -> np.ndarray:
    return np.frombuffer(file.read(first * _PLACE.itemsize, count * _PLACE.itemsize), _PLACE)
