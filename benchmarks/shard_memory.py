"""Memory of `clipvip-data shard` on a long video: the most that any of its processes has had.

    python benchmarks/shard_memory.py VIDEO [--hours 2]

VIDEO's packets are repeated, without encoding, until they last so long; all of it is cut into clips of 13 s.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import click

CLIP_SECONDS = 13


def repeat(source: Path, target: Path, seconds: float) -> float:
    """Write `source` again and again to `target`; returns how long it lasts."""
    with av.open(str(source)) as file, av.open(str(target), "w") as out:
        stream: Any = file.streams.video[0]
        copy = out.add_stream_from_template(stream)
        length = stream.duration
        shift = 0
        while float(shift * stream.time_base) < seconds:
            file.seek(0, stream=stream)
            for packet in file.demux(stream):
                if packet.dts is None:
                    continue
                packet.dts += shift
                packet.pts += shift
                packet.stream = copy
                out.mux(packet)
            shift += length
        return float(shift * stream.time_base)


@click.command()
@click.argument("video", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--hours", type=float, default=2.0, show_default=True, help="Length of the long video.")
def main(video: Path, hours: float) -> None:
    """Make the long video, shard it with one worker, and print the peak."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "videos").mkdir()
        seconds = repeat(video, folder / "videos" / "long.mp4", hours * 3600)
        spans = [[n, n + CLIP_SECONDS] for n in range(0, int(seconds) - CLIP_SECONDS, CLIP_SECONDS)]
        clips = [{"clip_id": f"long.{n}.mp4", "span": span} for n, span in enumerate(spans)]
        (folder / "clips.jsonl").write_text(json.dumps({"video_id": "long", "clip": clips}) + "\n")
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        started = time.monotonic()
        command = [str(Path(sys.executable).parent / "clipvip-data"), "shard", "--workers", "1"]
        command += ["--metadata", str(folder / "clips.jsonl"), "--videos", str(folder / "videos")]
        subprocess.run([*command, "--out", str(folder / "out")], check=True)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        assert peak > before
        print(
            f"{seconds / 3600:.2f} hours, {len(clips)} clips, {time.monotonic() - started:.0f} s: "
            f"at most {peak / 1024:.0f} MB in any process"
        )


if __name__ == "__main__":
    main()
