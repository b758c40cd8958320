"""The on-disk format of clips: reading, writing, decoding. Knows no network, terminal or command.

What training code outside needs is offered here, and loaded when it is used.
"""

from typing import TYPE_CHECKING

from clipvip.lazy import lazy_names

if TYPE_CHECKING:
    from clipvip.media.sampling import jittered_indices, middle_index, uniform_indices
    from clipvip.shards.errors import DatasetError
    from clipvip.shards.format.captions import read_captions
    from clipvip.shards.format.clip_captions import ClipCaption
    from clipvip.shards.format.record import ClipRecord
    from clipvip.shards.tar.listing import list_shards
    from clipvip.shards.tar.reader import Sample, read_shard
    from clipvip.shards.tar.streaming import DecodedClip, decode_clip

__all__ = [
    "ClipCaption",
    "ClipRecord",
    "DatasetError",
    "DecodedClip",
    "Sample",
    "decode_clip",
    "jittered_indices",
    "list_shards",
    "middle_index",
    "read_captions",
    "read_shard",
    "uniform_indices",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "media.sampling": "jittered_indices middle_index uniform_indices",
            "shards.errors": "DatasetError",
            "shards.format.captions": "read_captions",
            "shards.format.clip_captions": "ClipCaption",
            "shards.format.record": "ClipRecord",
            "shards.tar.listing": "list_shards",
            "shards.tar.reader": "Sample read_shard",
            "shards.tar.streaming": "DecodedClip decode_clip",
        },
    )
