"""Hashes of the keys of a whole dataset, kept on disk: which keys repeat, which are the smallest.

Memory is bounded by `_AT_ONCE` hashes (about 0.4 GB), whatever the dataset; the disk holds 8 bytes a key:
0.8 GB for a hundred million. (`Repeats`: 16 bytes on the disk, and 1 in memory.)
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from clipvip.shards.files.scratch import ScratchFile

_AT_ONCE = 1 << 22
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


class Repeats:
    """Which texts of a sequence came before: a bit for each."""

    def __init__(self, texts: Iterable[str], *, at_once: int = _AT_ONCE) -> None:
        """Go through the texts once. Two are equal by 128 bits of hash, which no two texts share by chance.

        The hashes are on the disk meanwhile, and are gone through once for every `at_once` of them.
        """
        file, size = ScratchFile(), 0
        for text in texts:
            file.append(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest())
            size += 1
        repeated = np.zeros(size, bool)
        num_ranges = max(1, -(-size // at_once))
        for number in range(num_ranges if size else 0):
            found, found_at = [], []
            for first in range(0, size, at_once):
                block = np.frombuffer(file.read(first * 16, at_once * 16), np.uint64).reshape(-1, 2)
                # The top bits of the first half deal the hashes out.
                range_of = (block[:, 0] >> np.uint64(32)) * np.uint64(num_ranges) >> np.uint64(32)
                inside = np.flatnonzero(range_of == np.uint64(number))
                found.append(block[inside])
                found_at.append(inside + first)
            halves, places = np.concatenate(found), np.concatenate(found_at)
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

    def __init__(self, *, at_once: int = _AT_ONCE) -> None:
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
        return self._read(*self._places[shard])

    def repeated(self) -> Iterator[list[tuple[int, int]]]:
        """For each hash that several samples have: their (shard, place in it), in order of shards.

        The hashes are gone through once for every `at_once` of them.
        """
        num_ranges = max(1, -(-len(self) // self._at_once))
        width = 2**64 // num_ranges + 1
        for number in range(num_ranges):
            low, high = number * width, min((number + 1) * width, 2**64) - 1
            values, positions = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
            for first, block in self._blocks():
                inside = np.flatnonzero((block >= np.uint64(low)) & (block <= np.uint64(high)))
                values.append(block[inside])
                positions.append(inside + first)
            yield from self._groups(np.concatenate(values), np.concatenate(positions))

    def _groups(self, values: np.ndarray, positions: np.ndarray) -> Iterator[list[tuple[int, int]]]:
        """The samples at `positions` in the file that share a value."""
        order = np.argsort(values, kind="stable")
        values = values[order]
        same = np.flatnonzero(values[1:] == values[:-1])
        if not len(same):
            return
        # Several shards may begin at one position: all but the last of them are empty.
        starts = np.array([first for first, _ in self._places.values()])
        shards = list(self._places)
        for run in np.split(same, np.flatnonzero(np.diff(same) > 1) + 1):
            group = positions[order[run[0] : run[-1] + 2]]
            owners = np.searchsorted(starts, group, side="right") - 1
            yield sorted(
                (shards[owner], int(at - starts[owner])) for owner, at in zip(owners, group, strict=True)
            )

    def count_distinct(self) -> int:
        """How many different hashes there are."""
        return len(self) - sum(len(group) - 1 for group in self.repeated())

    def nth_smallest(self, n: int) -> int:
        """The `n`-th smallest hash, `n` from 1 to the number of hashes."""
        low, high = 0, 2**64 - 1
        while True:
            if low == high:
                return low
            counts, edges = self._histogram(low, high)
            if counts.sum() <= self._at_once:
                inside = [self._inside(block, low, high) for _, block in self._blocks()]
                return int(np.sort(np.concatenate(inside))[n - 1])
            bin_number = int(np.searchsorted(np.cumsum(counts), n))
            n -= int(counts[:bin_number].sum())
            low, high = edges[bin_number], edges[bin_number + 1] - 1

    def _histogram(self, low: int, high: int) -> tuple[np.ndarray, list[int]]:
        """How many hashes lie in each of up to 1024 equal parts of [low, high], and where the parts begin."""
        width = (high - low) // 1024 + 1
        counts = np.zeros(1024, np.int64)
        for _, block in self._blocks():
            bins = ((self._inside(block, low, high) - np.uint64(low)) // np.uint64(width)).astype(np.int64)
            counts += np.bincount(bins, minlength=1024)
        return counts, [min(low + width * number, high + 1) for number in range(1025)]

    @staticmethod
    def _inside(block: np.ndarray, low: int, high: int) -> np.ndarray:
        return block[(block >= np.uint64(low)) & (block <= np.uint64(high))]

    def _blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """All hashes in pieces, each with the number of its first."""
        for first in range(0, len(self), self._at_once):
            yield first, self._read(first, min(self._at_once, len(self) - first))

    def _read(self, first: int, count: int) -> np.ndarray:
        return np.frombuffer(self._file.read(first * _HASH_BYTES, count * _HASH_BYTES), np.uint64)


def sha256_of_texts(texts: Iterable[str]) -> str:
    """The SHA-256 of texts, one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def sha256_of_file(path: Path | str, *, heartbeat: Callable[[], None] = lambda: None) -> str:
    """The SHA-256 of a file, in hexadecimal; `heartbeat` is called for each megabyte."""
    digest = hashlib.sha256()
    with Path(path).open("rb", buffering=0) as file:
        while block := file.read(_READ_BYTES):
            heartbeat()
            digest.update(block)
    return digest.hexdigest()
