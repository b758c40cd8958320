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
    from clipvip.pipeline.caption.stage import CaptionOptions, caption
    from clipvip.pipeline.domain_gap.stage import DomainGapOptions, DomainGapReport, nmi
    from clipvip.pipeline.download.stage import DownloadOptions, download
    from clipvip.pipeline.runtime.report import StageReport
    from clipvip.pipeline.shard.stage import ShardOptions, shard
    from clipvip.pipeline.train.stage import TrainOptions, train

__version__ = "0.1.0"
_MODULES = {
    "CaptionOptions": "pipeline.caption.stage",
    "ClipVip": "model",
    "ClipVipConfig": "model",
    "DomainGapOptions": "pipeline.domain_gap.stage",
    "DomainGapReport": "pipeline.domain_gap.stage",
    "DownloadOptions": "pipeline.download.stage",
    "ShardOptions": "pipeline.shard.stage",
    "StageReport": "pipeline.runtime.report",
    "TrainOptions": "pipeline.train.stage",
    "caption": "pipeline.caption.stage",
    "download": "pipeline.download.stage",
    "nmi": "pipeline.domain_gap.stage",
    "shard": "pipeline.shard.stage",
    "train": "pipeline.train.stage",
}
__all__ = [
    "CaptionOptions",
    "ClipVip",
    "ClipVipConfig",
    "DomainGapOptions",
    "DomainGapReport",
    "DownloadOptions",
    "ShardOptions",
    "StageReport",
    "TrainOptions",
    "__version__",
    "caption",
    "download",
    "nmi",
    "shard",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"clipvip.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'clipvip' has no attribute {name!r}")
