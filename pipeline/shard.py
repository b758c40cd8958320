"""The stage `clipvip-data shard`: videos and a list of clips -> WebDataset shards.

The work is done by processes that run `shard_work`; this file decides what they do, and sums up.
"""

import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click

from clipvip.pipeline.runtime.errors import StageCommand, UserError
from clipvip.pipeline.runtime.progress import Progress
from clipvip.pipeline.runtime.report import SKIPPED_NAME, Report
from clipvip.pipeline.runtime.workers import Outcome, run_units
from clipvip.pipeline.shard_work import ShardTask, make_unit
from clipvip.shards.cutting import CutOptions
from clipvip.shards.frames import DEFAULT_JPEG_QUALITY
from clipvip.shards.manifest import write_manifest
from clipvip.shards.mp4 import DEFAULT_CRF
from clipvip.shards.plan import Unit, plan_units
from clipvip.shards.shard_state import (
    PlacedSkip,
    ShardMark,
    add_blame,
    claim_folder,
    read_blame,
    read_mark,
    take_note,
)
from clipvip.shards.sources import Source, index_videos, read_sources
from clipvip.shards.subtitles import load_text_table
from clipvip.shards.writer import sha256_of_file

_BLAME_REASONS = {"crashed": "decoder_crashed", "timeout": "timeout"}


def _finite(_context: click.Context, option: click.Parameter, value: float) -> float:
    if not math.isfinite(value):
        raise click.BadParameter("give a number", param=option)
    return value


@click.command(cls=StageCommand)
@click.option(
    "--metadata", required=True, type=Path, help="Clips to cut: HD-VILA-100M's JSONL, one video a line."
)
@click.option("--videos", required=True, type=Path, help="Folder of video files, named by video id.")
@click.option(
    "--subtitles",
    type=Path,
    help="Folder of .vtt, .srt or .json3 files, or a .jsonl/.parquet of clip id and text.",
)
@click.option("--out", required=True, type=Path, help="Folder for the shards.")
@click.option("--workers", type=click.IntRange(min=1), default=None, help="Processes; default: one per core.")
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
    help=f"JPEG quality, 1 to 100, default {DEFAULT_JPEG_QUALITY}; for --store video x264's CRF, 0 to 51 (best first), default {DEFAULT_CRF}.",
)
@click.option(
    "--max-frames",
    type=click.IntRange(min=1),
    default=None,
    help="Most frames of a clip, spread evenly; default: no limit.",
)
@click.option(
    "--video-timeout",
    type=click.FloatRange(0, min_open=True),
    default=120.0,
    show_default=True,
    callback=_finite,
    help="Give a video up after so many seconds without a new frame.",
)
def command(
    metadata: Path,
    videos: Path,
    subtitles: Path | None,
    out: Path,
    workers: int | None,
    video_timeout: float,
    shard_size: int,
    **cut: Any,
) -> None:
    """Cut videos into clips and write them as WebDataset shards.

    Frames are taken by presentation time while each video is decoded once. Run the same command again after
    an interruption: it makes what is missing, with the same bytes.
    """
    started = time.monotonic()
    cut_options = _cut_options(**cut)
    if not metadata.is_file():
        raise UserError(f"{metadata}: no such metadata file; give a JSONL file of clips to --metadata")
    paths = index_videos(videos)
    texts = _load_texts(subtitles)
    options = {
        "fps": cut_options.fps,
        "size": cut_options.size,
        "store": cut_options.store,
        "quality": cut_options.quality,
        "max_frames": cut_options.max_frames,
        "shard_size": shard_size,
        "metadata_sha256": sha256_of_file(metadata),
        "subtitles": "none"
        if subtitles is None
        else "folder"
        if texts is None
        else sha256_of_file(subtitles),
    }
    survey = _survey(metadata)
    with claim_folder(out, options):
        to_task = partial(
            _task,
            out=out,
            options=cut_options,
            paths=paths,
            subtitle_folder=subtitles if texts is None else None,
            texts=texts,
            timeout_seconds=video_timeout,
        )
        units = plan_units(read_sources(metadata), shard_size=shard_size)
        marks, clips_now = _make_shards(
            map(to_task, units), survey.num_clips, workers=workers or _num_cores()
        )
        report = _finish(out, options, survey, marks)
        report.write(out, seconds=time.monotonic() - started, done_now=clips_now, unit="clips")
    click.echo(report.summary(out))
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


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _load_texts(subtitles: Path | None) -> dict[str, str] | None:
    """Clip id -> text where `subtitles` is a table; None where it is a folder or nothing."""
    if subtitles is None or subtitles.is_dir():
        return None
    if not subtitles.is_file():
        raise UserError(f"{subtitles}: no such file or folder; give subtitles to --subtitles or leave it out")
    return load_text_table(subtitles)


