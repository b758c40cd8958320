"""How fast one core turns stored clips into batches: our loader, plain webdataset with decord, bare decoding.

    OMP_NUM_THREADS=1 python benchmarks/loader.py VIDEO... [--clips 16] [--rounds 5]

From each video it takes clips of 13 seconds and stores the same pictures twice: as shards of `clipvip-data
shard` make them (3 frames a second, 256 pixels short side, JPEG), and as 720p H.264 files in a plain
WebDataset. The ways then take turns, and the table gives the median over the rounds. Ours runs in a loading
process as in training, and so does webdataset with our `decode_clip`; what is measured is that process's
processor time.
"""

import io
import itertools
import json
import multiprocessing
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import click
import decord
import numpy as np
import simplejpeg
import torch
import webdataset as wds
from torch.utils.data import DataLoader

from clipvip.media.jpeg import encode_jpeg
from clipvip.media.sampling import uniform_indices
from clipvip.pipeline.loading.pixels import PixelsWriter
from clipvip.pipeline.train.batches import ChunkDataset, plan_batches
from clipvip.pipeline.train.loading import load_batches
from clipvip.pipeline.train.recipe import recipe_from_tree
from clipvip.shards.format.clip import Clip, StoredClip, make_key
from clipvip.shards.format.manifest import write_manifest
from clipvip.shards.tar.reader import read_shard
from clipvip.shards.tar.streaming import decode_clip, resize
from clipvip.shards.tar.writer import write_shard

CLIP_SECONDS = 13
STORED_FPS = 3
STORED_SHORT_SIDE = 256
VIDEO_SHORT_SIDE = 720
NUM_FRAMES = 12
IMAGE_SIZE = 224
CHUNK_SIZE = 8
WARM_UP_TURNS = 4
BARE = "libjpeg-turbo on the same JPEGs, pictures thrown away"
PEER = "webdataset + decord, 720p mp4"
OTHERS = "webdataset + `decode_clip`, the same shards"


class NoTokens:
    """Stands where the tokenizer would: texts cost the same in all ways and are left out."""

    def __call__(self, texts: list[str], *, max_length: int, **_: Any) -> dict[str, torch.Tensor]:
        empty = torch.zeros(len(texts), max_length, dtype=torch.int64)
        return {"input_ids": empty, "attention_mask": empty}


def even_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """The size with the given short side and the same aspect ratio, in even numbers."""
    factor = short_side / min(width, height)
    return round(width * factor / 2) * 2, round(height * factor / 2) * 2


