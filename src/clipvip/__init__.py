"""Adapt CLIP to video.

The stages live in `clipvip.pipeline`, the on-disk format in `clipvip.shards`, the networks in
`clipvip.model`, and the measurements in `clipvip.analysis`. Importing this package imports no torch: what it offers is
loaded when it is asked for.

    import clipvip
    report = clipvip.shard(metadata="clips.jsonl", videos="videos", out="clips")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipvip.model import ClipVip, ClipVipConfig
    from clipvip.pipeline.runtime.report import StageReport
    from clipvip.pipeline.shard.stage import ShardOptions, shard
    from clipvip.pipeline.train.stage import TrainOptions, train

__version__ = "0.1.0"
_MODULES = {
    "ClipVip": "model",
    "ClipVipConfig": "model",
    "ShardOptions": "pipeline.shard.stage",
    "StageReport": "pipeline.runtime.report",
    "TrainOptions": "pipeline.train.stage",
    "shard": "pipeline.shard.stage",
    "train": "pipeline.train.stage",
}
__all__ = [
    "ClipVip",
    "ClipVipConfig",
    "ShardOptions",
    "StageReport",
    "TrainOptions",
    "__version__",
    "shard",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"clipvip.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'clipvip' has no attribute {name!r}")
