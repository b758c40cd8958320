"""Samples, shards and manifests: what is written is what is read, by us and by plain webdataset."""

import io
import json
import os
import re
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.files.atomic import atomic_path
from clipvip.shards.files.claims import claim_folder, require_free_folder
from clipvip.shards.files.hashes import sha256_of_file
from clipvip.shards.format.clip import is_safe_key, make_key
from clipvip.shards.format.manifest import ShardRecord, read_manifest, write_manifest
from clipvip.shards.tar.reader import list_shards, read_samples, read_shard
from clipvip.shards.tar.writer import write_shard
from make_shards import make_shard_folder, stored_clip


def test_a_key_is_the_video_id_and_a_five_digit_number() -> None:
    assert make_key("QMi8x8o55Ns", 1) == "QMi8x8o55Ns_00001"


@pytest.mark.parametrize("video_id", ["", "..", ".", "../../x", "a/b", "a\\b", "a\x00b", "a\nb", "x" * 77])
def test_ids_that_could_name_a_path_are_refused(video_id: str) -> None:
    with pytest.raises(DatasetError, match="video id"):
        make_key(video_id, 0)


@given(st.text(min_size=1, max_size=76), st.integers(0, 10**6))
def test_every_accepted_id_gives_a_safe_key(video_id: str, number: int) -> None:
    try:
        key = make_key(video_id, number)
    except DatasetError:
        assert re.search(r"[/\\\x00-\x1f\x7f]", video_id) or set(video_id) == {"."}
    else:
        assert is_safe_key(key)


@given(st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=30, unique=True))
def test_different_ids_get_different_keys(video_ids: list[str]) -> None:
    keys = []
    for video_id in video_ids:
        try:
            keys.append(make_key(video_id, 7))
        except DatasetError:
            continue
    assert len(set(keys)) == len(keys)


def test_a_shard_reads_back(tmp_path: Path) -> None:
    clips = [stored_clip("abc", number, subtitle="h\u00e9llo \u4e16") for number in range(3)]
    record = write_shard(tmp_path / "000000.tar", clips)
    assert record.num_samples == 3
    assert record.num_bytes == (tmp_path / "000000.tar").stat().st_size
    assert record.sha256 == sha256_of_file(tmp_path / "000000.tar")
    samples = list(read_shard(tmp_path / "000000.tar"))
    assert [s.key for s in samples] == ["abc_00000", "abc_00001", "abc_00002"]
    for number, sample in enumerate(samples):
        assert sample.subtitle == "h\u00e9llo \u4e16"
        assert sample.num_frames == 9
        assert sample.record == clips[number].record
        frames = sample.decode([8, 0, 0, 4])
        assert frames.shape == (4, 32, 48, 3)
        expected_green = np.array([160, 0, 0, 80])
        assert np.abs(frames[..., 1].mean((1, 2)) - expected_green).max() < 4
        assert np.abs(frames[..., 0].mean((1, 2)) - 37 * number).max() < 4
        assert np.array_equal(sample.middle_frame(), frames[3])
        with Image.open(io.BytesIO(sample.jpeg(4))) as image:
            assert image.size == (48, 32)


def test_the_longest_id_fits_a_tar_header(tmp_path: Path) -> None:
    longest = stored_clip("é" + "x" * 75, 999_999_999)
    write_shard(tmp_path / "000000.tar", [longest])
    assert [s.key for s in read_shard(tmp_path / "000000.tar")] == [longest.record.key]


def test_plain_webdataset_and_tar_open_a_shard(tmp_path: Path) -> None:
    folder = make_shard_folder(tmp_path / "clips", num_shards=1)
    shard = list_shards(folder)[0]
    samples = list(webdataset.WebDataset(str(shard), shardshuffle=False).decode())
    assert [s["__key__"] for s in samples] == [f"video0_{n:05d}" for n in range(4)]
    assert samples[2]["txt"] == "words of clip 2 of video0"
    assert samples[2]["json"]["clip_id"] == "video0.2.mp4"
    assert samples[2]["mjpg"].startswith(b"\xff\xd8\xff")
    listing = subprocess.run(["tar", "-tf", str(shard)], capture_output=True, text=True, check=True)
    assert listing.stdout.split()[:3] == ["video0_00000.json", "video0_00000.txt", "video0_00000.mjpg"]


def test_equal_clips_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        write_shard(tmp_path / name, [stored_clip("abc", 0)])
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_a_failing_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "000000.tar"
    path.write_bytes(b"before")

    def broken():  # type: ignore[no-untyped-def]
        yield stored_clip("abc", 0)
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        write_shard(path, broken())
    assert path.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["000000.tar"]


def test_atomic_path_replaces_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_what_is_not_a_tar_is_named(tmp_path: Path) -> None:
    path = tmp_path / "000000.tar"
    path.write_bytes(b"not a tar at all" * 100)
    with pytest.raises(DatasetError, match=r"000000\.tar"):
        list(read_shard(path))


