"""Batches: the same samples however they are loaded, and what happens to bad ones."""

import io
import json
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPTokenizer

from clipvip.media.sampling import uniform_indices
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.train.batches import (
    BatchPlan,
    Chunk,
    ChunkDataset,
    plan_batches,
)
from clipvip.pipeline.train.enough import check_samples, look_at
from clipvip.pipeline.train.loading import load_batches
from clipvip.pipeline.train.order import SampleOrder
from clipvip.pipeline.train.pixels import Pixels
from clipvip.pipeline.train.recipe import recipe_from_tree
from clipvip.shards.errors import DatasetError
from clipvip.shards.format.captions import shard_source, write_captions
from clipvip.shards.format.manifest import write_manifest
from clipvip.shards.tar.reader import read_shard
from clipvip.shards.tar.writer import write_shard
from make_images import make_images
from make_shards import make_captioned_folder, make_shard_folder, stored_clip
from tiny_clip import IMAGE_SIZE, MAX_TOKENS, tiny_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shard_folder(tmp_path_factory.mktemp("data") / "clips", num_shards=3, clips_per_shard=7)


def plan_of(sources: dict[str, dict[str, Any]], tmp_path: Path, **settings: Any) -> BatchPlan:
    tree = {
        "data": {"sources": sources, "num_frames": 4, "shuffle_shards": 2, **settings.pop("data", {})},
        "loss": {"pairs": settings.pop("pairs", "baseline")},
        "optim": {"batch_size": settings.pop("batch_size", 6), "epochs": 1},
        **settings,
    }
    return plan_batches(recipe_from_tree(tree, name="test"), cache=tmp_path / "cache")


def batches(
    plan: BatchPlan,
    tokenizer: CLIPTokenizer,
    *,
    steps: range,
    rank: int = 0,
    world_size: int = 1,
    chunk_size: int | None = None,
    workers: int = 0,
) -> list[list[Chunk]]:
    dataset = ChunkDataset(plan, tokenizer, image_size=IMAGE_SIZE, max_text_tokens=MAX_TOKENS)
    specs = (
        spec
        for step in steps
        for spec in plan.chunks(step, rank=rank, world_size=world_size, chunk_size=chunk_size)
    )
    return list(load_batches(dataset, specs, workers=workers, prefetch=2, pin_memory=False))


def joined(batch: list[Chunk], field: str) -> Any:
    """A field of all chunks of a batch, together."""
    values = [getattr(chunk, field) for chunk in batch]
    if isinstance(values[0], Pixels):
        values = [frames_of(pixels) for pixels in values]
    return sum(values, ()) if isinstance(values[0], tuple) else torch.cat(values)


def frames_of(pixels: Pixels | None) -> torch.Tensor:
    """The frames of all rows, which have one size."""
    assert pixels is not None
    (frames,) = pixels.by_size()
    return frames


def test_a_batch_is_the_same_for_any_chunks_processes_workers_and_start(
    clips: Path, tokenizer: CLIPTokenizer, tmp_path: Path
) -> None:
    plan = plan_of({"clips": {"shards": str(clips)}}, tmp_path)
    whole = batches(plan, tokenizer, steps=range(8))
    for other in (
        batches(plan, tokenizer, steps=range(8), chunk_size=4),
        batches(plan, tokenizer, steps=range(8), chunk_size=4, workers=2),
        [
            [*a, *b]
            for a, b in zip(
                batches(plan, tokenizer, steps=range(8), rank=0, world_size=2),
                batches(plan, tokenizer, steps=range(8), rank=1, world_size=2),
                strict=True,
            )
        ],
        [*whole[:5], *batches(plan, tokenizer, steps=range(5, 8), chunk_size=5)],
    ):
        assert [joined(batch, "keys") for batch in other] == [joined(batch, "keys") for batch in whole]
        for batch, expected in zip(other, whole, strict=True):
            assert torch.equal(joined(batch, "video"), joined(expected, "video"))
            assert torch.equal(joined(batch, "text_ids"), joined(expected, "text_ids"))


