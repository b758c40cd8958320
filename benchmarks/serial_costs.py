"""What the stages do on one core however many machines there are: microseconds a video or text, of processor
time.

    python benchmarks/serial_costs.py [--videos 20000] [--rounds 3]

`shard` reads its metadata, plans shards and lists the videos; `nmi` reads all texts of a corpus. Metadata and
shards are made up: 30 clips a video, as in HD-VILA-100M, and pixels of nothing, which are passed over.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from clipvip.shards.building.plan import plan_units
from clipvip.shards.format.captions import write_captions
from clipvip.shards.format.clip import Clip, StoredClip
from clipvip.shards.sources.hdvila import index_videos, read_sources, survey_metadata
from clipvip.shards.sources.texts import read_texts
from clipvip.shards.tar.writer import write_shard

_CLIPS, _PIXEL_BYTES = 30, 60_000


def make_metadata(path: Path, num_videos: int) -> None:
    with path.open("w") as file:
        for number in range(num_videos):
            name = f"{number:011x}"
            clips = [
                {"clip_id": f"{name}.{n}.mp4", "span": [f"00:00:{n:02d}.500", f"00:01:{n:02d}.250"]}
                for n in range(_CLIPS)
            ]
            url = f"https://www.youtube.com/watch?v={name}"
            file.write(json.dumps({"video_id": name, "url": url, "clip": clips}) + "\n")


def stored_clips(count: int) -> Iterator[StoredClip]:
    for number in range(count):
        clip = Clip(f"v_{number:05d}", "v", f"v.{number}.mp4", number, number + 13)
        yield StoredClip.of(
            clip,
            subtitle="about twenty words that somebody said while this clip was shown, or so it is said of "
            "it",
            pixels=bytes(_PIXEL_BYTES),
            frame_seconds=(0.0,),
            frame_bytes=[_PIXEL_BYTES],
            width=455,
            height=256,
            source_width=640,
            source_height=360,
            source_fps=30.0,
        )


def microseconds(rounds: int, count: int, work: Callable[[], object]) -> float:
    """The least of the rounds, for each of `count`."""
    taken = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return min(taken) / count * 1e6


@click.command(help=__doc__)
@click.option("--videos", "num_videos", type=click.IntRange(min=1), default=20_000, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
def main(num_videos: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        metadata, videos, shards, captions = (
            folder / name for name in ("m.jsonl", "videos", "shards", "captions")
        )
        for new in (videos, shards, captions):
            new.mkdir()
        make_metadata(metadata, num_videos)
        for number in range(num_videos):
            (videos / f"{number:011x}.mp4").touch()
        num_texts = 1024
        write_shard(shards / "000000.tar", stored_clips(num_texts))
        rows = [(f"v_{n:05d}", "a person rides a horse along the beach") for n in range(16 * num_texts)]
        write_captions(captions / "000000.parquet", rows)
        survey = survey_metadata(metadata)
        results = {
            "survey a video's line": (num_videos, lambda: survey_metadata(metadata)),
            "read it again": (num_videos, lambda: sum(1 for _ in read_sources(metadata, survey))),
            "read it and plan shards": (
                num_videos,
                lambda: sum(1 for _ in plan_units(read_sources(metadata, survey), shard_size=256)),
            ),
            "list a video": (num_videos, lambda: index_videos(videos)),
            "read a text in shards": (num_texts, lambda: sum(1 for _ in read_texts(shards))),
            "read a caption": (len(rows), lambda: sum(1 for _ in read_texts(captions))),
        }
        for name, (count, work) in results.items():
            print(f"{name:26}{microseconds(rounds, count, work):8.1f} µs")


if __name__ == "__main__":
    main()
