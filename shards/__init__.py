"""The on-disk format of clips: reading, writing, decoding. Knows no network, terminal or command.

What training code outside needs is offered here, and loaded when it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipvip.media.sampling import jittered_indices, middle_index, uniform_indices
    from clipvip.shards.errors import DatasetError
    from clipvip.shards.format.captions import read_captions
    from clipvip.shards.format.record import ClipRecord
    from clipvip.shards.tar.reader import Sample, list_shards, read_shard
    from clipvip.shards.tar.streaming import DecodedClip, decode_clip

__all__ = [
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

_MODULES = {
    "clipvip.media.sampling": ("jittered_indices", "middle_index", "uniform_indices"),
    "clipvip.shards.errors": ("DatasetError",),
    "clipvip.shards.format.captions": ("read_captions",),
    "clipvip.shards.format.record": ("ClipRecord",),
    "clipvip.shards.tar.reader": ("Sample", "list_shards", "read_shard"),
    "clipvip.shards.tar.streaming": ("DecodedClip", "decode_clip"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'clipvip.shards' has no attribute {name!r}")