@dataclass
class _Survey:
    """What the metadata asks for, and what in it cannot be asked for."""

    num_videos: int = 0
    num_clips: int = 0
    skips: list[PlacedSkip] = field(default_factory=list)


def _survey(metadata: Path) -> _Survey:
    survey = _Survey()
    for source in read_sources(metadata):
        survey.num_videos += 1
        survey.num_clips += len(source.clips)
        survey.skips += [PlacedSkip(source.line, position, skip) for position, skip in source.skips]
    if not survey.num_clips and not survey.skips:
        raise UserError(f"{metadata}: lists no clips; want lines of {{'video_id': ..., 'clip': [...]}}")
    return survey


def _task(
    unit: Unit, *, paths: Mapping[str, str], texts: Mapping[str, str] | None, **common: Any
) -> ShardTask:
    def text_of(source: Source) -> tuple[str, ...]:
        assert texts is not None
        return tuple(texts.get(clip.clip_id) or texts.get(clip.key, "") for clip in source.clips)

    return ShardTask(
        unit=unit,
        paths=tuple(paths.get(source.video_id) for source in unit.sources),
        texts=None if texts is None else tuple(map(text_of, unit.sources)),
        **common,
    )


def _make_shards(
    tasks: Iterable[ShardTask], num_clips: int, *, workers: int
) -> tuple[dict[int, ShardMark], int]:
    """Make every shard that is not there yet; the marks of all by shard, and the clips tried in this run."""
    marks: dict[int, ShardMark] = {}
    num_skipped = num_tried = 0
    with Progress("shard", total=num_clips, unit="clip") as progress:

        def keep(task: ShardTask, made: list[ShardMark], *, tried: bool) -> None:
            nonlocal num_skipped, num_tried
            marks.update((mark.shard, mark) for mark in made)
            num_skipped += sum(len(mark.skips) for mark in made)
            num_tried += task.unit.num_clips * tried
            progress.add(task.unit.num_clips, skipped=num_skipped)

        def missing() -> Iterator[ShardTask]:
            for task in tasks:
                found = _marks_of(task)
                if found is None:
                    yield task
                else:
                    keep(task, found, tried=False)

        waiting: Iterable[ShardTask] = missing()
        while waiting:
            again = []
            for outcome in run_units(make_unit, waiting, workers=workers):
                if outcome.result is not None:
                    keep(outcome.unit, outcome.result, tried=True)
                else:
                    progress.note(_blame(outcome))
                    again.append(outcome.unit)
            waiting = again
    return marks, num_tried


def _marks_of(task: ShardTask) -> list[ShardMark] | None:
    """The marks of a unit that is done, else None."""
    unit = task.unit
    marks = [read_mark(task.out, unit.first_shard + number) for number in range(unit.num_shards)]
    return [mark for mark in marks if mark is not None] if all(marks) else None


def _blame(outcome: Outcome[ShardTask, list[ShardMark]]) -> str:
    """Put a dead worker down to the video that it had open, so that the unit can be made without it."""
    task, failure = outcome.unit, outcome.failure
    assert failure is not None
    first_shard = task.unit.first_shard
    line = take_note(task.out, first_shard)
    if line is None or line in read_blame(task.out, first_shard):
        raise UserError(f"shard {first_shard:06d}: {failure.detail}, and no video is to blame; run it again")
    add_blame(task.out, first_shard, line, _BLAME_REASONS[failure.reason])
    return f"video of metadata line {line}: {failure.detail}; going on without it"


def _finish(out: Path, options: dict[str, Any], survey: _Survey, marks: dict[int, ShardMark]) -> Report:
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
