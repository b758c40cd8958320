"""The stage `clipvip-data shard`: videos and a list of clips -> WebDataset shards.

Options, checks and the summary; the work is handed out by `shard_run` and done by `shard_work`.
"""

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from clipvip.media.jpeg import DEFAULT_JPEG_QUALITY
from clipvip.media.mp4 import DEFAULT_CRF
from clipvip.pipeline.runtime.cores import num_cores
from clipvip.pipeline.runtime.errors import StageCommand, UserError
from clipvip.pipeline.runtime.options import dry_run_option, json_option, print_result, workers_option
from clipvip.pipeline.runtime.ray_units import RayCluster, connect, ray_option
from clipvip.pipeline.runtime.report import Report
from clipvip.pipeline.shard.run import count_work, make_shards, make_tasks
from clipvip.shards.building.cutting import CutOptions
from clipvip.shards.building.mark_store import AllSkips, MarkStore, SkipStore
from clipvip.shards.building.marks import PlacedSkip
from clipvip.shards.building.plan import plan_units
from clipvip.shards.files.claims import SKIPPED_NAME, Options, claim_folder, require_free_folder
from clipvip.shards.files.hashes import sha256_of_file
from clipvip.shards.files.stores import Location, local_copy, parse_location
from clipvip.shards.format.manifest import ShardRecord, write_manifest
from clipvip.shards.sources.hdvila import Source, Survey, index_videos, read_sources
from clipvip.shards.sources.subtitles import index_subtitles
from clipvip.shards.sources.text_tables import load_text_table
from clipvip.shards.sources.video_sets import (
    files_read,
    find_annotation_file,
    read_annotations,
    with_published_names,
)

_MAX_EXAMPLES = 5


def _finite(_context: click.Context, option: click.Parameter, value: float) -> float:
    if not math.isfinite(value):
        raise click.BadParameter("give a number", param=option)
    return value


_EPILOG = """\b
Examples:
  clipvip-data shard --metadata clips.jsonl --videos videos/ --subtitles subtitles/ --out clips/
  clipvip-data shard --metadata clips.jsonl --videos s3://bucket/videos --out s3://bucket/clips
  clipvip-data shard --dataset msrvtt/1ka --annotations msrvtt/ --videos videos/ --out shards/msrvtt-1ka
"""


@click.command(cls=StageCommand, epilog=_EPILOG)
@click.option(
    "--metadata",
    "--annotations",
    "metadata_name",
    required=True,
    help="Clips to cut: HD-VILA-100M's JSONL, one video a line; also s3:// and gs://. With --dataset the set's "
    "annotation file, or the folder that has it.",
)
@click.option(
    "--dataset",
    metavar="NAME/SPLIT",
    help="Whole videos with the captions of a published set: msrvtt/train9k, msrvtt/1ka, didemo/test, lsmdc/test1k, "
    "activitynet/val1, webvid/val, ...; or `captions` or `paragraphs`: a .csv or .jsonl of video and text.",
)
@click.option(
    "--videos", required=True, help="Folder of video files, named by video id; also s3:// and gs://."
)
@click.option(
    "--subtitles",
    help="Folder of .vtt, .srt or .json3 files, also s3:// and gs://, or a .jsonl/.parquet of clip id and text.",
)
@click.option(
    "--out",
    "out_folder",
    required=True,
    help="Folder for the shards; also s3:// and gs://.",
)
@workers_option
@click.option(
    "--fps",
    type=click.FloatRange(0, 240, min_open=True),
    default=3.0,
    show_default=True,
    callback=_finite,
    help="Frames kept per second.",
)
@click.option(
    "--size",
    type=click.IntRange(16, 4096),
    default=256,
    show_default=True,
    help="Short side in pixels; never scaled up.",
)
@click.option(
    "--store",
    type=click.Choice(["frames", "video"]),
    default="frames",
    show_default=True,
    help="JPEG frames (fast to load) or H.264 (small).",
)
@click.option(
    "--shard-size", type=click.IntRange(min=1), default=256, show_default=True, help="Most clips in a shard."
)
@click.option(
    "--quality",
    type=click.IntRange(0, 100),
    default=None,
    help=f"JPEG quality, 1 to 100 (default {DEFAULT_JPEG_QUALITY}); with --store video x264's CRF, "
    f"51 to 0 (default {DEFAULT_CRF}).",
)
@click.option(
    "--max-frames",
    type=click.IntRange(min=1),
    show_default="no limit",
    help="Most frames of a clip, spread evenly.",
)
@click.option(
    "--video-timeout",
    type=click.FloatRange(0, min_open=True),
    default=120.0,
    show_default=True,
    callback=_finite,
    help="Give a video up after so many seconds without a new frame.",
)
@click.option(
    "--retry-skipped",
    is_flag=True,
    help="Make those shards again in which a video was missing, unreadable or too slow.",
)
@ray_option
@json_option
@dry_run_option("what there is to do, and what is done already")
def command(
    metadata_name: str,
    videos: str,
    subtitles: str | None,
    out_folder: str,
    workers: int | None,
    video_timeout: float,
    shard_size: int,
    ray_address: str | None,
    dataset: str | None,
    retry_skipped: bool,
    as_json: bool,
    dry_run: bool,
    **cut: Any,
) -> None:
    """Cut videos into clips and write them as WebDataset shards.

    Frames are taken by presentation time while each video is decoded once. Run the same command again after
    an interruption: it makes what is missing, with the same bytes.
    """
    started = time.monotonic()
    out = parse_location(out_folder)
    cut_options = _cut_options(**cut)
    if dataset is not None:
        metadata = _annotation_file(dataset, metadata_name, subtitles, cut_options)
    else:
        metadata = _metadata_file(metadata_name)
    if ray_address:
        connect(ray_address)  # should none answer, nothing is begun
    paths = index_videos(videos)
    texts, subtitle_files, identity = _subtitles(subtitles)
    if dataset is not None:
        files: tuple[Path, ...] = files_read(dataset, metadata)
        paths = with_published_names(dataset, paths)
    else:
        files = (metadata,)
    options: Options = {
        "fps": cut_options.fps,
        "size": cut_options.size,
        "store": cut_options.store,
        "quality": cut_options.quality,
        "max_frames": cut_options.max_frames,
        "shard_size": shard_size,
        "metadata_sha256": " ".join(map(sha256_of_file, files)),
        "subtitles": identity,
        **({"dataset": dataset} if dataset is not None else {}),
    }
    survey, sources = _survey(metadata_name, metadata, dataset)
    unusable = SkipStore()
    tasks = make_tasks(
        plan_units(_noting_skips(sources, unusable), shard_size=shard_size),
        paths=paths,
        texts=texts,
        subtitles=subtitle_files,
        out=out,
        options=cut_options,
        timeout_seconds=video_timeout,
    )
    if dry_run:
        require_free_folder(out, options)
        counts = count_work(tasks, retry_skipped=retry_skipped)
        print_result({"stage": "shard", "counts": counts}, _dry_summary(counts, out), as_json=as_json)
        return
    with claim_folder(out, options):
        marks, clips_now = make_shards(
            tasks,
            out,
            survey.num_clips,
            workers=workers or num_cores(),
            ray=RayCluster(ray_address, workers) if ray_address else None,
            retry_skipped=retry_skipped,
        )
        report = _finish(out, options, survey.num_videos, marks, AllSkips(unusable, marks))
        content = report.write(out, seconds=time.monotonic() - started, done_now=clips_now, unit="clips")
    print_result(content, report.summary(out), as_json=as_json)
    if not report.counts["clips"]:
        raise UserError(f"no clip could be stored; {out / SKIPPED_NAME} says why")


