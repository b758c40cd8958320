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
    from clipvip.pipeline.evaluate.actions import ActionsOptions, actions
    from clipvip.pipeline.evaluate.multiple_choice import MultipleChoiceOptions, multiple_choice
    from clipvip.pipeline.evaluate.retrieval import RetrievalOptions, retrieval
    from clipvip.pipeline.runtime.report import StageReport
    from clipvip.pipeline.search.command import SearchOptions, search
    from clipvip.pipeline.shard.stage import ShardOptions, shard
    from clipvip.pipeline.tools.inspect import InspectOptions, inspect
    from clipvip.pipeline.tools.merge import MergeOptions, merge
    from clipvip.pipeline.tools.split import SplitOptions, split
    from clipvip.pipeline.tools.stats import StatsOptions, stats
    from clipvip.pipeline.tools.subset import SubsetOptions, subset
    from clipvip.pipeline.tools.verify import VerifyOptions, verify
    from clipvip.pipeline.train.stage import TrainOptions, train

__version__ = "0.1.0"
_MODULES = {
    "ActionsOptions": "pipeline.evaluate.actions",
    "CaptionOptions": "pipeline.caption.stage",
    "ClipVip": "model",
    "ClipVipConfig": "model",
    "DomainGapOptions": "pipeline.domain_gap.stage",
    "DomainGapReport": "pipeline.domain_gap.stage",
    "DownloadOptions": "pipeline.download.stage",
    "InspectOptions": "pipeline.tools.inspect",
    "MergeOptions": "pipeline.tools.merge",
    "MultipleChoiceOptions": "pipeline.evaluate.multiple_choice",
    "RetrievalOptions": "pipeline.evaluate.retrieval",
    "SearchOptions": "pipeline.search.command",
    "ShardOptions": "pipeline.shard.stage",
    "SplitOptions": "pipeline.tools.split",
    "StageReport": "pipeline.runtime.report",
    "StatsOptions": "pipeline.tools.stats",
    "SubsetOptions": "pipeline.tools.subset",
    "TrainOptions": "pipeline.train.stage",
    "VerifyOptions": "pipeline.tools.verify",
    "actions": "pipeline.evaluate.actions",
    "caption": "pipeline.caption.stage",
    "download": "pipeline.download.stage",
    "inspect": "pipeline.tools.inspect",
    "merge": "pipeline.tools.merge",
    "multiple_choice": "pipeline.evaluate.multiple_choice",
    "nmi": "pipeline.domain_gap.stage",
    "retrieval": "pipeline.evaluate.retrieval",
    "search": "pipeline.search.command",
    "shard": "pipeline.shard.stage",
    "split": "pipeline.tools.split",
    "stats": "pipeline.tools.stats",
    "subset": "pipeline.tools.subset",
    "train": "pipeline.train.stage",
    "verify": "pipeline.tools.verify",
}
__all__ = [
    "ActionsOptions",
    "CaptionOptions",
    "ClipVip",
    "ClipVipConfig",
    "DomainGapOptions",
    "DomainGapReport",
    "DownloadOptions",
    "InspectOptions",
    "MergeOptions",
    "MultipleChoiceOptions",
    "RetrievalOptions",
    "SearchOptions",
    "ShardOptions",
    "SplitOptions",
    "StageReport",
    "StatsOptions",
    "SubsetOptions",
    "TrainOptions",
    "VerifyOptions",
    "__version__",
    "actions",
    "caption",
    "download",
    "inspect",
    "merge",
    "multiple_choice",
    "nmi",
    "retrieval",
    "search",
    "shard",
    "split",
    "stats",
    "subset",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"clipvip.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'clipvip' has no attribute {name!r}")
