"""Resizing: where it is done changes no more than the rounding of bytes, and on the device nothing at all."""

import dataclasses
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPTokenizer

from clipvip.media.jpeg import encode_jpeg
from clipvip.media.sampling import uniform_indices
from clipvip.model.config import CLIP_MEAN, CLIP_STD
from clipvip.model.preprocess import preprocess_frames
from clipvip.pipeline.loading.pixels import Pixels, PixelsWriter, SharedMemory
from clipvip.pipeline.train.batches import BatchPlan, Chunk, ChunkDataset, plan_batches
from clipvip.pipeline.train.loading import load_batches
from clipvip.pipeline.train.recipe import recipe_from_tree
from clipvip.pipeline.train.start import resizes_on_device
from clipvip.shards.format.clip import StoredClip
from clipvip.shards.tar.reader import read_shard
from clipvip.shards.tar.writer import write_shard
from make_shards import changed, stored_clip
from tiny_clip import IMAGE_SIZE, MAX_TOKENS, tiny_tokenizer

NUM_FRAMES = 4
NUM_FRAMES_STORED = 9
NUM_STEPS = 6
# (width, height), one of them the model's own size.
SIZES = [(48, 32), (40, 60), (IMAGE_SIZE, IMAGE_SIZE)]


def noise(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Far enough from black and white that a resize does not overshoot what bytes can hold."""
    return rng.integers(90, 166, (height, width, 3), np.uint8)


def noisy_clip(number: int) -> StoredClip:
    width, height = SIZES[number % len(SIZES)]
    rng = np.random.default_rng(number)
    # Every seventh has fewer frames than are asked for.
    num_frames = 2 if number % 7 == 6 else NUM_FRAMES_STORED
    jpegs = [encode_jpeg(noise(rng, height, width), quality=95) for _ in range(num_frames)]
    clip = stored_clip("video", number, width=width, height=height, num_frames=num_frames)
    return changed(clip, b"".join(jpegs), frame_bytes=list(map(len, jpegs)))


def noisy_picture(number: int) -> np.ndarray:
    width, height = SIZES[number % 2]
    return noise(np.random.default_rng(number), height + number, width)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips and images of noise, in several sizes."""
    folder = tmp_path_factory.mktemp("pixels")
    (folder / "clips").mkdir()
    write_shard(folder / "clips" / "000000.tar", [noisy_clip(number) for number in range(20)])
    with tarfile.open(folder / "images.tar", "w") as tar:
        for number in range(9):
            data = io.BytesIO()
            Image.fromarray(noisy_picture(number)).save(data, "png")
            for extension, content in (("png", data.getvalue()), ("txt", b"words")):
                info = tarfile.TarInfo(f"{number:04d}.{extension}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def plan(world: Path) -> BatchPlan:
    clips = {"shards": str(world / "clips"), "captions": str(world)}  # none there: all are missing
    images = {"kind": "images", "shards": str(world / "images.tar"), "weight": 0.5}
    tree = {
        "data": {
            "sources": {"clips": clips, "images": images},
            "num_frames": NUM_FRAMES,
            "sampling": "uniform",
        },
        "loss": {"pairs": "a"},
        "optim": {"batch_size": 12, "epochs": 1},
    }
    return plan_batches(recipe_from_tree(tree, name="test"), cache=world / "cache")


def chunks_of(
    plan: BatchPlan, tokenizer: CLIPTokenizer, *, share: Any = (0, 1), workers: int = 0, **settings: Any
) -> list[Chunk]:
    """All chunks of the first steps; where their memory is used again, copies."""
    chunk_size = settings.pop("chunk_size", None)
    dataset = ChunkDataset(plan, tokenizer, image_size=IMAGE_SIZE, max_text_tokens=MAX_TOKENS, **settings)
    rank, world_size = share
    specs = (
        spec
        for step in range(NUM_STEPS)
        for spec in plan.chunks(step, rank=rank, world_size=world_size, chunk_size=chunk_size)
    )
    loaded = load_batches(dataset, specs, workers=workers, prefetch=2, pin_memory=False)
    return [
        dataclasses.replace(
            chunk,
            video=chunk.video.copied(torch.clone),
            frame=chunk.frame and chunk.frame.copied(torch.clone),
        )
        for batch in loaded
        for chunk in batch
    ]


@pytest.fixture(scope="module")
def references(world: Path) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """The stored frames that a sample stands for, and its middle frame, by key."""
    found: dict[str, tuple[np.ndarray, np.ndarray | None]] = {
        f"{number:04d}": (noisy_picture(number)[None], None) for number in range(9)
    }
    for sample in read_shard(world / "clips" / "000000.tar"):
        video = sample.decode(uniform_indices(sample.num_frames, NUM_FRAMES))
        found[sample.key] = (video, sample.middle_frame()[None])
    return found


@pytest.mark.parametrize(
    "ways",
    [
        [{}],
        [{"chunk_size": 3}],
        [{"share": (0, 2)}, {"share": (1, 2)}],
        [{"workers": 1, "reuses_memory": True, "chunk_size": 3}],
    ],
    ids=["batch", "chunks", "processes", "workers"],
)
def test_resizing_on_the_device_is_preprocess_frames(
    plan: BatchPlan,
    tokenizer: CLIPTokenizer,
    references: dict[str, tuple[np.ndarray, np.ndarray | None]],
    ways: list[dict[str, Any]],
) -> None:
    chunks = [chunk for way in ways for chunk in chunks_of(plan, tokenizer, resizes=False, **way)]
    assert sum(len(chunk.keys) for chunk in chunks) == NUM_STEPS * 12
    assert max(len(chunk.video.runs) for chunk in chunks) > 1
    for chunk in chunks:
        videos = chunk.video.normalized(IMAGE_SIZE)
        frames = None if chunk.frame is None else chunk.frame.normalized(IMAGE_SIZE)
        assert (frames is None) == (chunk.source == "images")
        for row, key in enumerate(chunk.keys):
            video, frame = references[key]
            assert torch.equal(videos[row], preprocess_frames(video, IMAGE_SIZE))
            if frames is not None and frame is not None:
                assert torch.equal(frames[row], preprocess_frames(frame, IMAGE_SIZE))


def test_the_loader_resizes_alike_but_for_the_rounding_of_bytes(
    plan: BatchPlan, tokenizer: CLIPTokenizer
) -> None:
    mean, std = torch.tensor(CLIP_MEAN)[:, None, None], torch.tensor(CLIP_STD)[:, None, None]
    largest = 0.0
    pairs = zip(chunks_of(plan, tokenizer), chunks_of(plan, tokenizer, resizes=False), strict=True)
    for here, there in pairs:
        assert here.keys == there.keys
        assert {run.shape[1:] for run in here.video.runs} == {(IMAGE_SIZE, IMAGE_SIZE, 3)}
        of_bytes, exact = ((chunk.video.normalized(IMAGE_SIZE) * std + mean) * 255 for chunk in (here, there))
        largest = max(largest, (of_bytes - exact).abs().max().item())
    assert 0 < largest < 2


def written(videos: list[np.ndarray], writer: PixelsWriter) -> Pixels:
    writer.begin()
    for video in videos:
        # What is not kept, as of a sample that turns out to be damaged, leaves no trace.
        writer.space((1, 3, 5, 3)).fill(99)
        writer.space(video.shape)[:] = video
        writer.keep()
    return writer.finish()


def test_rows_stay_in_order_and_are_resized_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    videos = [rng.integers(0, 256, (2, 9, 8 + (row > 6), 3), np.uint8) for row in range(11)]
    pixels = written(videos, PixelsWriter())
    assert [(run.num_rows, run.shape) for run in pixels.runs] == [(7, (2, 9, 8, 3)), (4, (2, 9, 9, 3))]
    whole = pixels.normalized(6)
    expected = [preprocess_frames(torch.from_numpy(video), 6) for video in videos]
    assert torch.equal(whole, torch.stack(expected))
    monkeypatch.setattr("clipvip.pipeline.loading.pixels._FRAMES_RESIZED_AT_ONCE", 4)
    assert torch.equal(pixels.normalized(6), whole)


def test_a_writer_takes_larger_chunks_than_it_expected() -> None:
    memory = SharedMemory()
    writer = PixelsWriter(memory)
    for size in (2, 30, 4):
        videos = [np.full((1, size, 3, 3), row, np.uint8) for row in range(size)]
        pixels = written(videos, writer)
        assert pixels.is_lent
        mine = pixels.copied(torch.clone)
        assert mine.values.tolist() == np.stack(videos).ravel().tolist()


def test_a_chunk_that_was_not_finished_leaves_its_memory_to_the_next() -> None:
    memory = SharedMemory()
    writer = PixelsWriter(memory)
    written([np.zeros((1, 5, 5, 3), np.uint8)], writer).copied(torch.clone)
    writer.begin()
    first = writer.space((1, 5, 5, 3))
    writer.begin()
    assert writer.space((1, 5, 5, 3)).ctypes.data == first.ctypes.data


def test_shared_memory_is_used_again_only_when_it_was_given_back() -> None:
    memory = SharedMemory()
    first, second = memory.take(100), memory.take(100)
    assert first.is_shared() and len(first) == 100
    assert first.data_ptr() != second.data_ptr()
    second.fill_(7)
    sent = Pixels(second, (), is_lent=True)
    mine = sent.copied(torch.clone)
    assert memory.take(50).data_ptr() == second.data_ptr()
    assert mine.values.tolist() == [7] * 100 and not mine.is_lent
    assert memory.take(100).data_ptr() not in {first.data_ptr(), second.data_ptr()}


@pytest.mark.parametrize(
    ("setting", "device", "expected"),
    [
        ("auto", "cpu", False),
        ("auto", "cuda", True),
        ("loader", "cuda", False),
        ("device", "cpu", True),
    ],
)
def test_auto_resizes_on_the_device_where_that_is_a_gpu(setting: str, device: str, expected: bool) -> None:
    recipe = recipe_from_tree({"data": {"resize": setting}, "optim": {"steps": 1}}, name="test")
    assert resizes_on_device(recipe, torch.device(device)) == expected
