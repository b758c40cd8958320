"""The clips of a source that `data.keep` lists: the others are as if they were not there."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.train.shard_set import Shard, ShardReader, ShardSet
from clipvip.shards.errors import Skip
from clipvip.shards.files.hashes import key_hashes
from clipvip.shards.tar.key_list import KeyList

_THREADS = 8


def keep_listed(shards: ShardSet, keys: KeyList) -> ShardSet:
    """The shards with the listed clips alone, without those that have none.

    The headers of all shards are read for it, and remote shards copied for as long. A shard that cannot be
    read has no listed clip. A UserError where none is left.
    """
    reader = ShardReader(shards)

    def hashes_of(number: int) -> np.ndarray:
        opened = reader.open_shard(number)
        if isinstance(opened, Skip):
            return np.empty(0, np.uint64)
        opened.file.close()
        return key_hashes(span.key for span in opened.spans)

    kept: list[Shard] = []
    with ThreadPoolExecutor(_THREADS) as threads:
        for shard, hashes in zip(
            shards.shards, threads.map(hashes_of, range(len(shards.shards))), strict=True
        ):
            mask = keys.choose(hashes)
            if mask.any():
                kept.append(replace(shard, num_samples=int(mask.sum()), kept=np.packbits(mask).tobytes()))
    if not kept:
        raise UserError(
            f"data.keep {keys.path}: lists no clip of source {shards.name}; give a list of these shards, as "
            "'clipvip-data filter' writes it"
        )
    return replace(shards, shards=tuple(kept))
