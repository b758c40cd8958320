"""Which samples merge, split and subset take, by the hashes of their keys or videos.

Pure functions of hashes: the answer is the same on every machine, and small subsets lie in large ones.
"""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from clipvip.pipeline.tools.copy_run import Choose
from clipvip.shards.files.hashes import HashStore
from clipvip.shards.sources.key_list import KeyList


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


def listed(keys: KeyList) -> Choose:
    """Take the samples that are listed."""
    return lambda _, hashes: keys.choose(hashes)


def not_listed(keys: KeyList) -> Choose:
    """Take the others."""
    return lambda _, hashes: ~keys.choose(hashes)
