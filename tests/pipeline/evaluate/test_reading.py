"""The reader of clips: what threads and loading processes give is the same, whatever is wrong with a clip."""

import io
import multiprocessing
import os
import shutil
import signal
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from clipvip.media.sampling import uniform_indices
from clipvip.model import ClipVip
from clipvip.model.preprocess import preprocess_frames
from clipvip.pipeline.evaluate import reading
from clipvip.pipeline.evaluate.embeddings import ClipEncoder, embed_by_shard, embed_pairs
from clipvip.pipeline.evaluate.reading import ClipsRead, Reading, read_clips
from clipvip.pipeline.runtime.errors import UserError
from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.files.places import location_of
from clipvip.shards.files.stores import Location
from clipvip.shards.tar.reader import Sample, list_shards, read_shard
from clipvip.shards.tar.writer import write_shard
from make_shards import make_shard_folder, stored_clip
from s3_server import s3_server, use_s3
from tiny_clip import IMAGE_SIZE, make_clip

FRAMES = 4
CPU = torch.device("cpu")
SETTINGS = Reading(FRAMES, IMAGE_SIZE, CPU, workers=2)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    """Processes start after so many clips."""
    monkeypatch.setattr(reading, "FEW_CLIPS", 3)
    return 3


def add_foreign(path: Path) -> None:
    """A picture with a text, and one that is no picture."""
    picture = io.BytesIO()
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(picture, "png")
    with tarfile.open(path, "w") as tar:
        for key, data in (("whole", picture.getvalue()), ("torn", picture.getvalue()[:60])):
            for name, content in ((f"{key}.png", data), (f"{key}.txt", b"a grey wall")):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def mixed(tmp_path: Path) -> list[Path]:
    """Shards of clips of two sizes, with damaged, silent and others' samples, and one without any."""
    clips = [stored_clip("a", n, width=48 if n % 3 else 64, num_frames=2 + n) for n in range(9)]
    for number in (1, 6):
        object.__setattr__(clips[number], "pixels", b"\0" * len(clips[number].pixels))
    clips[2] = stored_clip("a", 2, subtitle=" ")
    write_shard(tmp_path / "000000.tar", clips)
    add_foreign(tmp_path / "000001.tar")
    with tarfile.open(tmp_path / "000002.tar", "w"):
        pass
    write_shard(tmp_path / "000003.tar", [stored_clip("b", n) for n in range(25)])
    return list_shards(tmp_path)


def choose(sample: Sample) -> str | Skip | None:
    if not sample.subtitle.strip():
        return Skip("empty_text", sample.key)
    return None if sample.key == "b_00003" else sample.key


def read_all(
    shards: Sequence[Location], settings: Reading
) -> tuple[list[str], torch.Tensor, list[Skip], int]:
    found = list(read_clips(shards, choose, settings))
    assert sum(read.ends_shard for read in found) == len(shards)
    rows = torch.cat([read.rows for read in found if read.rows is not None])
    about = [key for read in found for key in read.about]
    return about, rows, [skip for read in found for skip in read.skips], sum(r.num_samples for r in found)


def test_threads_and_processes_read_the_same(few: int, mixed: list[Path]) -> None:
    keys, rows, skips, num_samples = read_all(mixed, Reading(FRAMES, IMAGE_SIZE, CPU))
    assert [(skip.reason, skip.what) for skip in skips] == [
        ("damaged_sample", "a_00001"),
        ("empty_text", "a_00002"),
        ("damaged_sample", "a_00006"),
        ("damaged_sample", "torn"),
        ("empty_shard", "000002.tar"),
    ]
    assert num_samples == 9 + 2 + 1 + 25 and len(keys) == len(rows) == 6 + 1 + 24
    samples = {sample.key: sample for path in mixed[:1] + mixed[3:] for sample in read_shard(path)}
    for key, row in zip(keys, rows, strict=True):
        if key != "whole":
            sample = samples[key]
            frames = sample.decode(uniform_indices(sample.num_frames, FRAMES))
            assert torch.equal(row, preprocess_frames(frames, IMAGE_SIZE)), key
    others = read_all(mixed, SETTINGS)
    assert others[0] == keys and torch.equal(others[1], rows) and others[2:] == (skips, num_samples)
    assert not multiprocessing.active_children()


