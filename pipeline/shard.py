"""The stage `clipvip-data shard`: videos and a list of clips -> WebDataset shards.

Options, checks and the summary; the work is handed out by `shard_run` and done by `shard_work`.
"""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click

from clipvip.pipeline.runtime.cores import num_cores
from clipvip.pipeline.runtime.errors import StageCommand, UserError
from clipvip.pipeline.runtime.options import dry_run_option, json_option, print_result, workers_option
from clipvip.pipeline.runtime.ray_units import RayCluster, connect, ray_option
from clipvip.pipeline.runtime.report import SKIPPED_NAME, Report
from clipvip.pipeline.shard_run import count_work, make_shards, make_tasks
from clipvip.shards.annotations import (
    files_read,
    find_annotation_file,
    read_annotations,
    with_published_names,
)
from clipvip.shards.cutting import CutOptions
from clipvip.shards.frames import DEFAULT_JPEG_QUALITY
from clipvip.shards.manifest import write_manifest
from clipvip.shards.mp4 import DEFAULT_CRF
from clipvip.shards.object_store import Location, local_copy, parse_location
from clipvip.shards.plan import plan_units
from clipvip.shards.shard_state import PlacedSkip, ShardMark, claim_folder, require_free_folder
from clipvip.shards.sources import Source, index_videos, read_sources
from clipvip.shards.subtitles import index_subtitle_urls, load_text_table
from clipvip.shards.writer import sha256_of_file


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
    read = partial(read_sources, metadata)
    files: tuple[Path, ...] = (metadata,)
    if dataset is not None:
        files = files_read(dataset, metadata)
        read = partial(read_annotations, dataset, metadata)
        paths = with_published_names(dataset, paths)
    subtitle_place = parse_location(subtitles) if subtitles else None
    subtitle_path = subtitle_place if isinstance(subtitle_place, Path) else None
    subtitle_urls = None if subtitle_place is subtitle_path else _subtitle_urls(str(subtitles))
    texts = _load_texts(subtitle_path)
    options = {
        "fps": cut_options.fps,
        "size": cut_options.size,
        "store": cut_options.store,
        "quality": cut_options.quality,
        "max_frames": cut_options.max_frames,
        "shard_size": shard_size,
        "metadata_sha256": " ".join(map(sha256_of_file, files)),
        "subtitles": "folder" if subtitle_urls is not None else _identity(subtitle_path),
        **({"dataset": dataset} if dataset is not None else {}),
    }
    survey = _survey(metadata_name, read())
    tasks = make_tasks(
        plan_units(read(), shard_size=shard_size),
        paths=paths,
        texts=texts,
        subtitle_urls=subtitle_urls,
        out=out,
        options=cut_options,
        subtitle_folder=subtitle_path if texts is None else None,
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
        report = _finish(out, options, survey, marks)
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


def _subtitle_urls(folder: str) -> dict[str, str]:
    """Video id -> URL of its subtitles; no subtitle at all is a mistake, as is a table, which is read from a disk."""
    urls = index_subtitle_urls(folder)
    if not urls:
        raise UserError(
            f"{folder}: holds no subtitle files; copy a table of clip id and text to this machine's disk"
        )
    return urls


def _load_texts(subtitles: Path | None) -> dict[str, str] | None:
    """Clip id -> text where `subtitles` is a table; None where it is a folder or nothing."""
    if subtitles is None or subtitles.is_dir():
        return None
    if not subtitles.is_file():
        raise UserError(f"{subtitles}: no such file or folder; give subtitles to --subtitles or leave it out")
    return load_text_table(subtitles)


def _identity(subtitles: Path | None) -> str:
    """What to know subtitles by: a table by its content, a folder, which may be huge, only by being one."""
    if subtitles is None:
        return "none"
    return "folder" if subtitles.is_dir() else sha256_of_file(subtitles)


@dataclass
class _Survey:
    """What the metadata asks for, and what in it cannot be asked for."""

    num_videos: int = 0
    num_clips: int = 0
    skips: list[PlacedSkip] = field(default_factory=list)


def _survey(metadata_name: str, sources: Iterable[Source]) -> _Survey:
    survey = _Survey()
    for source in sources:
        survey.num_videos += bool(source.video_id)
        survey.num_clips += len(source.clips)
        survey.skips += [PlacedSkip(source.line, position, skip) for position, skip in source.skips]
    if not survey.num_clips and not survey.skips:
        raise UserError(f"{metadata_name}: lists no clips; want lines of {{'video_id': ..., 'clip': [...]}}")
    return survey


def _dry_summary(counts: dict[str, int], out: Location) -> str:
    return (
        f"shard: would cut {counts['clips'] - counts['clips_done']:,} of {counts['clips']:,} clips into "
        f"{counts['shards'] - counts['shards_done']:,} of {counts['shards']:,} shards -> {out}; the others are done\n"
        f"  {counts['videos_without_file']:,} videos have no file"
    )


def _finish(out: Location, options: dict[str, Any], survey: _Survey, marks: dict[int, ShardMark]) -> Report:
    """Write the manifest, and sum up."""
    in_order = [marks[shard] for shard in sorted(marks)]
    records = [mark.record for mark in in_order if mark.record is not None]
    write_manifest(out, stage="shard", options=options, shards=records)
    placed = survey.skips + [skip for mark in in_order for skip in mark.skips]
    placed.sort(key=lambda skip: (skip.line, skip.position))
    warnings = [warning for mark in in_order for warning in mark.subtitle_warnings]
    return Report(
        stage="shard",
        options=options,
        counts={
            "videos": survey.num_videos,
            "clips": sum(record.num_samples for record in records),
            "frames": sum(mark.num_frames for mark in in_order),
            "shards": len(records),
            "bytes": sum(record.num_bytes for record in records),
            "clips_without_subtitle": sum(mark.num_without_subtitle for mark in in_order),
        },
        details={"subtitle_warnings": {"count": len(warnings), "examples": warnings[:5]}},
        skips=[skip.skip for skip in placed],
    )