def _cut_options(
    *, fps: float, size: int, store: str, quality: int | None, max_frames: int | None
) -> CutOptions:
    least, most, default = (1, 100, DEFAULT_JPEG_QUALITY) if store == "frames" else (0, 51, DEFAULT_CRF)
    if quality is None:
        quality = default
    if not least <= quality <= most:
        raise UserError(f"--quality {quality}: give {least} to {most} with --store {store}")
    return CutOptions(fps=fps, size=size, store=store, quality=quality, max_frames=max_frames or 0)


def _metadata_file(name: str) -> Path:
    """The list of clips on this machine; one in a store is copied for as long as the command runs."""
    place = parse_location(name)
    if not isinstance(place, Path):
        return Path(click.get_current_context().with_resource(local_copy(name)))
    if not place.is_file():
        raise UserError(f"{place}: no such metadata file; give a JSONL file of clips to --metadata")
    return place


def _annotation_file(dataset: str, name: str, subtitles: str | None, cut: CutOptions) -> Path:
    """The annotation file of a set, after a look at options that do not go with one."""
    if subtitles is not None:
        raise UserError("--subtitles: the texts of a --dataset are its captions; leave --subtitles out")
    if cut.max_frames and cut.store == "video":
        raise UserError("--max-frames: of whole videos it works with --store frames only")
    given = parse_location(name)
    if not isinstance(given, Path):
        raise UserError(
            f"{name}: annotations of a --dataset are read from this machine's disk; copy them here"
        )
    return find_annotation_file(dataset, given)


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
            raise UserError(
                f"{name}: holds no subtitle files; copy a table of clip id and text to this machine's disk"
            )
        return None, files, "folder"
    if place.is_dir():
        return None, index_subtitles(place), "folder"
    if not place.is_file():
        raise UserError(f"{place}: no such file or folder; give subtitles to --subtitles or leave it out")
    return load_text_table(place), None, sha256_of_file(place)


@dataclass
class _Counts:
    """What a list asks for: videos, clips, and what in it cannot be asked for."""

    num_videos: int
    num_clips: int
    num_skips: int


def _survey(name: str, metadata: Path, dataset: str | None) -> tuple[_Counts, Iterator[Source]]:
    """Count a list of clips, and what reads it."""
    if dataset is None:
        survey = Survey(metadata)
        counts = _Counts(survey.num_videos, survey.num_clips, survey.num_skips)
        sources = read_sources(metadata, survey)
    else:
        counts = _Counts(0, 0, 0)
        for source in read_annotations(dataset, metadata):
            counts.num_videos += bool(source.video_id)
            counts.num_clips += len(source.clips)
            counts.num_skips += len(source.skips)
        sources = read_annotations(dataset, metadata)
    if not counts.num_clips and not counts.num_skips:
        raise UserError(f"{name}: lists no clips; want lines of {{'video_id': ..., 'clip': [...]}}")
    return counts, sources


def _noting_skips(sources: Iterable[Source], skips: SkipStore) -> Iterator[Source]:
    """Pass sources on, and note what in them cannot be asked for."""
    for source in sources:
        for position, skip in source.skips:
            skips.add(PlacedSkip(source.line, position, skip))
        yield source


def _dry_summary(counts: dict[str, int], out: Location) -> str:
    return (
        f"shard: would cut {counts['clips'] - counts['clips_done']:,} of {counts['clips']:,} clips into "
        f"{counts['shards'] - counts['shards_done']:,} of {counts['shards']:,} shards -> {out}; the others are done\n"
        f"  {counts['videos_without_file']:,} videos have no file"
    )


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