def test_a_shard_that_breaks_off_ends_reading_after_the_clips_before_it(
    few: int, mixed: list[Path], tmp_path: Path
) -> None:
    whole = mixed[3].read_bytes()
    (tmp_path / "000004.tar").write_bytes(whole[: len(whole) * 3 // 4])
    shards = [mixed[0], tmp_path / "000004.tar", mixed[3]]
    for workers in (0, 2):
        seen: list[str] = []
        ends = 0
        with pytest.raises(DatasetError, match=r"000004.tar: not a readable tar file"):
            for read in read_clips(shards, choose, Reading(FRAMES, IMAGE_SIZE, CPU, workers=workers)):
                seen += read.about
                ends += read.ends_shard
        assert ends == 1 and seen[:6] == [f"a_0000{n}" for n in (0, 3, 4, 5, 7, 8)]
    assert not multiprocessing.active_children()


def test_what_is_asked_may_fail(few: int, mixed: list[Path]) -> None:
    def refuse(sample: Sample) -> str:
        if sample.key == "b_00020":
            raise UserError("no such clip is wanted")
        return sample.key

    for workers in (0, 2):
        with pytest.raises(UserError, match="no such clip"):
            list(read_clips(mixed, refuse, Reading(FRAMES, IMAGE_SIZE, CPU, workers=workers)))
    assert not multiprocessing.active_children()


def test_a_reader_that_is_left_ends_its_processes(few: int, mixed: list[Path]) -> None:
    reads = read_clips(mixed, choose, SETTINGS)
    assert started(reads)
    reads.close()
    assert not multiprocessing.active_children()


def test_a_killed_process_is_told_in_one_line(few: int, tmp_path: Path) -> None:
    make_shard_folder(tmp_path / "many", num_shards=2, clips_per_shard=150)
    reads = read_clips(list_shards(tmp_path / "many"), choose, SETTINGS)
    for process in started(reads):
        os.kill(process, signal.SIGKILL)
    with pytest.raises(UserError, match=r"a loading process died.*same command again; fewer --workers"):
        list(reads)
    assert not multiprocessing.active_children()


def started(reads: Iterator[ClipsRead[str]]) -> list[int]:
    """Read until there are processes."""
    for _ in reads:
        found = [process.pid for process in multiprocessing.active_children()]
        if found:
            return [number for number in found if number is not None]
    return []


def test_few_clips_are_read_without_processes(mixed: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(reading, "load_parts", refuse)
    monkeypatch.setattr(reading, "fork_server", refuse)
    few = Reading(FRAMES, IMAGE_SIZE, CPU, workers=2, total=511)
    assert len(read_all(mixed, few)[0]) == 31
    assert len(read_all(mixed, SETTINGS)[0]) == 31


def test_without_room_for_chunks_threads_read(
    few: int, mixed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container, which has 64 MB by default."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=64 << 20))
    monkeypatch.setattr(reading, "load_parts", lambda *_: pytest.fail("a process was started"))
    assert len(read_all(mixed, SETTINGS)[0]) == 31


def test_chunks_are_bounded_in_bytes(few: int, tmp_path: Path) -> None:
    """By what frames take as they are stored, or in floating point once they are resized."""
    write_shard(tmp_path / "000000.tar", [stored_clip("c", n, width=400, height=300) for n in range(30)])

    def sizes(**changes: int) -> list[int]:
        given = {"num_frames": FRAMES, "image_size": IMAGE_SIZE, **changes}
        found = list(read_clips(list_shards(tmp_path), choose, Reading(device=CPU, workers=1, **given)))
        return [len(read.about) for read in found]

    assert sizes() == [1, 1, 1, 8, 8, 8, 3]
    assert max(sizes(num_frames=30)) == 3  # of 10.8 MB each
    assert max(sizes(image_size=600)) == 1  # of 17 MB each


@pytest.mark.parametrize("workers", [0, 2])
def test_embeddings_do_not_depend_on_who_reads(
    few: int, mixed: list[Path], tmp_path: Path, workers: int
) -> None:
    model = ClipVip.from_clip(str(make_clip(tmp_path / "clip"))).eval()
    model.config.num_frames = FRAMES
    encoder = ClipEncoder(model, batch_size=4, shows_progress=False, workers=workers)
    pairs = embed_pairs(encoder, mixed)
    frames, texts = [], []
    for path in mixed[:1] + mixed[3:]:
        for sample in read_shard(path):
            if sample.key not in {"a_00001", "a_00002", "a_00006"}:
                frames.append(sample.decode(uniform_indices(sample.num_frames, FRAMES)))
                texts.append(sample.subtitle)
    picture = Image.fromarray(np.full((20, 30, 3), 90, np.uint8))
    frames.insert(6, np.stack([np.asarray(picture)] * FRAMES))
    texts.insert(6, "a grey wall")
    assert pairs.sentences == texts
    # To the bit: in batches of the same clips.
    assert np.array_equal(pairs.videos, unit(model.encode_video(frames, batch_size=4)))
    by_shard = dict(embed_by_shard(encoder, mixed, lambda sample: sample.key, before=lambda _: None))
    assert list(by_shard) == mixed and [len(found.about) for found in by_shard.values()] == [7, 1, 0, 25]
    assert np.array_equal(by_shard[mixed[1]].videos, unit(model.encode_video([frames[6]])))


@pytest.mark.gpu
@pytest.mark.parametrize("workers", [0, 2])
def test_a_gpu_gives_the_embeddings_of_a_processor(
    few: int, mixed: list[Path], tmp_path: Path, workers: int
) -> None:
    model = ClipVip.from_clip(str(make_clip(tmp_path / "clip"))).eval()
    expected = embed_pairs(ClipEncoder(model, batch_size=4, shows_progress=False), mixed)
    torch.nn.Module.to(model, "cuda")
    found = embed_pairs(ClipEncoder(model, batch_size=4, shows_progress=False, workers=workers), mixed)
    assert found.sentences == expected.sentences and found.skips == expected.skips
    for ours, theirs in ((found.videos, expected.videos), (found.texts, expected.texts)):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=0.03)


@pytest.mark.needs("s3fs")
def test_processes_read_the_one_copy_of_a_shard_in_a_store(
    few: int, mixed: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = read_all(mixed, SETTINGS)
    store = tmp_path / "store"
    shutil.copytree(mixed[0].parent, store / "bucket/clips", ignore=lambda *_: ["store"])
    with s3_server(store) as address:
        use_s3(monkeypatch, address)
        found = read_all(list_shards(location_of("s3://bucket/clips")), SETTINGS)
    assert found[0] == expected[0] and torch.equal(found[1], expected[1]) and found[2:] == expected[2:]


def unit(embeds: torch.Tensor) -> np.ndarray:
    rows: np.ndarray = torch.nn.functional.normalize(embeds, dim=-1).numpy()
    return rows


def test_a_processor_computes_in_float32_whatever_training_does(tmp_path: Path) -> None:
    model = ClipVip.from_clip(str(make_clip(tmp_path / "clip"))).eval()
    pixels = torch.randn(2, 3, 3, IMAGE_SIZE, IMAGE_SIZE)
    with ClipEncoder(model, 2, precision="bf16").computing():
        found = model.get_video_features(pixels)
    assert found.dtype == torch.float32 and torch.equal(found, model.encode_video(list(pixels)))
