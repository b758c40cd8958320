"""Adapt CLIP to video.

The stages live in `clipvip.pipeline`, the on-disk format in `clipvip.shards`, the networks in
`clipvip.model`, and the measurements in `clipvip.analysis`. What it offers is loaded on use.

    import clipvip
    report = clipvip.shard(metadata="clips.jsonl", videos="videos", out="clips")
"""

from typing import TYPE_CHECKING

from clipvip.lazy import lazy_names

if TYPE_CHECKING:
    from clipvip import analysis, media, model, shards
    from clipvip.model import ClipVip, ClipVipConfig
    from clipvip.model.errors import CheckpointError
    from clipvip.model.ofa.convert import convert_fairseq as convert_ofa
    from clipvip.model.openclip import convert_openclip
    from clipvip.model.weights import convert_released
    from clipvip.pipeline.caption.stage import CaptionOptions, caption
    from clipvip.pipeline.clips.stage import ClipsOptions, clips
    from clipvip.pipeline.domain_gap.stage import DomainGapOptions, DomainGapReport, nmi
    from clipvip.pipeline.download.stage import DownloadOptions, download
    from clipvip.pipeline.evaluate.actions import ActionsOptions, actions
    from clipvip.pipeline.evaluate.benchmark import BenchmarkOptions, benchmark
    from clipvip.pipeline.evaluate.multiple_choice import MultipleChoiceOptions, multiple_choice
    from clipvip.pipeline.evaluate.retrieval import RetrievalOptions, retrieval
    from clipvip.pipeline.filter.options import FilterOptions
    from clipvip.pipeline.filter.stage import filter
    from clipvip.pipeline.import_captions.stage import ImportCaptionsOptions, import_captions
    from clipvip.pipeline.runtime.errors import UserError
    from clipvip.pipeline.runtime.report import StageReport
    from clipvip.pipeline.runtime.stage import StageFailed
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
    from clipvip.shards.errors import DatasetError

__version__ = "0.2.0"

# Written out, for type checkers; tests compare it with what stands above and below.
__all__ = [
    "ActionsOptions",
    "BenchmarkOptions",
    "CaptionOptions",
    "CheckpointError",
    "ClipVip",
    "ClipVipConfig",
    "ClipsOptions",
    "DatasetError",
    "DomainGapOptions",
    "DomainGapReport",
    "DownloadOptions",
    "FilterOptions",
    "ImportCaptionsOptions",
    "InspectOptions",
    "InterpolateOptions",
    "MergeOptions",
    "MultipleChoiceOptions",
    "RetrievalOptions",
    "SearchOptions",
    "ShardOptions",
    "SplitOptions",
    "StageFailed",
    "StageReport",
    "StatsOptions",
    "SubsetOptions",
    "TrainOptions",
    "TranscribeOptions",
    "UserError",
    "VerifyOptions",
    "__version__",
    "actions",
    "analysis",
    "benchmark",
    "caption",
    "clips",
    "convert_ofa",
    "convert_openclip",
    "convert_released",
    "download",
    "filter",
    "import_captions",
    "inspect",
    "interpolate",
    "media",
    "merge",
    "model",
    "multiple_choice",
    "nmi",
    "retrieval",
    "search",
    "shard",
    "shards",
    "split",
    "stats",
    "subset",
    "train",
    "transcribe",
    "verify",
]

if not TYPE_CHECKING:  # a type checker would take any name for one that is there
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "analysis": "",
            "media": "",
            "model": "",
            "shards": "",
            "model.clip_vip": "ClipVip",
            "model.config": "ClipVipConfig",
            "model.errors": "CheckpointError",
            "model.ofa.convert": "convert_fairseq as convert_ofa",
            "model.openclip": "convert_openclip",
            "model.weights": "convert_released",
            "pipeline.caption.stage": "CaptionOptions caption",
            "pipeline.clips.stage": "ClipsOptions clips",
            "pipeline.domain_gap.stage": "DomainGapOptions DomainGapReport nmi",
            "pipeline.download.stage": "DownloadOptions download",
            "pipeline.evaluate.actions": "ActionsOptions actions",
            "pipeline.evaluate.benchmark": "BenchmarkOptions benchmark",
            "pipeline.evaluate.multiple_choice": "MultipleChoiceOptions multiple_choice",
            "pipeline.evaluate.retrieval": "RetrievalOptions retrieval",
            "pipeline.filter.options": "FilterOptions",
            "pipeline.filter.stage": "filter",
            "pipeline.import_captions.stage": "ImportCaptionsOptions import_captions",
            "pipeline.runtime.errors": "UserError",
            "pipeline.runtime.report": "StageReport",
            "pipeline.runtime.stage": "StageFailed",
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
            "shards.errors": "DatasetError",
        },
    )
