"""The stage `shard`: videos and a list of clips -> WebDataset shards. `run` hands it out, `work` works."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import click

from clipvip.media.jpeg import DEFAULT_JPEG_QUALITY
from clipvip.media.mp4 import DEFAULT_CRF
from clipvip.pipeline.runtime.device import num_cores
from clipvip.pipeline.runtime.errors import UserError, WrongOptions, require_local
from clipvip.pipeline.runtime.options import (
    ALSO,
    DryRun,
    RayAddress,
    SubtitleEncoding,
    Workers,
    at_least,
    finite,
    opt,
    options,
)
from clipvip.pipeline.runtime.ray_units import RayCluster, connect
from clipvip.pipeline.runtime.report import Report, StageReport, counted, planned
from clipvip.pipeline.runtime.stage import StageFailed, StageOptions, stage
from clipvip.pipeline.shard.run import count_work, make_shards, make_tasks
from clipvip.shards.building.cutting import CutOptions
from clipvip.shards.building.mark_store import AllSkips, MarkStore, SkipStore
from clipvip.shards.building.marks import PlacedSkip
from clipvip.shards.building.plan import plan_units
from clipvip.shards.files.claims import SKIPPED_NAME, Options, claim_folder, require_free_folder
from clipvip.shards.files.hashes import sha256_of_file, sha256_of_texts
from clipvip.shards.files.stores import Location, local_copy, parse_location
from clipvip.shards.format.manifest import ShardRecord, write_manifest
from clipvip.shards.sources.annotations import (
    files_read,
    read_annotations,
    require_no_set,
    survey_annotations,
    with_published_names,
)
from clipvip.shards.sources.foreign_shards import (
    ForeignSurvey,
    find_shards,
    identity_of,
    read_foreign_sources,
)
from clipvip.shards.sources.hdvila import (
    Source,
    Survey,
    index_videos,
    read_sources,
    survey_metadata,
    whole_videos,
)
from clipvip.shards.sources.subtitles import index_subtitles
from clipvip.shards.sources.text_tables import load_text_table
from clipvip.shards.sources.video_sets import find_annotation_file, find_split

_MAX_EXAMPLES = 100
_MOST_FILES_OF_A_LIST = 2


@options
class ShardOptions(StageOptions):
    """Options of `shard`. Paths may be URLs of stores (s3://, gs://, hf://) where the text says so."""

    metadata: str | None = opt(
        f"Clips to cut: HD-VILA-100M's JSONL, one video a line; {ALSO}. With --dataset the"
        " set's annotation file, or the folder that has it. Without either each video is a clip.",
        names=("--metadata", "--annotations"),
        default=None,
    )
    from_shards: tuple[str, ...] = opt(
        "Shards that others made, to convert in place of --videos: a folder, a file or a pattern of"
        " tars of mp4 or pictures with txt and json, as of video2dataset or img2dataset. Repeatable.",
        metavar="DIR_OR_GLOB",
        default=(),
    )
    dataset: str | None = opt(
        "Videos with the captions of a published set, whole or cut as it says: msrvtt/1ka, didemo/test, "
        "lsmdc/test1k, activitynet/val1, webvid/val, panda70m, internvid, howto100m, vatex, youcook2/train, "
        "msvd, qvhighlights, tvr, ...; or `captions` or `paragraphs`: a table of video and text.",
        metavar="NAME/SPLIT",
        default=None,
    )
    videos: str | None = opt(f"Folder of video files, named by video id; {ALSO}.", default=None)
    subtitles: str | None = opt(
        f"Folder of .vtt, .srt or .json3 files, {ALSO}, or a .jsonl/.parquet of clip id and text.",
        default=None,
    )
    subtitle_encoding: SubtitleEncoding = None
    out: str = opt(f"Folder for the shards; {ALSO}.")
    workers: Workers = None
    fps: float = opt("Frames kept per second.", finite(0, 240, above=True), default=3.0)
    size: int = opt("Short side in pixels; never scaled up.", click.IntRange(16, 4096), default=256)
    store: Literal["frames", "video"] = opt("JPEG frames (fast to load) or H.264 (small).", default="frames")
    shard_size: int = opt("Most clips in a shard.", at_least(1), default=256)
    quality: int | None = opt(
        f"JPEG quality, 1 to 100 (default {DEFAULT_JPEG_QUALITY}); with --store video x264's CRF, 51 to 0 "
        f"(default {DEFAULT_CRF}).",
        click.IntRange(0, 100),
        default=None,
    )
    max_frames: int | None = opt(
        "Most frames of a clip, spread evenly.", at_least(1), shown="no limit", default=None
    )
    video_timeout: float = opt(
        "Give up a video after this many seconds without a new frame.", finite(0, above=True), default=120.0
    )
    retry_skipped: bool = opt(
        "Make those shards again in which a video was missing, unreadable or too slow.", default=False
    )
    ray: RayAddress = None
    dry_run: DryRun = False

    @property
    def cut(self) -> CutOptions:
        """How clips are cut and stored.

        Raises:
            UserError: the quality is not one of what the frames are stored as.
        """
        jpeg = self.store == "frames"
        least, most, default = (1, 100, DEFAULT_JPEG_QUALITY) if jpeg else (0, 51, DEFAULT_CRF)
        quality = default if self.quality is None else self.quality
        if not least <= quality <= most:
            raise UserError(f"--quality {quality}: give {least} to {most} with --store {self.store}")
        return CutOptions(self.fps, self.size, self.store, quality, self.max_frames or 0)


@stage(
    ShardOptions,
    "clipvip-data shard",
    "--metadata clips.jsonl --videos videos/ --subtitles subtitles/ --out clips/",
    "--metadata clips.jsonl --videos s3://bucket/videos --out s3://bucket/clips",
    "--videos videos/ --out clips/ --max-frames 96",
    "--dataset msrvtt/1ka --annotations msrvtt/ --videos videos/ --out shards/msrvtt-1ka",
    "--from-shards video2dataset/ --out clips/",
)
def shard(options: ShardOptions) -> StageReport:
    """Cut videos into clips and write them as WebDataset shards.

    Frames are taken by presentation time while each video is decoded once. Run the same command again after
    an interruption: it makes what is missing, with the same bytes.

    Raises:
        UserError, DatasetError: what was given cannot be used; StageFailed: no clip could be stored.

    Examples:
        >>> import clipvip
        >>> report = clipvip.shard(
        ...     metadata="clips.jsonl", videos="videos", subtitles="subtitles", out="cut", workers=1
        ... )
        >>> report.counts["clips"]
        24
    """
    with ExitStack() as resources:
        return _shard(options, resources)


def _shard(options: ShardOptions, resources: ExitStack) -> StageReport:
    started = time.monotonic()
    out = parse_location(options.out)
    plan = _plan_samples(options) if options.from_shards else _plan_videos(options, resources)
    made_by = {**asdict(options.cut), "shard_size": options.shard_size, **plan.made_by}
    unusable = SkipStore()
    tasks = make_tasks(
        plan_units(_noting_skips(plan.sources, unusable), shard_size=options.shard_size),
        paths=plan.paths,
        texts=plan.texts,
        subtitles=plan.subtitles,
        subtitle_encoding=options.subtitle_encoding,
        out=out,
        options=options.cut,
        timeout_seconds=options.video_timeout,
    )
    if options.dry_run:
        require_free_folder(out, made_by)
        counts = count_work(tasks, retry_skipped=options.retry_skipped)
        return StageReport(content={"stage": "shard", "counts": counts}, text=_dry_summary(counts, out))
    with claim_folder(out, made_by):
        marks, clips_now = make_shards(
            tasks,
            out,
            plan.num_clips,
            workers=options.workers or num_cores(),
            ray=RayCluster(options.ray, options.workers) if options.ray else None,
            retry_skipped=options.retry_skipped,
        )
        report = _finish(out, made_by, plan.num_videos, marks, AllSkips(unusable, marks))
        made = report.finish(out, started=started, done_now=clips_now, unit="clips")
    if not made.counts["clips"]:
        raise StageFailed(f"no clip could be stored; {out / SKIPPED_NAME} says why", made)
    return made


@dataclass(frozen=True)
class _Plan:
    """What there is to cut, and what of it a folder is known by besides how it is cut."""

    made_by: Options
    num_videos: int
    num_clips: int
    sources: Iterator[Source]
    paths: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] | None = None
    subtitles: Mapping[str, str] | None = None


