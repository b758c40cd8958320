"""How near `clipvip-data shard` comes to the limit: decoding and scaling the same videos, and nothing else.

    python benchmarks/shard_vs_limit.py VIDEOS [--processes 2] [--rounds 3] [--copies 8] [--store ...]

The folder's videos, linked `--copies` times, are cut into clips of 13 s end to end. The limit is plain PyAV:
every frame decoded, three a second scaled to a short side of 256 pixels, none compressed or written, in as
many processes. Both are commands of their own and take turns; the table gives the median over the rounds. CPU
time is that of all processes, and includes their start.
"""

import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import click
from av.video.reformatter import VideoReformatter

from clipvip.media.container import ANY_TAGS
from clipvip.media.decode import open_video
from clipvip.media.errors import MediaError
from clipvip.shards.sources.hdvila import index_videos

CLIP_SECONDS = 13.0
FPS, SHORT_SIDE = 3.0, 256


def readable_seconds(path: str) -> float:
    """How long a video is by decoding it; 0 where it cannot be read to its end."""
    try:
        with open_video(path, size=SHORT_SIDE) as video:
            for _ in video.frames():
                pass
            return 0.0 if video.damage else video.end_seconds
    except MediaError:
        return 0.0


def decode_and_scale(path: str) -> int:
    """The limit for one video; returns how many pictures were scaled."""
    num_scaled, next_seconds, reformatter = 0, 0.0, VideoReformatter()
    with av.open(path, **ANY_TAGS) as container:
        stream = container.streams.best("video")
        assert stream is not None
        stream.codec_context.thread_type = "NONE"
        for frame in container.decode(stream):
            if frame.time is not None and frame.time >= next_seconds:
                scale = min(1.0, SHORT_SIDE / min(frame.width, frame.height))
                size = (round(frame.width * scale / 2) * 2, round(frame.height * scale / 2) * 2)
                reformatter.reformat(frame, *size, format="yuvj420p", interpolation="BICUBIC", threads=1)
                num_scaled, next_seconds = num_scaled + 1, next_seconds + 1 / FPS
    return num_scaled


def make_workload(videos: Path, folder: Path, copies: int) -> int:
    """Link the videos that can be read `copies` times into `folder`, with metadata; the number of clips."""
    lines, num_clips = [], 0
    for video_id, path in index_videos(videos).items():
        seconds = readable_seconds(path)
        if seconds <= 0:
            continue
        starts = [n * CLIP_SECONDS for n in range(max(1, int(seconds // CLIP_SECONDS)))]
        ends = [min(start + CLIP_SECONDS, seconds) for start in starts[:-1]] + [seconds]
        for copy in range(copies):
            name = f"{video_id}-{copy}"
            (folder / f"{name}{Path(path).suffix}").symlink_to(Path(path).resolve())
            clips = [
                {"clip_id": f"{name}.{n}.mp4", "span": span}
                for n, span in enumerate(zip(starts, ends, strict=True))
            ]
            lines.append(json.dumps({"video_id": name, "clip": clips}))
            num_clips += len(clips)
    (folder / "clips.jsonl").write_text("\n".join(lines) + "\n")
    return num_clips


def run_timed(command: list[str]) -> tuple[float, float]:
    """Wall-clock and CPU seconds of a command with all its processes."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def run_limit(folder: Path, processes: int) -> None:
    paths = sorted(index_videos(folder).values())
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        sum(pool.imap_unordered(decode_and_scale, paths, chunksize=1))


@click.command(help=__doc__)
@click.argument("videos", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--processes", default=2, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--copies", default=8, show_default=True)
@click.option("--shard-size", default=16, show_default=True, help="Small, so that the work is spread evenly.")
@click.option("--store", type=click.Choice(["frames", "video"]), default="frames", show_default=True)
@click.option("--only-limit", is_flag=True, hidden=True)
def main(
    videos: Path, processes: int, rounds: int, copies: int, shard_size: int, store: str, only_limit: bool
) -> None:
    if only_limit:
        run_limit(videos, processes)
        return
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary, "videos")
        work.mkdir()
        num_clips = make_workload(videos, work, copies)
        python, here = sys.executable, os.fspath(Path(__file__).resolve())
        limit = [python, here, str(work), "--only-limit", "--processes", str(processes)]
        shard = [python, "-c", "from clipvip.pipeline.cli import main; main()", "shard"]
        shard += ["--metadata", str(work / "clips.jsonl"), "--videos", str(work), "--store", store]
        shard += ["--shard-size", str(shard_size), "--workers", str(processes)]
        taken: dict[str, list[tuple[float, float]]] = {"limit": [], "shard": []}
        for number in range(rounds):
            taken["limit"].append(run_timed(limit))
            taken["shard"].append(run_timed([*shard, "--out", str(Path(temporary, f"out{number}"))]))
        report(taken, num_clips, Path(temporary, "out0"))


def report(taken: dict[str, list[tuple[float, float]]], num_clips: int, out: Path) -> None:
    counts = json.loads((out / "report.json").read_text())["counts"]
    print(
        f"{num_clips} clips, {counts['clips']} stored, "
        f"{counts['bytes'] / counts['clips'] / 1000:.0f} KB per clip"
    )
    print(f"{'':8}{'clips/s':>10}{'CPU s/clip':>12}")
    rates = {}
    for name, rounds in taken.items():
        wall, cpu = (statistics.median(column) for column in zip(*rounds, strict=True))
        rates[name] = (num_clips / wall, cpu / num_clips)
        print(f"{name:8}{rates[name][0]:10.2f}{rates[name][1]:12.4f}")
    speed, cost = (rates["shard"][n] / rates["limit"][n] for n in (0, 1))
    print(f"shard runs at {speed:.2f} of the limit's speed and uses {cost:.2f} of its CPU time")


if __name__ == "__main__":
    main()