def test_an_epoch_has_each_sample_once_and_the_next_another_order(
    clips: Path, tokenizer: CLIPTokenizer, tmp_path: Path
) -> None:
    plan = plan_of({"clips": {"shards": str(clips)}}, tmp_path)
    keys = [joined(batch, "keys") for batch in batches(plan, tokenizer, steps=range(7))]
    assert all(len(set(batch)) == 6 for batch in keys)
    seen = sum(keys, ())
    first, second = seen[:21], seen[21:]
    assert len(set(first)) == len(set(second)) == 21
    assert first != second
    assert plan.steps_per_epoch == 4
    assert [step for step in range(1, 15) if plan.ends_epoch(step)] == [4, 7, 11, 14]
    assert plan.epochs_after(7) == 2


@pytest.mark.parametrize(
    ("epochs", "batch_size", "steps"), [(1, 6, 4), (2, 6, 7), (3, 6, 11), (1, 21, 1), (5, 20, 6)]
)
def test_steps_are_counted_as_in_the_reference(
    clips: Path, tmp_path: Path, epochs: int, batch_size: int, steps: int
) -> None:
    """Its `num_train_steps`: epochs x samples / batch size, rounded up."""
    plan = plan_of({"clips": {"shards": str(clips)}}, tmp_path, batch_size=batch_size)
    recipe = recipe_from_tree({"optim": {"batch_size": batch_size, "epochs": epochs}}, name="test")
    assert plan.num_steps(recipe) == steps


def test_a_run_of_the_first_order_goes_on_with_it(
    clips: Path, tokenizer: CLIPTokenizer, tmp_path: Path
) -> None:
    tree = {
        "data": {"sources": {"clips": {"shards": str(clips)}}, "num_frames": 4, "shuffle_shards": 2},
        "loss": {"pairs": "baseline"},
        "optim": {"batch_size": 6, "epochs": 2},
    }
    recipe = recipe_from_tree(tree, name="test")
    plan = plan_batches(recipe, cache=tmp_path, order_version=1)
    assert (plan.steps_per_epoch, plan.num_steps(recipe)) == (3, 6)
    keys = [joined(batch, "keys") for batch in batches(plan, tokenizer, steps=range(6))]
    now = batches(plan_batches(recipe, cache=tmp_path), tokenizer, steps=range(3))
    assert keys[:3] == [joined(batch, "keys") for batch in now]
    # The fourth batch begins the second epoch; what did not fill one is left out.
    order = SampleOrder([7, 7, 7], seed=42, group_shards=2)
    expected = [order.locate(1, position) for position in range(18)]
    assert sum(keys[3:], ()) == tuple(f"video{shard}_{index:05d}" for shard, index in expected)


def test_each_pass_takes_one_of_a_clips_captions(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    texts = [[f"take {number} {word}" for word in ("one", "two", "three")] for number in range(12)]
    folder = make_captioned_folder(tmp_path / "clips", texts)
    plan = plan_of({"clips": {"shards": str(folder)}}, tmp_path)
    said: dict[str, set[str]] = {}
    whole = batches(plan, tokenizer, steps=range(20), chunk_size=4)
    for chunk in (chunk for batch in whole for chunk in batch):
        assert chunk.text_ids is not None
        for key, ids in zip(chunk.keys, chunk.text_ids, strict=True):
            said.setdefault(key, set()).add(tokenizer.decode(ids, skip_special_tokens=True))
    by_key = {sample.key: sample.sentences for sample in read_shard(folder / "000000.tar")}
    expected = {tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) for text in texts[0]}
    assert len(expected) == 3
    # Ten passes: each clip was seen with all of its captions, but for bad luck.
    assert sum(len(found) for found in said.values()) > 2.7 * len(said) == 2.7 * len(by_key)
    again = batches(plan, tokenizer, steps=range(7, 20), workers=2)
    for first, second in zip(whole[7:], again, strict=True):
        assert torch.equal(joined(first, "text_ids"), joined(second, "text_ids"))