def _plan_samples(options: ShardOptions) -> _Plan:
    """The samples of others' shards, whole."""
    given = {"--metadata": options.metadata, "--dataset": options.dataset, "--videos": options.videos}
    given |= {"--subtitles": options.subtitles, "--subtitle-encoding": options.subtitle_encoding}
    if wrong := [name for name, value in given.items() if value is not None]:
        raise WrongOptions(f"--from-shards: has clips and texts of its own; leave {', '.join(wrong)} out")
    _require_thinnable(options)
    for name in options.from_shards:
        require_local("--from-shards", name)
    shards = find_shards(options.from_shards)
    if options.ray:
        connect(options.ray)  # should none answer, nothing is begun
    survey = ForeignSurvey(shards)
    sources = read_foreign_sources(shards, survey)
    return _Plan({"from_shards": identity_of(shards)}, survey.num_clips, survey.num_clips, sources)


def _plan_videos(options: ShardOptions, resources: ExitStack) -> _Plan:
    """The clips that a list asks for, or without one each video."""
    if options.videos is None:
        raise WrongOptions("Missing option '--videos'.")
    dataset = options.dataset
    metadata = None
    if dataset is not None:
        metadata = _annotation_file(options)
    elif options.metadata is not None:
        metadata = _metadata_file(options.metadata, resources)
    else:
        _require_thinnable(options)
    if options.ray:
        connect(options.ray)  # should none answer, nothing is begun
    paths = index_videos(options.videos)
    texts, subtitle_files, identity = _subtitles(options.subtitles)
    wanted = _Wanted(options.metadata, metadata, dataset, paths)
    if dataset is not None:
        paths = with_published_names(dataset, paths)
    if options.subtitle_encoding is not None and subtitle_files is None:
        raise UserError("--subtitle-encoding: goes with a folder of subtitle files; leave it out")
    made_by: Options = {
        "metadata_sha256": wanted.sha256,
        "subtitles": identity,
        **({"dataset": dataset} if dataset is not None else {}),
        **({"subtitle_encoding": options.subtitle_encoding} if options.subtitle_encoding else {}),
    }
    survey, sources = wanted.survey()
    return _Plan(made_by, survey.num_videos, survey.num_clips, sources, paths, texts, subtitle_files)