def clips_of(path: Path) -> Iterator[tuple[list[av.VideoFrame], float]]:
    """Runs of frames that last CLIP_SECONDS, with their frame rate; a shorter video is played again."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        fps = float(stream.average_rate or 25)
        frames = list(itertools.islice(container.decode(stream), int(fps * CLIP_SECONDS * 4)))
    per_clip = int(fps * CLIP_SECONDS)
    for start in range(0, max(len(frames) - per_clip, 0) + 1, per_clip):
        yield list(itertools.islice(itertools.cycle(frames[start:]), per_clip)), fps


def to_mp4(frames: list[av.VideoFrame], fps: float) -> bytes:
    """The frames as a 720p H.264 file with a keyframe every 250 frames, x264's default."""
    width, height = even_size(frames[0].width, frames[0].height, VIDEO_SHORT_SIDE)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=round(fps), options={"preset": "veryfast", "g": "250"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number, frame in enumerate(frames):
            picture = frame.reformat(width, height, "yuv420p")
            picture.pts, picture.time_base = number, Fraction(1, round(fps))
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return buffer.getvalue()


def to_stored(frames: list[av.VideoFrame], fps: float, number: int) -> StoredClip:
    """The frames as our shards hold them."""
    width, height = even_size(frames[0].width, frames[0].height, STORED_SHORT_SIDE)
    times = np.arange(0, CLIP_SECONDS, 1 / STORED_FPS)
    chosen = [frames[min(int(t * fps), len(frames) - 1)] for t in times]
    jpegs = [
        encode_jpeg(f.reformat(width, height, "rgb24", interpolation="AREA").to_ndarray()) for f in chosen
    ]
    return StoredClip.of(
        Clip(make_key("video", number), "video", f"video.{number}.mp4", 0.0, float(CLIP_SECONDS)),
        subtitle="words",
        pixels=b"".join(jpegs),
        frame_seconds=times.tolist(),
        frame_bytes=list(map(len, jpegs)),
        width=width,
        height=height,
        source_width=frames[0].width,
        source_height=frames[0].height,
        source_fps=fps,
    )


def make_data(videos: list[Path], folder: Path, num_clips: int) -> tuple[Path, Path]:
    """Write the shards and the plain WebDataset; return the folder of the one and the file of the other."""
    # One clip of each video in turn, so that no video dominates.
    turns = itertools.zip_longest(*(list(clips_of(path)) for path in videos))
    clips = [clip for turn in turns for clip in turn if clip is not None][:num_clips]
    shards, plain = folder / "shards", folder / "plain.tar"
    shards.mkdir()
    stored = [to_stored(frames, fps, number) for number, (frames, fps) in enumerate(clips)]
    write_manifest(shards, stage="shard", options={}, shards=[write_shard(shards / "000000.tar", stored)])
    with tarfile.open(plain, "w") as tar:
        for number, (frames, fps) in enumerate(clips):
            data = to_mp4(frames, fps)
            info = tarfile.TarInfo(f"{number:05d}.mp4")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return shards, plain


class LoadingProcess:
    """A process that loads batches of clips, and its processor time."""

    def __init__(self, batches: Iterator[Any], *, per_turn: int, arrive: Callable[[Any], object]) -> None:
        """`per_turn` batches hold all clips once; `arrive` is called with each."""
        before = set(multiprocessing.active_children())
        self._batches, self._per_turn, self._arrive = batches, per_turn, arrive
        self._take(WARM_UP_TURNS)
        (process,) = set(multiprocessing.active_children()) - before
        assert process.pid is not None
        # The kernel's name for the clock of another process's processor time (Linux).
        self._clock = ~process.pid << 3 | 2

    def _take(self, times: int) -> None:
        for batch in itertools.islice(self._batches, times * self._per_turn):
            self._arrive(batch)

    def seconds(self, times: int) -> float:
        """Processor time of the loading process for all clips, so many times."""
        self._until_idle()
        begin = time.clock_gettime(self._clock)
        self._take(times)
        self._until_idle()
        return time.clock_gettime(self._clock) - begin

    def _until_idle(self) -> None:
        """Wait until it has loaded ahead what it may, so that the same is in hand before and after."""
        used = -1.0
        while used != (used := time.clock_gettime(self._clock)):
            time.sleep(0.1)


def our_loader(shards: Path, num_clips: int, *, resize: str, fast: bool = False) -> LoadingProcess:
    """A loading process of the trainer's own, with the shared memory that it writes to.

    The pixels of each chunk are copied on arrival, as `pin_memory` does for a GPU, in the other process.
    """
    tree = {
        "data": {"sources": {"clips": {"shards": str(shards)}}, "sampling": "uniform", "fast_decode": fast},
        "loss": {"pairs": "baseline"},
        "optim": {"batch_size": num_clips, "epochs": 1},
    }
    plan = plan_batches(recipe_from_tree(tree, name="benchmark"), cache=shards)
    dataset = ChunkDataset(
        plan,
        NoTokens(),  # type: ignore[arg-type]
        image_size=IMAGE_SIZE,
        max_text_tokens=70,
        resizes=resize == "loader",
        reuses_memory=True,
    )
    specs = (
        spec
        for step in itertools.count()
        for spec in plan.chunks(step, rank=0, world_size=1, chunk_size=CHUNK_SIZE)
    )

    def arrive(batch: Any) -> None:
        for chunk in batch:
            assert not chunk.skips
            chunk.video.copied(torch.clone)

    batches = load_batches(dataset, specs, workers=1, prefetch=2, pin_memory=False)
    return LoadingProcess(batches, per_turn=1, arrive=arrive)


def others_loader(shards: Path, num_clips: int) -> LoadingProcess:
    """What training code of others does with our shards: webdataset, `decode_clip`, a DataLoader."""
    size = CHUNK_SIZE if num_clips % CHUNK_SIZE == 0 else num_clips
    decode = partial(decode_clip, num_frames=NUM_FRAMES, image_size=IMAGE_SIZE)
    clips = wds.WebDataset(str(shards / "000000.tar"), shardshuffle=False).repeat().map(decode)
    batches = DataLoader(clips.to_tuple("frames").batched(size), batch_size=None, num_workers=1)
    started_later = itertools.chain.from_iterable([batches])
    return LoadingProcess(started_later, per_turn=num_clips // size, arrive=lambda batch: batch[0].clone())


def plain_loader(tar: Path) -> Callable[[], None]:
    """What one writes without us: webdataset, decord, resize."""

    def run() -> None:
        for sample in wds.WebDataset(str(tar), shardshuffle=False):
            reader = decord.VideoReader(io.BytesIO(sample["mp4"]), num_threads=1)
            frames = reader.get_batch(uniform_indices(len(reader), NUM_FRAMES)).asnumpy()
            assert resize(torch.from_numpy(frames), IMAGE_SIZE).shape == (
                NUM_FRAMES,
                IMAGE_SIZE,
                IMAGE_SIZE,
                3,
            )

    return run


def bare_decoding(shards: Path) -> Callable[[], None]:
    """libjpeg-turbo on the same JPEGs, already in memory; the pictures are thrown away."""
    jpegs = [
        sample.jpeg(int(index))
        for sample in read_shard(shards / "000000.tar")
        for index in uniform_indices(sample.num_frames, NUM_FRAMES)
    ]

    def run() -> None:
        for jpeg in jpegs:
            simplejpeg.decode_jpeg(jpeg)

    return run


def here(run: Callable[[], None]) -> Callable[[int], float]:
    """Processor time of this process for so many turns of `run`."""

    def seconds(times: int) -> float:
        begin = time.process_time()
        for _ in range(times):
            run()
        return time.process_time() - begin

    return seconds


def resizing(shards: Path) -> Callable[[], None]:
    """What the training process does with frames that come as they are stored, if it has no GPU."""
    pixels = []
    for sample in read_shard(shards / "000000.tar"):
        writer = PixelsWriter()
        writer.begin()
        frames = sample.decode(uniform_indices(sample.num_frames, NUM_FRAMES))
        writer.space(frames.shape)[:] = frames
        writer.keep()
        pixels.append(writer.finish())

    def run() -> None:
        for of_clip in pixels:
            of_clip.normalized(IMAGE_SIZE)

    return run


@click.command()
@click.argument("videos", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--clips", "num_clips", default=16, show_default=True)
@click.option("--rounds", default=5, show_default=True)
def main(videos: tuple[Path, ...], num_clips: int, rounds: int) -> None:
    """Compare the ways on clips of VIDEOS."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        shards, plain = make_data(list(videos), Path(temporary), num_clips)
        found = sum(1 for _ in read_shard(shards / "000000.tar"))
        # (what takes processor time, how often in a round, so that each takes a time that can be measured)
        ways = {
            "clipvip, `data.resize=device`": (our_loader(shards, found, resize="device").seconds, 10),
            BARE: (here(bare_decoding(shards)), 10),
            "clipvip, `data.resize=loader`": (our_loader(shards, found, resize="loader").seconds, 10),
            OTHERS: (others_loader(shards, found).seconds, 10),
            "the same, `data.fast_decode=true`": (
                our_loader(shards, found, resize="loader", fast=True).seconds,
                10,
            ),
            PEER: (here(plain_loader(plain)), 1),
            "(resize and normalise, on this processor)": (here(resizing(shards)), 2),
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, (seconds, times) in ways.items():
                rates[name].append(found * times / seconds(times))
        report(
            rates,
            found=found,
            num_bytes={"shard": (shards / "000000.tar").stat().st_size, "mp4": plain.stat().st_size},
        )


def report(rates: dict[str, list[float]], *, found: int, num_bytes: dict[str, int]) -> None:
    """Print a table and one line of JSON."""
    median = {name: statistics.median(values) for name, values in rates.items()}
    click.echo(
        f"{found} clips; bytes a clip: {', '.join(f'{k} {v // found:,}' for k, v in num_bytes.items())}"
    )
    click.echo(
        "| way | clips per CPU second | lowest-highest | of bare decoding | of decord |\n"
        "|---|---|---|---|---|"
    )
    for name, value in median.items():
        # Of the same round: other work on the machine slows all ways that are measured at one time alike.
        bare = statistics.median(x / y for x, y in zip(rates[name], rates[BARE], strict=True))
        peer = statistics.median(x / y for x, y in zip(rates[name], rates[PEER], strict=True))
        click.echo(
            f"| {name} | {value:.1f} | {min(rates[name]):.1f}-{max(rates[name]):.1f} | {bare:.0%} "
            f"| {peer:.1f} x |"
        )
    click.echo(json.dumps({name: round(value, 2) for name, value in median.items()}))


if __name__ == "__main__":
    # By its own name: a loading process unpickles classes of this file, and does not run a script again.
    from loader import main as run

    run()