def test_pixels_and_text_are_those_of_the_sample(
    clips: Path, tokenizer: CLIPTokenizer, tmp_path: Path
) -> None:
    plan = plan_of({"clips": {"shards": str(clips)}}, tmp_path, data={"sampling": "uniform"}, pairs="a")
    samples = {s.key: s for shard in sorted(clips.glob("*.tar")) for s in read_shard(shard)}
    plan.parts[0].settings.__dict__["captions"] = (str(tmp_path),)  # none there: all are missing
    (chunk,) = batches(plan, tokenizer, steps=range(1))[0]
    for row, key in enumerate(chunk.keys):
        sample = samples[key]
        # The frames are flat colours, which a resize keeps.
        expected = sample.decode(uniform_indices(sample.num_frames, 4))[:, 0, 0]
        assert np.array_equal(frames_of(chunk.video)[row, :, 5, 5].numpy(), expected)
        assert chunk.text_ids is not None and chunk.text_mask is not None
        assert np.array_equal(frames_of(chunk.frame)[row, 0, 5, 5].numpy(), sample.middle_frame()[0, 0])
        ids = chunk.text_ids[row][chunk.text_mask[row].bool()].tolist()
        assert ids == tokenizer(sample.subtitle, truncation=True, max_length=MAX_TOKENS)["input_ids"]
    assert chunk.num_rows_without_caption == 6


