"""`clipvip-data shard` against video2dataset: the same local 720p videos, the same cores, the same job.

    python3.11 -m venv /path/peer
    /path/peer/bin/pip install video2dataset==1.3.0 'pyarrow<17' imageio-ffmpeg
    python benchmarks/shard_vs_video2dataset.py --peer /path/peer/bin/python --sources /path/of/a/folder

The job: cut every 13 s of each video out, scaled to a short side of 256 pixels, as a WebDataset.
video2dataset cuts exactly (its `precision: exact`) and scales each cut, as H.264; ours stores JPEGs at 3
frames a second, and with `--store video` H.264. It needs Python 3.11 or older and PyTorch 2.1, so an
environment of its own, whose FFmpeg it gets by imageio-ffmpeg. All are commands of their own, take turns, and
their start counts. On a busy machine compare processor time: ffmpeg's many threads get more of its cores than
one process each. Sources are made where `--sources` has none (a minute each on one core).
"""

import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import click
from shard_sources import CLIP_SECONDS, make_sources, write_clips
from shard_vs_limit import run_timed

_PEER = """
import sys
from video2dataset import video2dataset
from video2dataset.subsamplers import ResolutionSubsampler
# Release 1.3.0 reads this after scaling and sets it nowhere; in every process, so not below.
ResolutionSubsampler.encode_formats = {"video": "mp4"}
if __name__ == "__main__":
    table, out, config = sys.argv[1:]
    video2dataset(url_list=table, output_folder=out, output_format="webdataset", input_format="parquet",
                  encode_formats={"video": "mp4"}, url_col="url", clip_col="clips", config=config)
"""
_TABLE = """
import json, sys
import pandas
pandas.DataFrame(json.load(sys.stdin)).to_parquet(sys.argv[1])
"""


def peer_config(processes: int, precision: str) -> dict[str, object]:
    """One video a shard, so that all processes have work."""
    clipping = {"precision": precision}
    scaling = {"resize_mode": "scale", "height": 256, "encode_format": "mp4"}
    return {
        "subsampling": {
            "ClippingSubsampler": {"args": clipping},
            "ResolutionSubsampler": {"args": scaling},
        },
        "reading": {
            "yt_args": {"download_size": 720, "download_audio_rate": 44100, "yt_metadata_args": None},
            "timeout": 60,
            "sampler": None,
        },
        "storage": {"number_sample_per_shard": 1, "oom_shard_count": 5, "captions_are_subtitles": False},
        "distribution": {
            "processes_count": processes,
            "thread_count": 1,
            "subjob_size": 1000,
            "distributor": "multiprocessing",
        },
    }


def prepare_peer(work: Path, python: Path, sources: list[Path], seconds: float, processes: int) -> None:
    """Its table of videos and clips, its settings, and an `ffmpeg` on the path."""
    starts = [n * CLIP_SECONDS for n in range(int(seconds // CLIP_SECONDS))]
    clips = [[start, start + CLIP_SECONDS] for start in starts]
    rows = [{"url": os.fspath(path), "clips": clips} for path in sources]
    command = [python, "-c", _TABLE, work / "peer.parquet"]
    subprocess.run(command, check=True, input=json.dumps(rows), text=True)
    for precision in ("exact", "low"):
        (work / f"{precision}.yaml").write_text(json.dumps(peer_config(processes, precision)))
    (work / "peer.py").write_text(_PEER)
    find = "import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())"
    binary = subprocess.run([python, "-c", find], check=True, capture_output=True, text=True).stdout.strip()
    (work / "bin").mkdir()
    (work / "bin/ffmpeg").symlink_to(binary)
    os.environ["PATH"] = f"{work / 'bin'}{os.pathsep}{os.environ['PATH']}"


def count_clips(out: Path) -> tuple[int, int]:
    """Clips with pixels in a folder of tars, and the bytes of the tars."""
    num_clips = num_bytes = 0
    for path in sorted(out.rglob("*.tar")):
        with tarfile.open(path) as tar:
            num_clips += sum(name.endswith((".mp4", ".mjpg")) for name in tar.getnames())
        num_bytes += path.stat().st_size
    return num_clips, num_bytes


@click.command(help=__doc__)
@click.option("--peer", "python", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--sources", "folder", required=True, type=click.Path(path_type=Path))
@click.option("--count", default=4, show_default=True)
@click.option("--seconds", default=130.0, show_default=True, help="Length of each source.")
@click.option("--processes", default=4, show_default=True)
@click.option("--rounds", default=2, show_default=True)
def main(python: Path, folder: Path, count: int, seconds: float, processes: int, rounds: int) -> None:
    sources = [
        path.resolve() for path in make_sources(folder, count=count, seconds=seconds, processes=processes)
    ]
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        prepare_peer(work, python.absolute(), sources, seconds, processes)
        num_clips = write_clips(work / "clips.jsonl", [(path.stem, seconds) for path in sources])
        shard = [sys.executable, "-c", "from clipvip.pipeline.cli import main; main()", "shard"]
        shard += ["--metadata", str(work / "clips.jsonl"), "--videos", str(folder)]
        shard += ["--shard-size", "8", "--workers", str(processes)]
        peer = [str(python.absolute()), str(work / "peer.py"), str(work / "peer.parquet")]
        ways = {
            "video2dataset, exact": lambda out: [*peer, out, str(work / "exact.yaml")],
            "video2dataset, inexact": lambda out: [*peer, out, str(work / "low.yaml")],
            "shard --store frames": lambda out: [*shard, "--out", out],
            "shard --store video": lambda out: [*shard, "--store", "video", "--out", out],
        }
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        stored = {}
        for number in range(rounds):
            for name, command in ways.items():
                out = work / f"{number} {name}"
                taken[name].append(run_timed(command(str(out))))
                stored[name] = count_clips(out)
        report(taken, stored, num_clips)


def report(
    taken: dict[str, list[tuple[float, float]]], stored: dict[str, tuple[int, int]], num_clips: int
) -> None:
    print(
        f"{num_clips} clips; load of the machine before and now: {os.getloadavg()[2]:.1f}, "
        f"{os.getloadavg()[0]:.1f}"
    )
    print(
        f"{'':24}{'stored':>8}{'KB/clip':>9}{'clips/s':>9}{'CPU s/clip':>12}"
        f"{'times the exact peer':>22}{'by CPU':>8}"
    )
    first, first_cpu = map(statistics.median, zip(*next(iter(taken.values())), strict=True))
    for name, rounds in taken.items():
        wall, cpu = (statistics.median(column) for column in zip(*rounds, strict=True))
        clips, num_bytes = stored[name]
        size = num_bytes / max(clips, 1) / 1000
        print(
            f"{name:24}{clips:8}{size:9.0f}{num_clips / wall:9.2f}{cpu / num_clips:12.3f}{first / wall:22.1f}"
            f"{first_cpu / cpu:8.1f}"
        )


if __name__ == "__main__":
    main()