def _metadata_file(name: str, resources: ExitStack) -> Path:
    """The list of clips on this machine; one in a store is copied for as long as the stage runs."""
    place = parse_location(name)
    if not isinstance(place, Path):
        return Path(resources.enter_context(local_copy(name)))
    if not place.is_file():
        raise UserError(f"{place}: no such metadata file; give a JSONL file of clips to --metadata")
    require_no_set(place)
    return place


def _annotation_file(options: ShardOptions) -> Path:
    """The annotation file of a set, after a look at options that do not go with one."""
    if options.subtitles is not None:
        raise UserError("--subtitles: the texts of a --dataset are its captions; leave --subtitles out")
    assert options.dataset is not None
    if not find_split(options.dataset).cuts:
        _require_thinnable(options)
    if options.metadata is None:
        raise WrongOptions(f"--dataset {options.dataset}: give its file or folder to --annotations")
    given = parse_location(options.metadata)
    if not isinstance(given, Path):
        raise UserError(
            f"{options.metadata}: annotations of a --dataset are read from this machine's disk; copy them"
            " here"
        )
    return find_annotation_file(options.dataset, given)


def _require_thinnable(options: ShardOptions) -> None:
    """UserError: of whole videos too many frames are known at the end, when a video of them is made."""
    if options.max_frames and options.store == "video":
        raise UserError("--max-frames: works on whole videos only with --store frames; leave one of them out")


