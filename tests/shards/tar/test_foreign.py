"""Samples of others: what is known of one becomes a record like ours, and what is damaged is told."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from PIL import Image

from bad_samples import members_of, with_record
from clipvip.shards import decode_clip
from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.sources.texts import read_texts
from clipvip.shards.tar.index import ShardFile
from clipvip.shards.tar.reader import Sample, read_record, read_samples, read_shard
from foreign_shards import (
    FPS,
    NUM_FRAMES,
    TEXTS,
    make_img2dataset,
    make_video2dataset,
    picture_bytes,
    record_of,
    video_bytes,
    write_tar,
)
from make_videos import make_edited_video, read_number


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return video_bytes(tmp_path_factory.mktemp("video"))


def only(path: Path, **options: Any) -> Sample:
    (sample,) = read_samples(path, **options)
    assert isinstance(sample, Sample), sample
    return sample


def test_a_video_is_a_clip_with_all_its_frames(tmp_path: Path) -> None:
    folder = make_video2dataset(tmp_path / "clips", num_shards=1)
    samples = list(read_shard(folder / "00000.tar"))
    assert [(s.key, s.subtitle) for s in samples] == [(f"{n:09d}", text) for n, text in enumerate(TEXTS[:3])]
    sample = samples[0]
    record = sample.record
    assert (record.key, record.video_id, record.clip_id) == ("000000000",) * 3
    assert record.frame_seconds == pytest.approx([n / FPS for n in range(NUM_FRAMES)])
    assert record.span_seconds == pytest.approx((0, NUM_FRAMES / FPS))
    assert (record.width, record.height, record.source_fps) == (160, 96, FPS)
    assert record.metadata is not None and record.metadata["url"] == "https://example.org/000000000"
    assert [read_number(picture) for picture in sample.decode([3, 19, 3, 0])] == [3, 19, 3, 0]
    assert read_number(sample.middle_frame()) == NUM_FRAMES // 2
    (light, *_) = read_samples(folder / "00000.tar", with_pixels=False)
    assert isinstance(light, Sample)
    assert (light.clip_id, light.subtitle) == ("000000000", TEXTS[0])
    with pytest.raises(DatasetError, match="were not read"):
        _ = light.record


def test_packets_that_are_not_to_be_shown_are_no_frames(tmp_path: Path) -> None:
    data = make_edited_video(tmp_path / "edited.mp4").read_bytes()
    sample = only(write_tar(tmp_path / "0.tar", {"edited": {"mp4": data, "txt": b"a"}}))
    numbers = [read_number(picture) for picture in sample.decode(range(sample.num_frames))]
    assert numbers == sorted(set(numbers)) and len(numbers) > 3


@pytest.mark.parametrize(
    ("extension", "kind", "mode", "options"),
    [
        ("jpg", "JPEG", "RGB", {}),
        ("jpg", "JPEG", "RGB", {"progressive": True}),
        ("jpeg", "JPEG", "L", {}),
        ("jpg", "JPEG", "CMYK", {}),
        ("png", "PNG", "RGBA", {}),
        ("png", "PNG", "P", {}),
        ("webp", "WEBP", "RGB", {"lossless": True}),
        ("jpg", "PNG", "RGB", {}),  # img2dataset keeps names
    ],
)
def test_a_picture_is_a_clip_of_one_frame(
    extension: str, kind: str, mode: str, options: dict[str, Any], tmp_path: Path
) -> None:
    data = picture_bytes(kind, mode=mode, **options)
    record = record_of("p", "a red field", width=48, height=32)
    sample = only(
        write_tar(tmp_path / "0.tar", {"p": {extension: data, "txt": b"a red field", "json": record}})
    )
    assert (sample.num_frames, sample.record.width, sample.record.height) == (1, 48, 32)
    assert (sample.subtitle, sample.record.span_seconds) == ("a red field", (0, 0))
    expected = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    for picture in (sample.middle_frame(), *sample.decode([0, 0])):
        assert np.abs(picture.astype(int) - expected).max() <= 2


def test_texts_are_where_they_stand(video: bytes, tmp_path: Path) -> None:
    lists = json.dumps({"captions": ["one", "two", "one"]}).encode()
    long = record_of("k", "short", yt_meta_dict={"info": "x" * 100_000})
    cases: dict[str, tuple[dict[str, bytes], str, list[str]]] = {
        "txt": ({"txt": b" a\nb ", "json": record_of("k", "other")}, " a\nb ", []),
        "json": ({"json": record_of("k", "of json")}, "of json", []),
        "list": ({"json": lists}, "", ["one", "two"]),
        "both": ({"json": lists, "txt": b"this"}, "this", []),
        "none": ({"txt": b""}, "", []),
        "null": ({"json": b'{"caption": null}', "m4a": b"sound"}, "", []),
        "long": ({"json": long}, "short", []),
        "sub/folder é": ({"txt": b"named"}, "named", []),
    }
    path = write_tar(
        tmp_path / "0.tar", {key: {"mp4": video, **members} for key, (members, *_) in cases.items()}
    )
    found = {sample.key: sample for sample in read_samples(path) if isinstance(sample, Sample)}
    assert list(found) == list(cases)
    for key, (_, subtitle, sentences) in cases.items():
        assert (found[key].subtitle, found[key].sentences) == (subtitle, sentences), key
    assert found["list"].sentences_are == "alternatives"
    assert found["long"].record.metadata == {"caption": "short"}
    texts = list(read_texts(tmp_path))
    assert texts == ["a b", "of json", "one two", "this", "", "", "short", "named"]


def test_the_key_says_which_video_it_is_of(video: bytes, tmp_path: Path) -> None:
    keys = ["000000001_00002", "clip_a", "v_7", "12"]
    path = write_tar(tmp_path / "0.tar", {key: {"mp4": video, "txt": b"a"} for key in keys})
    ids = [sample.record.video_id for sample in read_shard(path)]
    assert ids == ["000000001", "clip_a", "v", "12"]


def test_what_is_damaged_is_named_and_the_next_is_read(video: bytes, tmp_path: Path) -> None:
    bomb = picture_bytes("JPEG")
    place = bomb.index(b"\xff\xc0") + 5
    bomb = bomb[:place] + (65_500).to_bytes(2, "big") * 2 + bomb[place + 4 :]
    bad = {
        "junk": {"mp4": b"no video" * 99, "txt": b"a"},
        "cut": {"mp4": video[: len(video) // 2], "txt": b"a"},
        "empty": {"mp4": b"", "txt": b"a"},
        "deep": {"mp4": video, "json": b'{"a":' * 100_000},
        "list": {"mp4": video, "json": b"[1]"},
        "latin": {"mp4": video, "txt": b"caf\xe9"},
        "junk-picture": {"jpg": b"junk" * 9, "txt": b"a"},
        "bomb": {"jpg": bomb, "txt": b"a"},
    }
    path = write_tar(tmp_path / "0.tar", {**bad, "good": {"mp4": video, "txt": b"a"}})
    *skips, good = read_samples(path)
    assert isinstance(good, Sample) and good.key == "good"
    assert [(s.reason, s.what) for s in skips if isinstance(s, Skip)] == [
        ("damaged_sample", key) for key in bad
    ]
    assert all(isinstance(s, Skip) and s.detail and "\n" not in s.detail for s in skips)
    small = write_tar(
        tmp_path / "1.tar",
        {"large": {"mp4": video, "txt": b"a"}, "picture": {"png": picture_bytes("PNG"), "txt": b"a"}},
    )
    assert [isinstance(s, Skip) for s in read_samples(small, max_pixels=100)] == [True, True]
    control = write_tar(tmp_path / "2.tar", {"a\x1bb": {"mp4": video, "txt": b"a"}, "alone": {"mp4": video}})
    assert [s.reason for s in read_samples(control) if isinstance(s, Skip)] == ["wrong_members"] * 2


def test_a_picture_that_breaks_off_is_found_when_it_is_decoded(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "PNG")
    sample = only(write_tar(tmp_path / "0.tar", {"cut": {"png": out.getvalue()[:3000], "txt": b"a"}}))
    with pytest.raises(DatasetError, match="sample cut: its picture does not decode"):
        sample.middle_frame()


def test_ours_stay_ours(tmp_path: Path, video: bytes) -> None:
    ours = members_of(0)
    path = write_tar(tmp_path / "0.tar", {"bad_00000": ours})
    with ShardFile(path) as shard:
        (span,) = shard.spans()
        assert not read_record(shard, span).is_foreign
    damaged = with_record(
        {"json": ours["json"], "txt": ours["txt"], "mp4": video}, width=None, frame_bytes=[]
    )
    (found,) = read_samples(write_tar(tmp_path / "1.tar", {"bad_00000": damaged}))
    assert isinstance(found, Skip) and found.reason == "damaged_sample" and "width" in found.detail
    with_picture = {**ours, "jpg": picture_bytes("JPEG")}
    assert only(write_tar(tmp_path / "2.tar", {"bad_00000": with_picture})).num_frames == 3


def test_loops_of_others_read_them(tmp_path: Path) -> None:
    folders = (make_video2dataset(tmp_path / "v"), make_img2dataset(tmp_path / "i"))
    for folder, text in zip(folders, ("a bird flies", "picture 0"), strict=True):
        urls = [str(path) for path in sorted(folder.glob("*.tar"))]
        first, *others = webdataset.WebDataset(urls, shardshuffle=False).map(decode_clip)
        assert (first["subtitle"], first["frames"].shape[0], len(others) > 2) == (text, 12, True)