def test_images_mix_with_clips_by_weight(clips: Path, tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    images = make_images(tmp_path / "images.tar", 9)
    plan = plan_of(
        {"clips": {"shards": str(clips)}, "images": {"kind": "images", "shards": str(images), "weight": 0.5}},
        tmp_path,
    )
    for of_clips, of_images in batches(plan, tokenizer, steps=range(6)):
        assert (of_clips.source, of_clips.num_rows) == ("clips", 4)
        assert (of_images.source, of_images.num_rows) == ("images", 2)
        images_video = frames_of(of_images.video)
        assert images_video.shape == (2, 1, IMAGE_SIZE, IMAGE_SIZE, 3)
        for row, key in enumerate(of_images.keys):
            colour = images_video[row, 0, 9, 9].int() - torch.tensor([10 * int(key), 100, 200])
            assert colour.abs().max() <= 3  # JPEG


def damage(folder: Path) -> Path:
    """Three samples that cannot be used: a broken JPEG, broken metadata, an empty subtitle."""
    make_shard_folder(folder, num_shards=1, clips_per_shard=20)
    stored = [stored_clip("video0", number) for number in range(20)]
    stored[5] = stored_clip("video0", 5, subtitle=" ")
    write_shard(folder / "000000.tar", stored)
    path = folder / "000000.tar"
    with tarfile.open(path) as tar:
        members = {member.name: member for member in tar}
    with path.open("r+b") as file:
        file.seek(members["video0_00003.mjpg"].offset_data)
        file.write(b"\0" * members["video0_00003.mjpg"].size)
        file.seek(members["video0_00004.json"].offset_data)
        file.write(b"{" * 20)
    return folder


def test_bad_samples_are_replaced_and_counted(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    plan = plan_of({"clips": {"shards": str(damage(tmp_path / "clips"))}}, tmp_path, batch_size=5)
    one = batches(plan, tokenizer, steps=range(4))
    other = batches(plan, tokenizer, steps=range(4), chunk_size=2)
    assert [joined(b, "keys") for b in one] == [joined(b, "keys") for b in other]
    skips = {(s.reason, s.what) for batch in one for s in joined(batch, "skips")}
    assert skips == {
        ("damaged_sample", "video0_00003"),
        ("damaged_sample", "video0_00004"),
        ("empty_subtitle", "video0_00005"),
    }
    for batch in one:
        keys = joined(batch, "keys")
        assert len(set(keys)) == 5
        assert not set(keys) & {what for _, what in skips}


def test_a_data_set_of_bad_samples_only_is_an_error(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    folder = make_shard_folder(tmp_path / "clips", num_shards=1, clips_per_shard=8)
    write_shard(folder / "000000.tar", [stored_clip("v", number, subtitle=" ") for number in range(8)])
    plan = plan_of({"clips": {"shards": str(folder)}}, tmp_path)
    for workers in (0, 1):
        with pytest.raises(
            DatasetError, match=r"source clips: 0 of its 8 samples are usable, .* \(empty_subtitle\)"
        ) as caught:
            batches(plan, tokenizer, steps=range(1), workers=workers)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("batch_size", [11, 12, 16, 17])
@pytest.mark.parametrize("chunk_size", [None, 1, 5])
def test_replacements_never_put_a_sample_twice_into_a_batch(
    tokenizer: CLIPTokenizer, tmp_path: Path, batch_size: int, chunk_size: int | None
) -> None:
    """However much of the data set a batch takes, up to all 17 usable samples, and whoever loads which rows."""
    plan = plan_of({"clips": {"shards": str(damage(tmp_path / "clips"))}}, tmp_path, batch_size=batch_size)
    for batch in batches(plan, tokenizer, steps=range(5), chunk_size=chunk_size):
        keys = joined(batch, "keys")
        assert len(set(keys)) == batch_size
        assert not set(keys) & {f"video0_{number:05d}" for number in (3, 4, 5)}
    ranks = [
        batches(plan, tokenizer, steps=range(3), rank=rank, world_size=3, chunk_size=chunk_size)
        for rank in range(3)
    ]
    whole = batches(plan, tokenizer, steps=range(3))
    for step, parts in enumerate(zip(*ranks, strict=True)):
        assert sum((joined(part, "keys") for part in parts), ()) == joined(whole[step], "keys")


def test_too_few_usable_samples_for_a_batch_end_the_run_in_one_line(
    tokenizer: CLIPTokenizer, tmp_path: Path
) -> None:
    plan = plan_of({"clips": {"shards": str(damage(tmp_path / "clips"))}}, tmp_path, batch_size=18)
    with pytest.raises(
        DatasetError, match=r"source clips: 17 of its 20 samples are usable, and a batch takes 18"
    ):
        batches(plan, tokenizer, steps=range(1))


def test_usable_samples_are_counted_before_the_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_shard_folder(tmp_path / "clips", num_shards=1, clips_per_shard=8)
    stored = [stored_clip("v", number, subtitle="" if number < 3 else " ") for number in range(8)]
    write_shard(folder / "000000.tar", stored)
    source = {"shards": str(folder)}
    with pytest.raises(UserError) as caught:
        check_samples(plan_of({"clips": source}, tmp_path, batch_size=4))
    assert str(caught.value) == (
        "source clips: 3 of its 8 samples can be used (empty_subtitle 5), and a batch takes 4 of them; "
        "train on captions alone (--set loss.pairs=V-C), or lower optim.batch_size, or give more data"
    )
    check_samples(plan_of({"clips": source}, tmp_path, batch_size=3))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "Warning: source clips: 5 of the 8 samples looked at cannot be used (empty_subtitle 5)"
    )
    check_samples(plan_of({"clips": source}, tmp_path, batch_size=3), warns=False)
    captions = tmp_path / "captions"
    captions.mkdir()
    write_captions(captions / "000000.parquet", [(f"v_{n:05d}", "a sight") for n in range(2)])
    source["captions"] = str(captions)
    with pytest.raises(UserError, match=r"2 of its 8 samples can be used \(missing_caption 6\)"):
        check_samples(plan_of({"clips": source}, tmp_path, batch_size=3, pairs="V-C"))
    check_samples(plan_of({"clips": source}, tmp_path, batch_size=3, pairs="d"))
    _, without = capsys.readouterr().err.splitlines()
    assert "6 of the 8 samples looked at have no caption" in without


def test_captions_that_name_none_of_a_shards_clips_are_told_of(
    clips: Path, tokenizer: CLIPTokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of earlier versions, or of others, that do not say which shard they were made of."""
    captions = write_some_captions(tmp_path / "captions", set())
    write_captions(captions / "000001.parquet", [("other_00000", "words")])
    source = {"shards": str(clips), "captions": str(captions)}
    plan = plan_of({"clips": source}, tmp_path, pairs="d", batch_size=21)
    check_samples(plan)
    warning = capsys.readouterr().err
    assert "7 of the 21 samples looked at have no caption" in warning
    assert "captions_of_another_shard 1" in warning
    (chunk,) = batches(plan, tokenizer, steps=range(1))[0]
    (note,) = chunk.skips
    assert (note.reason, note.what) == ("captions_of_another_shard", "000001.parquet")
    assert chunk.num_rows_without_caption == 7


def test_shards_that_are_given_twice_are_told_of(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = tmp_path / "again"
    shutil.copytree(clips, again)
    check_samples(plan_of({"clips": {"shards": [str(clips), str(again / "000001.tar")]}}, tmp_path))
    assert "1 of its shards are given more than once" in capsys.readouterr().err


def test_looking_at_a_large_data_set_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_shard_folder(tmp_path / "clips", num_shards=6, clips_per_shard=5)
    write_shard(folder / "000005.tar", [stored_clip("video5", number, subtitle=" ") for number in range(5)])
    plan = plan_of({"clips": {"shards": str(folder)}}, tmp_path)
    assert (look := look_at(plan.parts[0])).num_seen == 30 and look.lost == {"empty_subtitle": 5}
    monkeypatch.setattr("clipvip.pipeline.train.enough._MOST_SAMPLES", 9)
    monkeypatch.setattr("clipvip.pipeline.train.enough._MOST_SHARDS", 3)
    assert (look := look_at(plan.parts[0])).num_seen == 9 and look.lost == {"empty_subtitle": 3}
    with pytest.raises(UserError, match=r"6 of the 9 samples looked at \(of 30\) can be used"):
        check_samples(plan_of({"clips": {"shards": str(folder)}}, tmp_path, batch_size=21))


def test_equal_names_of_shards_do_not_cross_their_captions(
    tokenizer: CLIPTokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two data sets with the same file names, sizes and keys: each clip gets its own caption, or is counted."""
    for name in "ab":
        folder = make_shard_folder(tmp_path / name, num_shards=1, clips_per_shard=6)
        clips = [stored_clip("video0", n, subtitle=f"{name} says {n}") for n in range(6)]
        record = write_shard(folder / "000000.tar", clips)
        write_manifest(folder, stage="shard", options={}, shards=[record])
        (tmp_path / f"captions_{name}").mkdir()
        rows = [(stored.clip.key, f"{name} shows") for stored in clips]
        target = tmp_path / f"captions_{name}" / "000000.parquet"
        write_captions(target, rows, source=shard_source(folder / "000000.tar", record.sha256))
    shards = [str(tmp_path / name) for name in "ab"]
    captions = [str(tmp_path / f"captions_{name}") for name in "ba"]

    def said(which: list[str]) -> set[tuple[str, str]]:
        plan = plan_of({"clips": {"shards": shards, "captions": which}}, tmp_path, pairs="d", batch_size=12)
        check_samples(plan)
        (chunk,) = batches(plan, tokenizer, steps=range(1))[0]
        assert chunk.text_ids is not None and chunk.caption_ids is not None and chunk.has_caption is not None
        texts = [tokenizer.decode(ids, skip_special_tokens=True)[0] for ids in chunk.text_ids]
        sights = [tokenizer.decode(ids, skip_special_tokens=True)[:1] for ids in chunk.caption_ids]
        assert [bool(sight) for sight in sights] == chunk.has_caption.tolist()
        notes.update(skip.reason for skip in chunk.skips)
        return set(zip(texts, sights, strict=True))

    notes: set[str] = set()
    assert said(captions) == {("a", "a"), ("b", "b")}
    assert not notes and not capsys.readouterr().err
    assert said(captions[:1]) == {("a", ""), ("b", "b")}
    assert notes == {"captions_of_another_shard"}
    assert "6 of the 12 samples looked at have no caption" in (warning := capsys.readouterr().err)
    assert "captions_of_another_shard 1" in warning


def write_some_captions(folder: Path, missing: set[str]) -> Path:
    folder.mkdir()
    for shard in range(3):
        keys = [f"video{shard}_{number:05d}" for number in range(7)]
        rows = [(key, f"a caption of {key}") for key in keys if key not in missing]
        write_captions(folder / f"{shard:06d}.parquet", rows)
    return folder


def test_a_missing_caption_is_masked_or_skipped(
    clips: Path, tokenizer: CLIPTokenizer, tmp_path: Path
) -> None:
    missing = {"video0_00002", "video2_00006"}
    source = {"shards": str(clips), "captions": str(write_some_captions(tmp_path / "captions", missing))}
    plan = plan_of({"clips": source}, tmp_path, pairs="d", batch_size=21)
    (chunk,) = batches(plan, tokenizer, steps=range(1))[0]
    assert chunk.has_caption is not None and chunk.caption_ids is not None
    assert {key for key, has in zip(chunk.keys, chunk.has_caption, strict=True) if not has} == missing
    row = int(chunk.has_caption.int().argmax())
    expected = tokenizer(f"a caption of {chunk.keys[row]}", truncation=True, max_length=MAX_TOKENS)
    assert chunk.caption_ids[row][: len(expected["input_ids"])].tolist() == expected["input_ids"]

    # Where captions are all that the loss has, a sample without one is replaced.
    plan = plan_of({"clips": source}, tmp_path, pairs="V-C", batch_size=19)
    (chunk,) = batches(plan, tokenizer, steps=range(1))[0]
    assert not set(chunk.keys) & missing
    assert chunk.text_ids is None and chunk.frame is None
    assert {skip.what for skip in chunk.skips} <= missing
    assert len(set(chunk.keys)) == 19


def test_mistakes_are_named(clips: Path, tmp_path: Path) -> None:
    source = {"shards": str(clips)}
    with pytest.raises(UserError, match="a batch of 22 takes 22 samples of source clips, which has 21"):
        plan_of({"clips": source}, tmp_path, batch_size=22)
    with pytest.raises(UserError, match="needs captions for source clips; give --captions"):
        check_samples(plan_of({"clips": source}, tmp_path, pairs="d"))
    with pytest.raises(UserError, match="no such folder of captions"):
        check_samples(plan_of({"clips": {**source, "captions": str(tmp_path / "x")}}, tmp_path, pairs="d"))
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    write_captions(foreign / "000000.parquet", [("other_00000", "words")])
    with pytest.raises(UserError, match=r"captions for 0 of the 21 samples .*captions_of_another_shard 1"):
        check_samples(plan_of({"clips": {**source, "captions": str(foreign)}}, tmp_path, pairs="d"))
    (foreign / "000000.parquet").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"000000\.parquet: not readable as captions"):
        check_samples(plan_of({"clips": {**source, "captions": str(foreign)}}, tmp_path, pairs="d"))
    check_samples(plan_of({"clips": source}, tmp_path))


def test_fast_decode_keeps_pictures_alike(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    folder = make_shard_folder(tmp_path / "clips", num_shards=1, clips_per_shard=6, width=128, height=96)
    exact, fast = (
        frames_of(
            batches(
                plan_of({"clips": {"shards": str(folder)}}, tmp_path, data={"fast_decode": value}),
                tokenizer,
                steps=range(1),
            )[0][0].video
        )
        for value in (False, True)
    )
    assert (exact.int() - fast.int()).abs().max() <= 4


def test_metadata_of_another_shape_is_a_bad_sample(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    folder = make_shard_folder(tmp_path / "clips", num_shards=1, clips_per_shard=8)
    with tarfile.open(folder / "000000.tar") as tar:
        contents = [(m.name, tar.extractfile(m).read()) for m in tar]  # type: ignore[union-attr]
    replaced = {"video0_00001.json": b"[1]", "video0_00002.json": json.dumps({"frame_seconds": 3}).encode()}
    with tarfile.open(folder / "000000.tar", "w") as tar:
        for name, data in contents:
            info = tarfile.TarInfo(name)
            data = replaced.get(name, data)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    plan = plan_of({"clips": {"shards": str(folder)}}, tmp_path, batch_size=6)
    skips = {s.what for batch in batches(plan, tokenizer, steps=range(2)) for s in joined(batch, "skips")}
    assert skips == {"video0_00001", "video0_00002"}


@pytest.mark.slow
def test_signals_to_the_whole_group_leave_loading_processes_alone() -> None:
    """From their first moment: launchers send them at any."""
    code = """
import os, signal, sys, time
from clipvip.pipeline.train.loading import _fork_server
signal.signal(signal.SIGTERM, lambda *_: None)
child = _fork_server().Process(target=time.sleep, args=(0.5,))
child.start()
os.killpg(0, signal.SIGTERM)
child.join()
sys.exit(child.exitcode)
"""
    done = subprocess.run([sys.executable, "-c", code], start_new_session=True, check=False)
    assert done.returncode == 0


def spoil_pictures(folder: Path, *, every: int, num_clips: int) -> None:
    """Damage the frames of all clips but each `every`th; records and texts stay right."""
    whole = [stored_clip("v", number) for number in range(num_clips)]
    clips = [
        clip if every and number % every == 0 else replace(clip, pixels=bytes(len(clip.pixels)))
        for number, clip in enumerate(whole)
    ]
    write_shard(folder / "000000.tar", clips)


@pytest.mark.parametrize("most_decoded", [64, 8])
def test_pictures_that_are_damaged_are_found_before_the_first_step(
    most_decoded: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipvip.pipeline.train.enough._MOST_DECODED", most_decoded)
    folder = tmp_path / "clips"
    folder.mkdir()
    source = {"clips": {"shards": str(folder)}}
    spoil_pictures(folder, every=3, num_clips=16)
    check_samples(plan_of(source, tmp_path, batch_size=4))
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be used (damaged_sample " in line and line.startswith("Warning: source clips: ")
    spoil_pictures(folder, every=0, num_clips=16)
    with pytest.raises(
        UserError, match=r"whose pictures were decoded all are damaged \(damaged_sample \d+\)"
    ):
        check_samples(plan_of(source, tmp_path, batch_size=4))
    spoil_pictures(folder, every=1, num_clips=16)
    check_samples(plan_of(source, tmp_path, batch_size=4))
    assert not capsys.readouterr().err


def test_a_shard_without_samples_is_told_of(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "clips"
    shutil.copytree(clips, folder)
    (folder / "manifest.json").unlink()
    (folder / "000003.tar").write_bytes(bytes(10_240))
    check_samples(plan_of({"clips": {"shards": str(folder)}}, tmp_path))
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"Warning: source clips: {folder / '000003.tar'} holds no samples of kind clips"


def test_what_is_said_of_an_image_that_is_none_is_always_the_same(
    tokenizer: CLIPTokenizer, tmp_path: Path
) -> None:
    path = tmp_path / "000000.tar"
    with tarfile.open(path, "w") as tar:
        for name, data in (
            ("a.png", b"no image"),
            ("a.txt", b"words"),
            ("b.png", png()),
            ("b.txt", b"words"),
            ("c.png", png()),
            ("c.txt", b"words"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    plan = plan_of({"x": {"shards": str(path), "kind": "images"}}, tmp_path, batch_size=2)
    found = [batches(plan, tokenizer, steps=range(2)) for _ in range(2)]
    skips = [[skip for batch in run for chunk in batch for skip in chunk.skips] for run in found]
    assert skips[0] == skips[1] and skips[0]
    assert skips[0][0].reason == "damaged_image" and "0x" not in skips[0][0].detail


def png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "PNG")
    return out.getvalue()