def _subtitles(name: str | None) -> tuple[Mapping[str, str] | None, Mapping[str, str] | None, str]:
    """Clip id -> text, or video id -> subtitle file; and what to know them by.

    A table is known by its content, a folder, which may be huge, only by being one.
    """
    if not name:
        return None, None, "none"
    place = parse_location(name)
    if not isinstance(place, Path):
        files = index_subtitles(name)
        if not files:  # a mistake, as is a table, which is read from a disk
            hint = "copy a table of clip id and text to this machine's disk"
            raise UserError(f"{name}: holds no subtitle files; {hint}")
        return None, files, "folder"
    if place.is_dir():
        return None, index_subtitles(place), "folder"
    if not place.is_file():
        raise UserError(f"{place}: no such file or folder; give subtitles to --subtitles or leave it out")
    return load_text_table(place), None, sha256_of_file(place)


@dataclass(frozen=True)
class _Wanted:
    """What to cut: the clips of a list, given as `name`, the videos of a set, or of `paths` each video."""

    name: str | None
    metadata: Path | None
    dataset: str | None
    paths: Mapping[str, str]

    @property
    def sha256(self) -> str:
        """What the list is known by: the hash of its file, hashes of its files, or one of all ids."""
        if self.metadata is None:
            return sha256_of_texts(f"{video_id}\n" for video_id in self.paths)
        files = (self.metadata,) if self.dataset is None else files_read(self.dataset, self.metadata)
        hashes = " ".join(map(sha256_of_file, files))
        return hashes if len(files) <= _MOST_FILES_OF_A_LIST else sha256_of_texts([hashes])

    def survey(self) -> tuple[Survey, Iterator[Source]]:
        """The videos and clips, counted, and what reads them. UserError: there are none."""
        if self.metadata is None:
            survey, sources = Survey(whole_videos(self.paths)), whole_videos(self.paths)
        elif self.dataset is None:
            survey = survey_metadata(self.metadata)
            sources = read_sources(self.metadata, survey)
        else:
            survey = survey_annotations(self.dataset, self.metadata)
            sources = read_annotations(self.dataset, self.metadata, survey)
        if not survey.num_clips and not survey.num_skips:
            if self.metadata is None:
                raise UserError("--videos: holds no video files; give a folder of videos")
            wanted = "{'video_id': ..., 'clip': [...]}"
            raise UserError(f"{self.name}: lists no clips; give lines such as {wanted}")
        return survey, sources


def _noting_skips(sources: Iterable[Source], skips: SkipStore) -> Iterator[Source]:
    """Pass sources on, and note what in them cannot be asked for."""
    for source in sources:
        for position, skip in source.skips:
            skips.add(PlacedSkip(source.line, position, skip))
        yield source


def _dry_summary(counts: dict[str, int], out: Location) -> str:
    clips, shards = (counts[name] - counts[f"{name}_done"] for name in ("clips", "shards"))
    into = f"{counted(shards, 'shards')} of {out}"
    text = planned("shard: would cut", clips, counts["clips"], "clips", into)
    missing = counts["videos_without_file"]
    return f"{text}\n  {counted(missing, 'videos')} without a file" if missing else text


def _finish(out: Location, options: Options, num_videos: int, marks: MarkStore, skips: AllSkips) -> Report:
    """Write the manifest, and sum up."""
    counts = dict.fromkeys(("clips", "frames", "shards", "bytes", "clips_without_subtitle"), 0)
    warnings: dict[str, Any] = {"count": 0, "examples": []}

    def records() -> Iterator[ShardRecord]:
        for mark in marks:
            counts["frames"] += mark.num_frames
            counts["clips_without_subtitle"] += mark.num_without_subtitle
            warnings["count"] += len(mark.subtitle_warnings)
            warnings["examples"] += mark.subtitle_warnings[: _MAX_EXAMPLES - len(warnings["examples"])]
            if mark.record is not None:
                counts["clips"] += mark.record.num_samples
                counts["shards"] += 1
                counts["bytes"] += mark.record.num_bytes
                yield mark.record

    write_manifest(out, stage="shard", options=options, shards=records())
    details = {"subtitle_warnings": warnings}
    return Report("shard", options, counts={"videos": num_videos, **counts}, details=details, skips=skips)
