"""Which samples merge, split and subset take, by the hashes of their keys or videos.

Pure functions of hashes: the answer is the same on every machine, and small subsets lie in large ones.
"""

import numpy as np

from clipvip.pipeline.tools.copy_run import Choose
from clipvip.shards.tar.key_list import KeyList


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


def listed(keys: KeyList) -> Choose:
    """Take the samples that are listed."""
    return lambda _, hashes: keys.choose(hashes)


def not_listed(keys: KeyList) -> Choose:
    """Take the others."""
    return lambda _, hashes: ~keys.choose(hashes)
