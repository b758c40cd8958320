"""Hashes of the keys of a whole dataset, kept on disk: which keys repeat, which are the smallest.

Memory is bounded by `AT_ONCE` hashes (about 0.4 GB), whatever the dataset; the disk holds 8 bytes a key:
0.8 GB for a hundred million. (`Repeats`: 16 bytes on the disk, and 1 in memory.)
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from clipvip.shards.files.places import location_of, open_file
from clipvip.shards.files.scratch import ScratchFile
from clipvip.shards.files.stores import Location

AT_ONCE = 1 << 22
_SCANNED_AT_ONCE = 1 << 18
_HASH_BYTES = 8
_READ_BYTES = 1 << 20


def key_hash(text: str, *, seed: int = 0) -> int:
    """64 bits of BLAKE2b of `text`, another function for every seed (0 to 2^64 - 1)."""
    salt = seed.to_bytes(8, "little")
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES, salt=salt)
    return int.from_bytes(digest.digest(), "big")


def key_hashes(texts: Iterable[str], *, seed: int = 0) -> np.ndarray:
    """`key_hash` of each text, uint64."""
    return np.fromiter((key_hash(text, seed=seed) for text in texts), np.uint64)


def rows_at(file: ScratchFile, first: int, count: int, width: int) -> np.ndarray:
    """Rows `first` to `first + count` of a file of `width` uint64 a row; fewer where it ends before."""
    row_bytes = width * _HASH_BYTES
    return np.frombuffer(file.read(first * row_bytes, count * row_bytes), np.uint64).reshape(-1, width)


def parts_by_hash(file: ScratchFile, width: int, *, at_once: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The rows of a file, by the hash in their first column, in parts of about `at_once`; with their numbers.

    Equal hashes are in one part, in the order of the file, and those of a part before those of the next. The
    whole file is gone through for each part.
    """
    num_rows = len(file) // (width * _HASH_BYTES)
    num_parts, step = max(1, -(-num_rows // at_once)), min(at_once, _SCANNED_AT_ONCE)

    def gathered(part: int) -> tuple[np.ndarray, np.ndarray]:
        rows, numbers = [], []
        for first in range(0, max(num_rows, 1), step):
            block = rows_at(file, first, step, width)
            # As a number from 0 to 1 the hash times the parts, by its top half, which does not overflow: of 3
            # parts 0x80000000... is in 0x80000000 * 3 >> 32 = 1.
            part_of = (block[:, 0] >> np.uint64(32)) * np.uint64(num_parts) >> np.uint64(32)
            inside = np.flatnonzero(part_of == np.uint64(part))
            rows.append(block[inside])
            numbers.append(inside + first)
        return np.concatenate(rows), np.concatenate(numbers)

    return map(gathered, range(num_parts))


class Repeats:
    """Which texts of a sequence came before: a bit for each."""

    def __init__(self, texts: Iterable[str], *, at_once: int = AT_ONCE) -> None:
        """Go through the texts once. Two are equal by 128 bits of hash, which no two texts share by chance.

        The hashes are on the disk meanwhile, and are gone through once for every `at_once` of them.
        """
        file = ScratchFile()
        for text in texts:
            file.append(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest())
        repeated = np.zeros(len(file) // 16, bool)
        for halves, places in parts_by_hash(file, 2, at_once=at_once):
            order = np.lexsort((halves[:, 1], halves[:, 0]))  # stable: equal ones stay in order
            equal = (halves[order[1:]] == halves[order[:-1]]).all(axis=1)
            repeated[places[order[1:][equal]]] = True
        self.count = int(repeated.sum())
        self._bits = np.packbits(repeated, bitorder="little").tobytes() if self.count else b""

    def __contains__(self, place: int) -> bool:
        """Whether the text at that place, counted from 0, came before."""
        byte = place >> 3
        return byte < len(self._bits) and bool(self._bits[byte] >> (place & 7) & 1)


class HashStore:
    """The hashes of all samples, shard by shard in any order of adding.

    Two different texts share a hash with probability n² / 2^65: 3 in 10,000 over a hundred million keys.
    """

    def __init__(self, *, at_once: int = AT_ONCE) -> None:
        self._file = ScratchFile()
        self._at_once = at_once
        self._places: dict[int, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._file) // _HASH_BYTES

    def add(self, shard: int, hashes: np.ndarray) -> None:
        """Take the hashes of a shard's samples, in their order."""
        self._places[shard] = (len(self), len(hashes))
        self._file.append(np.ascontiguousarray(hashes, np.uint64).tobytes())

    def of_shard(self, shard: int) -> np.ndarray:
        """The hashes of one shard again."""
        return rows_at(self._file, *self._places[shard], 1)[:, 0]

    def repeated(self) -> Iterator[list[tuple[int, int]]]:
        """For each hash that several samples have: their (shard, place in it), in order of shards.

        The hashes are gone through once for every `at_once` of them.
        """
        # Several shards may begin at one position: all but the last of them are empty.
        starts = np.array([first for first, _ in self._places.values()])
        shards = list(self._places)
        for rows, positions in parts_by_hash(self._file, 1, at_once=self._at_once):
            order = np.argsort(rows[:, 0], kind="stable")
            values = rows[order, 0]
            same = np.flatnonzero(values[1:] == values[:-1])
            # Neighbours in `same` are a group: of the sorted values 3, 3, 7, 7, 7 there are [0] and [2, 3].
            for run in np.split(same, np.flatnonzero(np.diff(same) > 1) + 1) if len(same) else ():
                group = positions[order[run[0] : run[-1] + 2]]
                owners = np.searchsorted(starts, group, side="right") - 1
                yield sorted((shards[n], int(at - starts[n])) for n, at in zip(owners, group, strict=True))

    def count_distinct(self) -> int:
        """How many different hashes there are."""
        return len(self) - sum(len(group) - 1 for group in self.repeated())

    def count_below(self, limit: int) -> int:
        """How many hashes, equal ones each, are below `limit`, from 0 to 2^64."""
        blocks = range(0, len(self), self._at_once)
        return sum(int((rows_at(self._file, at, self._at_once, 1) < limit).sum()) for at in blocks)

    def nth_smallest(self, n: int) -> int:
        """The `n`-th smallest hash, `n` from 1 to the number of hashes."""
        # Byte by byte: of the hashes that begin with what is found so far, how many have which byte next? The
        # 3rd of 0x01..., 0x01... and 0x02... is the 1st of those with 0x02, since two come before these.
        found = 0
        for shift in range(56, -8, -8):
            counts = np.zeros(256, np.int64)
            for first in range(0, len(self), self._at_once):
                starts = rows_at(self._file, first, self._at_once, 1)[:, 0] >> np.uint64(shift)
                alike = starts[starts >> np.uint64(8) == np.uint64(found)]
                counts += np.bincount((alike & np.uint64(255)).astype(np.int64), minlength=256)
            byte = int(np.searchsorted(np.cumsum(counts), n))
            n -= int(counts[:byte].sum())
            found = found << 8 | byte
        return found


def sha256_of_texts(texts: Iterable[str]) -> str:
    """The SHA-256 of texts, one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def sha256_of_file(path: Location | str, *, heartbeat: Callable[[], None] = lambda: None) -> str:
    """The SHA-256 of a file, in hexadecimal; `heartbeat` is called for each megabyte."""
    digest = hashlib.sha256()
    with open_file(location_of(path), heartbeat=heartbeat) as file:
        while block := file.read(_READ_BYTES):
            heartbeat()
            digest.update(block)
    return digest.hexdigest()
