"""Memory and time of `clipvip-data shard` for a list of millions of videos: all but the decoding.

    python benchmarks/metadata_at_scale.py --videos 10000 --videos 100000 --work /tmp/scale

A list like HD-VILA-100M's is made up (100M clips: --videos 3300000), with a table of texts and a folder of
empty files for videos, of which some are gone. The command itself is then run as a process of its own:

start     --dry-run in an empty folder: reads the list, the folder and the table, and plans all units
resume    in a folder of which 99% of the shards are marked done, with made-up marks; the others are made,
          which comes to nothing, as the files are empty
finish    the same command once more, with nothing left to make: all marks are read, and manifest.json,
          skipped.jsonl and report.json written

Peak memory is that of the largest process. Per million videos the work folder takes about 5 GB of disk and
1.1 million files, and it is removed at the end; the command's own temporary files come on top (TMPDIR).
"""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click

from clipvip.shards.building.marks import MarkContent, PlacedSkip, ShardMark, shard_name
from clipvip.shards.building.plan import Unit, plan_units
from clipvip.shards.errors import Skip
from clipvip.shards.files.claims import STATE_FOLDER
from clipvip.shards.format.manifest import ShardRecord
from clipvip.shards.sources.hdvila import read_sources

CLIPS_PER_VIDEO, SIGMA = 30.3, 0.8  # HD-VILA-100M's mean; the spread is assumed
SHARD_BYTES = 16
COMMAND = "from clipvip.pipeline.cli import main; main()"
WORDS = [
    "so",
    "today",
    "we",
    "are",
    "going",
    "to",
    "look",
    "at",
    "how",
    "this",
    "works",
    "and",
    "then",
    "put",
    "it",
    "all",
    "back",
    "together",
]


def make_list(work: Path, num_videos: int, *, gone: float) -> int:
    """The list of clips, the folder of videos of which a part is gone, and the table of texts.

    How many clips.
    """
    chance, num_clips = random.Random(0), 0
    (work / "videos").mkdir(parents=True)
    with (work / "clips.jsonl").open("w") as clips, (work / "texts.jsonl").open("w") as texts:
        for number in range(num_videos):
            video = f"{number * 2654435761 % 2**44:011x}"
            count = max(1, round(CLIPS_PER_VIDEO * chance.lognormvariate(-SIGMA * SIGMA / 2, SIGMA)))
            num_clips += count
            entries = []
            for clip in range(count):
                name, start = f"{video}.{clip}.mp4", 13 * clip
                entries.append({"clip_id": name, "span": [_clock(start), _clock(start + 12)]})
                texts.write(json.dumps({"clip_id": name, "text": " ".join(chance.sample(WORDS, 8))}) + "\n")
            url = f"https://www.youtube.com/watch?v={video}"
            clips.write(json.dumps({"video_id": video, "url": url, "clip": entries}) + "\n")
            if chance.random() >= gone:
                os.close(os.open(work / "videos" / f"{video}.mp4", os.O_CREAT | os.O_WRONLY))
    return num_clips


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.500"


def make_marks(work: Path, out: Path, *, part: float) -> None:
    """Mark a part of the shards done, as if the clips of videos that are gone had been skipped.

    Nothing is flushed.
    """
    chance = random.Random(1)
    for unit in plan_units(read_sources(work / "clips.jsonl"), shard_size=256):
        if chance.random() < part:
            for mark in _marks(unit, work / "videos"):
                (out / STATE_FOLDER / f"{mark.shard:06d}.json").write_text(
                    MarkContent.of(mark).model_dump_json()
                )
                if mark.record is not None:
                    (out / mark.record.name).write_bytes(bytes(SHARD_BYTES))


def _marks(unit: Unit, videos: Path) -> Iterator[ShardMark]:
    marks = [ShardMark(unit.first_shard + number) for number in range(unit.num_shards)]
    index = 0
    for source in unit.sources:
        is_gone = not (videos / f"{source.video_id}.mp4").exists()
        for position, clip in zip(source.positions, source.clips, strict=True):
            mark = marks[unit.shard_of(index) - unit.first_shard]
            index += 1
            if is_gone:
                skip = Skip("missing_video", clip.clip_id, f"no file for video {source.video_id}")
                mark.skips.append(PlacedSkip(source.line, position, skip))
            else:
                mark.num_frames += 36
    for mark in marks:
        if mark.num_frames:
            mark.record = ShardRecord(shard_name(mark.shard), mark.num_frames // 36, SHARD_BYTES, 64 * "0")
        yield mark


def run(work: Path, out: Path, *options: str) -> tuple[float, float, float]:
    """Run the command.

    Seconds of the clock, of the processor, and the peak memory of its largest process in MB.
    """
    arguments = ["--metadata", work / "clips.jsonl", "--videos", work / "videos", "--out", out]
    if (work / "texts.jsonl").exists():
        arguments += ["--subtitles", work / "texts.jsonl"]
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "shard", *map(str, arguments), *options],
        stdout=subprocess.DEVNULL,
        stderr=(work / "log.txt").open("a"),
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the command failed: {(work / 'log.txt').read_text()[-500:]}")
    return time.monotonic() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def measure(work: Path, num_videos: int, *, gone: float, texts: bool) -> None:
    """Print a row of the table for each of start, resume and finish."""
    num_clips = make_list(work, num_videos, gone=gone)
    if not texts:
        (work / "texts.jsonl").unlink()
    out = work / "out"

    def row(name: str, *options: str) -> None:
        seconds, core_seconds, megabytes = run(work, out, *options)
        cells = (
            f"{seconds:,.0f} | {core_seconds:,.0f} | {1e6 * core_seconds / num_clips:.1f} | {megabytes:,.0f}"
        )
        click.echo(f"| {num_videos:,} | {num_clips:,} | {name} | {cells} |")

    row("start", "--dry-run")
    (out / STATE_FOLDER).mkdir(parents=True)
    make_marks(work, out, part=0.99)
    row("resume")
    row("finish")
    report = json.loads((out / "report.json").read_text())
    if report["counts"]["clips"] + report["skipped"] != num_clips:
        raise SystemExit(f"clips were lost: {report['counts']}, {report['skipped']} skipped of {num_clips}")


@click.command(help=__doc__)
@click.option("--videos", type=click.IntRange(min=1), multiple=True, default=(10_000,), show_default=True)
@click.option(
    "--work", type=click.Path(path_type=Path), required=True, help="A folder that is made and removed."
)
@click.option("--gone", type=click.FloatRange(0, 1), default=0.2, show_default=True,
              help="Part of the videos that have no file.")  # fmt: skip
@click.option("--no-texts", is_flag=True, help="Without a table of texts.")
def main(videos: tuple[int, ...], work: Path, gone: float, no_texts: bool) -> None:
    click.echo("| videos | clips | | s | core s | core µs a clip | peak MB |\n|---|---|---|---|---|---|---|")
    for num_videos in videos:
        try:
            measure(work, num_videos, gone=gone, texts=not no_texts)
        finally:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
