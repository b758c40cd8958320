"""The clips of a source that `data.keep` lists: the others are as if they were not there."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.train.recipe import Data
from clipvip.pipeline.train.shard_set import Shard, ShardReader, ShardSet
from clipvip.shards.errors import Skip
from clipvip.shards.files.hashes import key_hashes
from clipvip.shards.files.places import location_of
from clipvip.shards.sources.key_list import KeyList

_THREADS = 8


def keys_to_keep(data: Data) -> KeyList | None:
    """What `data.keep` lists; None where it is not set. A UserError where no source has clips."""
    if data.keep is None:
        return None
    if all(source.kind != "clips" for source in data.sources.values()):
        raise UserError("data.keep lists clips, and no source is of kind clips; leave it out")
    return KeyList(location_of(data.keep))


def notes_on(keys: KeyList | None) -> tuple[str, ...]:
    """What is to be said of a list after all sources have been looked through."""
    missing = keys.told_missing() if keys is not None else ""
    return (f"data.keep {keys.path}: {missing}",) if keys is not None and missing else ()


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
