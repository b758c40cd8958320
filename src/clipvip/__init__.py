"""Adapt CLIP to video.

The stages live in `clipvip.pipeline`, the on-disk format in `clipvip.shards`, the networks in
`clipvip.model`, and the measurements in `clipvip.analysis`. What it offers is loaded on use.

    import clipvip
    report = clipvip.shard(metadata="clips.jsonl", videos="videos", out="clips")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipvip.model import ClipVip, ClipVipConfig
    from clipvip.pipeline.caption.stage import CaptionOptions, caption
    from clipvip.pipeline.clips.stage import ClipsOptions, clips
    from clipvip.pipeline.domain_gap.stage import DomainGapOptions, DomainGapReport, nmi
    from clipvip.pipeline.download.stage import DownloadOptions, download
    from clipvip.pipeline.evaluate.actions import ActionsOptions, actions
    from clipvip.pipeline.evaluate.multiple_choice import MultipleChoiceOptions, multiple_choice
    from clipvip.pipeline.evaluate.retrieval import RetrievalOptions, retrieval
    from clipvip.pipeline.filter.stage import FilterOptions, filter
    from clipvip.pipeline.import_captions.stage import ImportCaptionsOptions, import_captions
    from clipvip.pipeline.runtime.report import StageReport
    from clipvip.pipeline.search.stage import SearchOptions, search
    from clipvip.pipeline.shard.stage import ShardOptions, shard
    from clipvip.pipeline.tools.inspect import InspectOptions, inspect
    from clipvip.pipeline.tools.interpolate import InterpolateOptions, interpolate
    from clipvip.pipeline.tools.merge import MergeOptions, merge
    from clipvip.pipeline.tools.split import SplitOptions, split
    from clipvip.pipeline.tools.stats import StatsOptions, stats
    from clipvip.pipeline.tools.subset import SubsetOptions, subset
    from clipvip.pipeline.tools.verify import VerifyOptions, verify
    from clipvip.pipeline.train.stage import TrainOptions, train
    from clipvip.pipeline.transcribe.stage import TranscribeOptions, transcribe

__version__ = "0.1.0"

_MODULES = {
    "model": "ClipVip ClipVipConfig",
    "pipeline.caption.stage": "CaptionOptions caption",
    "pipeline.clips.stage": "ClipsOptions clips",
    "pipeline.domain_gap.stage": "DomainGapOptions DomainGapReport nmi",
    "pipeline.download.stage": "DownloadOptions download",
    "pipeline.evaluate.actions": "ActionsOptions actions",
    "pipeline.evaluate.multiple_choice": "MultipleChoiceOptions multiple_choice",
    "pipeline.evaluate.retrieval": "RetrievalOptions retrieval",
    "pipeline.filter.stage": "FilterOptions filter",
    "pipeline.import_captions.stage": "ImportCaptionsOptions import_captions",
    "pipeline.runtime.report": "StageReport",
    "pipeline.search.stage": "SearchOptions search",
    "pipeline.shard.stage": "ShardOptions shard",
    "pipeline.tools.inspect": "InspectOptions inspect",
    "pipeline.tools.interpolate": "InterpolateOptions interpolate",
    "pipeline.tools.merge": "MergeOptions merge",
    "pipeline.tools.split": "SplitOptions split",
    "pipeline.tools.stats": "StatsOptions stats",
    "pipeline.tools.subset": "SubsetOptions subset",
    "pipeline.tools.verify": "VerifyOptions verify",
    "pipeline.train.stage": "TrainOptions train",
    "pipeline.transcribe.stage": "TranscribeOptions transcribe",
}
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}
__all__ = ["__version__", *_HOME]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"clipvip.{_HOME[name]}"), name)
    raise AttributeError(f"module 'clipvip' has no attribute {name!r}")
