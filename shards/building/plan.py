"""Which clip goes into which shard: by the metadata and the shard size alone, however the work is done."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from clipvip.shards.sources.hdvila import Source


@dataclass(frozen=True, slots=True)
class Unit:
    """What one worker makes in one go: one shard of whole sources, or all shards of one large source."""

    first_shard: int
    num_shards: int
    sources: tuple[Source, ...]
    shard_size: int

    @property
    def num_clips(self) -> int:
        return sum(len(source.clips) for source in self.sources)

    def shard_of(self, index: int) -> int:
        """The shard of the unit's clip number `index`, counted over its sources."""
        return self.first_shard + index // self.shard_size


def plan_units(sources: Iterable[Source], *, shard_size: int) -> Iterator[Unit]:
    """Yield the units for `sources` in order; sources without clips take no part.

    A source joins the current shard if its clips fit, else it begins the next. One with more clips than
    `shard_size` has shards to itself, and is decoded once.
    """
    # Of 100, 200, 600 and 10 clips, with 256 a shard: shard 0 has 100, as 300 do not fit, 1 has 200, 2 to 4
    # have 600, and 5 has 10, since the last shard of a large source takes no other.
    shard, waiting, num_waiting = 0, list[Source](), 0
    for source in sources:
        num_clips = len(source.clips)
        if not num_clips:
            continue
        if waiting and num_waiting + num_clips > shard_size:
            yield Unit(shard, 1, tuple(waiting), shard_size)
            shard, waiting, num_waiting = shard + 1, [], 0
        if num_clips > shard_size:
            num_shards = -(-num_clips // shard_size)
            yield Unit(shard, num_shards, (source,), shard_size)
            shard += num_shards
        else:
            waiting.append(source)
            num_waiting += num_clips
    if waiting:
        yield Unit(shard, 1, tuple(waiting), shard_size)
