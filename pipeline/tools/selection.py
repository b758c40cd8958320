"""Which samples merge, split and subset take, by the hashes of their keys or videos.

Pure functions of hashes: the answer is the same on every machine, and small subsets lie in large ones.
"""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from clipvip.media.errors import one_line
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.tools.copy_run import Choose
from clipvip.shards.errors import DatasetError
from clipvip.shards.files.hashes import HashStore, key_hash, key_hashes
from clipvip.shards.files.names import spellings
from clipvip.shards.files.places import at_hand, is_file
from clipvip.shards.files.stores import Location
from clipvip.shards.format.clip import is_safe_key, make_key, video_of_key


def up_to(largest: int) -> Choose:
    """Take the samples whose hash is not larger."""
    return lambda _, hashes: hashes <= largest


def between(first: int, end: int) -> Choose:
    """Take the samples whose hash lies in [first, end), numbers from 0 to 2^64."""
    return lambda _, hashes: (hashes >= first) & (hashes < end)


def cuts(hashes: HashStore, fractions: Sequence[float]) -> list[int]:
    """Where to cut the range of hashes so that each part of it has its fraction of the samples.

    Samples with one hash, such as those of a video, are not parted: a cut is made at the nearest end of such
    a group, which puts no part off by more than the largest group. Each part has a group at least, and may be
    further off for that.

    Returns:
        0, the cuts between two parts, and 2^64.

    Raises:
        ValueError: there are fewer groups than parts.
    """
    total = len(hashes)
    if not total:
        raise ValueError("no groups at all")

    def group_at(place: int) -> tuple[int, int]:
        """How many samples, in order of hashes, are before the group of the one at `place`, and with it."""
        value = hashes.nth_smallest(place + 1)
        return hashes.count_below(value), hashes.count_below(value + 1)

    before = [0]  # how many samples are before each cut
    for fraction in accumulate(fractions[:-1]):
        wanted = fraction * total
        start, end = group_at(min(int(wanted), total - 1))
        nearest = start if wanted - start <= end - wanted else end
        last = before[-1]
        before.append(nearest if nearest > last or last == total else group_at(last)[1])
    limit = total  # cuts that came too far go back, as far as the parts after them need
    for part in reversed(range(1, len(before))):
        before[part] = limit = before[part] if before[part] < limit else group_at(limit - 1)[0]
        if not limit:
            raise ValueError("fewer groups than parts")
    return [0, *(hashes.nth_smallest(count) + 1 for count in before[1:]), 2**64]


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
