"""Samples with the captions of their clips, out of folders of caption files."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from clipvip.shards.files.places import size_of
from clipvip.shards.files.stores import Location
from clipvip.shards.format.clip_captions import sourced_captions_of, with_middle_frame
from clipvip.shards.format.record import ClipRecord
from clipvip.shards.tar.reader import Sample


def with_captions(samples: Iterable[Sample], shard: Location, folders: Sequence[str]) -> Iterator[Sample]:
    """The samples of a shard with the captions of all folders; DatasetError: none has any of the shard."""
    where = f"no captions of {shard}"
    by_key = sourced_captions_of(folders, shard.stem, num_bytes=size_of(shard), where=where)
    for sample in samples:
        captions = by_key.get(sample.key, [])
        if isinstance(sample.parsed, ClipRecord):
            captions = with_middle_frame(captions, sample.parsed)
        yield replace(sample, captions=tuple(captions))
