"""Samples that cannot be used: what takes their places in a batch, and what is said of them."""

import io
import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image
from transformers import CLIPTokenizer

from batch_plans import batches, joined, plan_of
from clipvip.shards.errors import DatasetError
from clipvip.shards.tar.writer import write_shard
from make_shards import make_shard_folder, stored_clip


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
    """However much of the data a batch takes, up to all 17 usable samples, and whoever loads which rows."""
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
