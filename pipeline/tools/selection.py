"""Which samples merge, split and subset take, by the hashes of their keys or videos.

Pure functions of hashes: the answer is the same on every machine, and small subsets lie in large ones.
"""

from collections.abc import Sequence

import numpy as np

from clipvip.media.errors import one_line
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.tools.copy_run import Choose
from clipvip.shards.errors import DatasetError
from clipvip.shards.files.hashes import key_hash, key_hashes
from clipvip.shards.files.names import spellings
from clipvip.shards.files.places import at_hand, is_file
from clipvip.shards.files.stores import Location
from clipvip.shards.format.clip import is_safe_key, make_key, video_of_key


def up_to(largest: int) -> Choose:
    """Take the samples whose hash is not larger."""
    return lambda _, hashes: hashes <= largest


def between(low: float, high: float) -> Choose:
    """Take the samples whose hash lies in [low, high), as parts of 1."""
    first, end = int(low * 2**64), int(high * 2**64)
    return lambda _, hashes: (hashes >= first) & (hashes < end)


def without(dropped: dict[int, list[int]]) -> Choose:
    """Take all but those: shard -> the numbers of its samples to leave out."""

    def choose(shard: int, hashes: np.ndarray) -> np.ndarray:
        mask = np.ones(len(hashes), bool)
        mask[dropped.get(shard, [])] = False
        return mask

    return choose


class Listed:
    """Keys or video ids that a file lists, one a line, as hashes: 16 bytes each in memory."""

    def __init__(self, path: Location, *, by_video: bool) -> None:
        if not is_file(path):
            raise UserError(f"{path}: no such file; give a text file with one key or id a line")
        self._path, self._by_video = path, by_video
        try:
            with at_hand(path) as local, local.open(encoding="utf-8") as lines:
                hashed = key_hashes(key for line in lines if line.strip() for key in self._keys(line.strip()))
        except (UnicodeDecodeError, DatasetError) as error:
            raise UserError(f"{path}: {one_line(error)}; give one key or id a line") from error
        self._hashes = np.unique(hashed)
        self._found = np.zeros(len(self._hashes), bool)
        if not len(self._hashes):
            raise UserError(f"{path}: lists nothing; give one key or id a line")

    def _keys(self, text: str) -> list[str]:
        """The key, or what keys have of the video, of which each spelling has its own.

        A DatasetError where no clip or video can have it.
        """
        if self._by_video:
            return [video_of_key(make_key(name, 0)) for name in spellings(text)]
        if not is_safe_key(text):
            raise DatasetError(f"{text[:80]!r} is no key")
        return [text]

    def choose(self, _: int, hashes: np.ndarray) -> np.ndarray:
        """Take the samples that are listed."""
        places = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        is_listed: np.ndarray = self._hashes[places] == hashes
        self._found[places[is_listed]] = True
        return is_listed

    def leave(self, _: int, hashes: np.ndarray) -> np.ndarray:
        """Take the others."""
        return ~self.choose(_, hashes)

    def not_found(self) -> tuple[int, Sequence[str]]:
        """How many of the listed no `choose` has seen, and the first of them."""
        not_seen = {int(value) for value in self._hashes[~self._found]}
        missing: set[int] = set()
        examples: list[str] = []
        with at_hand(self._path) as local, local.open(encoding="utf-8") as lines:
            for text in filter(None, map(str.strip, lines)):
                hashes = [key_hash(key) for key in self._keys(text)]
                if not not_seen.issuperset(hashes):
                    continue
                if len(examples) < 3 and missing.isdisjoint(hashes):
                    examples.append(text)
                missing.add(min(hashes))
        return len(missing), examples