@pytest.mark.parametrize("cut", [0, 100, 700, 2000, 5000])
def test_a_truncated_tar_is_named(tmp_path: Path, cut: int) -> None:
    write_shard(tmp_path / "short.tar", [stored_clip("abc", n, num_frames=12) for n in range(2)])
    data = (tmp_path / "short.tar").read_bytes()
    (tmp_path / "short.tar").write_bytes(data[:cut])
    with pytest.raises(DatasetError, match=r"short\.tar"):
        list(read_shard(tmp_path / "short.tar"))


def test_a_member_that_leaves_the_folder_is_no_sample(tmp_path: Path) -> None:
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("../../evil_00000.json", "../../evil_00000.mjpg"):
            tar.addfile(tarfile.TarInfo(name))
    assert list(read_shard(path)) == []
    (skip,) = read_samples(path)
    assert isinstance(skip, Skip)
    assert (skip.reason, skip.detail) == ("wrong_members", "its name is not that of a clip")


def test_a_damaged_sample_is_there_to_be_counted(tmp_path: Path) -> None:
    path = tmp_path / "000000.tar"
    write_shard(path, [stored_clip("abc", number) for number in range(2)])
    path.write_bytes(path.read_bytes().replace(b'"schema"', b'"schemA"', 1))
    bad, good = read_shard(path)
    assert (bad.key, bad.problem) == ("abc_00000", "its KEY.json lacks schema")
    assert good.decode([0]).shape == (1, 32, 48, 3)
    for ask in (lambda: bad.decode([0]), lambda: bad.jpeg(0), lambda: bad.num_frames, bad.middle_frame):
        with pytest.raises(DatasetError, match=r"sample abc_00000: its KEY\.json lacks schema"):
            ask()


def test_list_shards_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder"):
        list_shards(tmp_path / "missing")
    captions = tmp_path / "captions"
    captions.mkdir()
    write_manifest(captions, stage="caption", options={}, shards=[])
    with pytest.raises(DatasetError, match="holds captions, not shards"):
        list_shards(captions)
    with pytest.raises(DatasetError, match="holds no shards"):
        list_shards(tmp_path)
    folder = make_shard_folder(tmp_path / "clips")
    assert [p.name for p in list_shards(folder)] == ["000000.tar", "000001.tar"]
    (folder / "000001.tar").unlink()
    with pytest.raises(DatasetError, match=r"000001\.tar.*missing"):
        list_shards(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(DatasetError, match="not JSON"):
        read_manifest(folder)


def test_other_options_are_refused_by_name(tmp_path: Path) -> None:
    with claim_folder(tmp_path, {"fps": 3, "size": 256}):
        require_free_folder(tmp_path, {"size": 256, "fps": 3})
    with pytest.raises(DatasetError, match="fps: 3 there, 6 asked"):
        require_free_folder(tmp_path, {"size": 256, "fps": 6})


def test_a_manifest_is_written_row_by_row_as_it_would_be_in_one(tmp_path: Path) -> None:
    options = {"empty": [], "text": 'é"[]', "shards": []}
    for count in (0, 1, 3):
        records = [ShardRecord(f"{n:06d}.tar", n + 1, 10 * n, "ab" * 32) for n in range(count)]
        write_manifest(tmp_path, stage="shard", options=options, shards=iter(records))
        rows = [
            {"name": r.name, "samples": r.num_samples, "bytes": r.num_bytes, "sha256": r.sha256}
            for r in records
        ]
        whole = {"schema": 1, "stage": "shard", "options": options, "shards": rows}
        text = (tmp_path / "manifest.json").read_text()
        assert text == json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (os.mkfifo, "but a pipe or a device"),
        (os.mkdir, "but a folder"),
        (lambda path: os.symlink("nowhere", path), "but a link to nothing"),
    ],
    ids=["pipe", "folder", "link"],
)
def test_what_is_no_file_under_the_name_of_a_shard_is_named(
    make: Callable[[Path], None], words: str, tmp_path: Path
) -> None:
    make(tmp_path / "000000.tar")
    with pytest.raises(DatasetError, match=rf"000000\.tar: not a file, {words}; remove it"):
        list_shards(tmp_path)


@pytest.mark.parametrize("members", [(), ("README.md",)])
def test_a_shard_without_a_sample_is_told_of(members: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "000000.tar"
    with tarfile.open(path, "w") as tar:
        for name in members:
            tar.addfile(tarfile.TarInfo(name))
    expected = [Skip("empty_shard", "000000.tar", "holds no samples")]
    assert list(read_samples(path)) == expected
    assert list(read_shard(path)) == []


def test_what_is_as_by_default_is_called_so(tmp_path: Path) -> None:
    with claim_folder(tmp_path, {"frames": 3}):
        pass
    for asked in ({}, {"frames": None}):
        with pytest.raises(DatasetError, match="frames: 3 there, the default asked"):
            require_free_folder(tmp_path, asked)
