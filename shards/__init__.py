"""The on-disk format of clips: reading, writing, decoding. Knows no network, terminal or command.

What training code outside needs is offered here, and loaded when it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipvip.media.sampling import jittered_indices, middle_index, uniform_indices
    from clipvip.shards.errors import DatasetError
    from clipvip.shards.format.captions import read_captions
    from clipvip.shards.format.clip_captions import ClipCaption
    from clipvip.shards.format.record import ClipRecord
    from clipvip.shards.tar.reader import Sample, list_shards, read_shard
    from clipvip.shards.tar.streaming import DecodedClip, decode_clip

_MODULES = {
    "media.sampling": "jittered_indices middle_index uniform_indices",
    "shards.errors": "DatasetError",
    "shards.format.captions": "read_captions",
    "shards.format.clip_captions": "ClipCaption",
    "shards.format.record": "ClipRecord",
    "shards.tar.reader": "Sample list_shards read_shard",
    "shards.tar.streaming": "DecodedClip decode_clip",
}
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}
__all__ = [*_HOME]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"clipvip.{_HOME[name]}"), name)
    raise AttributeError(f"module 'clipvip.shards' has no attribute {name!r}")
