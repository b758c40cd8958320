"""`clipvip-data shard --from-shards`: samples of others become clips of ours, by the rules of videos."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from click.testing import Result

import commands
from caption_sources import write_rows
from clipvip.shards.format.captions import read_captions
from clipvip.shards.tar.reader import Sample, list_shards
from clipvip.shards.tar.writer import write_shard
from commands import error_of, run, run_well
from foreign_shards import (
    make_img2dataset,
    make_video2dataset,
    picture_bytes,
    record_of,
    video_bytes,
    write_tar,
)
from make_shards import make_shard_folder, stored_clip
from make_videos import make_video, read_number, write_metadata
from outputs import content, report, samples, skipped


def convert(given: object, out: Path, *options: object) -> Result:
    return run("shard", "--from-shards", given, "--out", out, "--workers", 1, *options)


def numbers(sample: Sample) -> list[int]:
    return [read_number(picture) for picture in sample.decode(range(sample.num_frames))]


def test_videos_are_cut_by_the_rules_of_videos(tmp_path: Path) -> None:
    """The same frames as of the same file in a folder of videos; texts, ids and KEY.json stay."""
    folder, out = make_video2dataset(tmp_path / "theirs"), tmp_path / "out"
    result = convert(folder, out, "--shard-size", 4, "--fps", 2, "--size", 64)
    assert result.exit_code == 0, result.output
    assert [path.name for path in list_shards(out)] == ["000000.tar", "000001.tar"]
    found = samples(out)
    assert list(found) == [f"{shard:05d}{n:04d}_00000" for shard in range(2) for n in range(3)]
    sample = found["000010000_00000"]
    assert (sample.record.clip_id, sample.record.video_id) == ("000010000",) * 2
    assert sample.subtitle == "a man\twaves  his hat\n"
    assert sample.record.metadata == json.loads(record_of("000010000", sample.subtitle))
    video = tmp_path / "videos" / "v.mp4"
    make_video(video, num_frames=20, fps=10)
    clips = write_metadata(tmp_path / "clips.jsonl", {"v": [(0, 2)]})
    words = ("--metadata", clips, "--videos", video.parent, "--fps", 2, "--size", 64, "--workers", 1)
    run_well("shard", *words, "--out", tmp_path / "ours")
    ours = samples(tmp_path / "ours")["v_00000"]
    assert sample.pixels == ours.pixels and numbers(sample) == [0, 5, 10, 15]
    assert sample.record.frame_seconds == ours.record.frame_seconds
    assert sample.record.span_seconds == pytest.approx((0, 2))
    run_well("verify", out)
    counts = report(out)["counts"]
    assert (counts["videos"], counts["clips"], counts["frames"], counts["clips_without_subtitle"]) == (
        6,
        6,
        24,
        0,
    )


@pytest.mark.parametrize("store", ["frames", "video"])
def test_pictures_are_clips_of_one_frame(store: str, tmp_path: Path) -> None:
    folder = make_img2dataset(tmp_path / "theirs")
    odd = {"odd": {"png": picture_bytes("PNG", mode="RGBA"), "txt": b"with alpha"}}
    write_tar(folder / "00001.tar", odd)
    assert convert(folder, tmp_path / "out", "--size", 16, "--store", store).exit_code == 0
    found = samples(tmp_path / "out")
    assert list(found) == [*(f"{n:09d}_00000" for n in range(4)), "odd_00000"]
    for sample in found.values():
        assert (sample.num_frames, sample.record.width, sample.record.height) == (1, 24, 16)
    red, *_ = found["000000003_00000"].middle_frame().reshape(-1, 3).tolist()
    assert abs(red[0] - 180) < 12 and red[1] < 70
    run_well("verify", tmp_path / "out")
    assert found["odd_00000"].subtitle == "with alpha"


def test_keys_of_ours_stay_and_others_are_made_ours(tmp_path: Path) -> None:
    data = video_bytes(tmp_path)
    keys = ["a_00001", "a_00002", "v_7", "v_00007", "sub/clip 1", "é", "b", "b_00000", "x" * 90]
    write_tar(tmp_path / "theirs" / "0.tar", {key: {"mp4": data, "txt": key.encode()} for key in keys})
    write_tar(tmp_path / "theirs" / "1.tar", {"a_00001": {"mp4": data, "txt": b"again"}})
    assert convert(tmp_path / "theirs", tmp_path / "out").exit_code == 0
    found = samples(tmp_path / "out")
    assert [key for key in found if "-" not in key] == [
        "a_00001",
        "a_00002",
        "v_7_00000",
        "v_00007",
        "b_00000",
    ]
    assert [sample.record.clip_id for sample in found.values()] == [*keys[:7]]
    assert found["a_00001"].subtitle == "a_00001"
    assert skipped(tmp_path / "out") == [
        ("duplicate_clip", "b_00000"), ("unsafe_id", "0.tar, sample 9"), ("duplicate_clip", "a_00001"),
    ]  # fmt: skip
    run_well("verify", tmp_path / "out")


def test_captions_that_were_made_before_find_their_clips(tmp_path: Path) -> None:
    folder = make_video2dataset(tmp_path / "theirs", num_shards=1)
    rows = write_rows(tmp_path / "rows.jsonl", [{"key": "000000001", "caption": "made before"}])
    assert convert(folder, tmp_path / "out").exit_code == 0
    words = ("--shards", tmp_path / "out", "--from", rows, "--out", tmp_path / "captions", "--workers", 1)
    run_well("import-captions", *words)
    assert read_captions(tmp_path / "captions", "000000") == {"000000001_00000": "made before"}


def test_several_captions_of_a_sample_are_alternatives(tmp_path: Path) -> None:
    members = {"mp4": video_bytes(tmp_path), "json": json.dumps({"captions": ["one", "two"]}).encode()}
    write_tar(tmp_path / "theirs" / "0.tar", {"k": members})
    assert convert(tmp_path / "theirs", tmp_path / "out").exit_code == 0
    (sample,) = samples(tmp_path / "out").values()
    assert (sample.subtitle, sample.sentences, sample.sentences_are) == ("", ["one", "two"], "alternatives")
    assert report(tmp_path / "out")["counts"]["clips_without_subtitle"] == 0


def test_what_is_damaged_is_told_and_the_rest_is_made(tmp_path: Path) -> None:
    data, theirs = video_bytes(tmp_path), tmp_path / "theirs"
    bad = {
        "cut": {"mp4": data[: len(data) // 2], "txt": b"a"},
        "junk": {"jpg": b"junk", "txt": b"a"},
        "latin": {"mp4": data, "txt": b"caf\xe9"},
        "sound": {"m4a": data, "txt": b"a", "json": b"{}"},
        "other": {"webm": data, "txt": b"a"},
        "good": {"mp4": data, "txt": b"good"},
    }
    write_tar(theirs / "0.tar", bad)
    whole = write_tar(
        tmp_path / "whole.tar", {key: {"mp4": data, "txt": b"a"} for key in "pqrs"}
    ).read_bytes()
    (theirs / "1.tar").write_bytes(whole[: len(whole) // 2])
    write_shard(theirs / "2.tar", [stored_clip("ours", 0)])
    write_tar(theirs / "3.tar", {"a": {"mkv": data}})
    assert convert(theirs, tmp_path / "out").exit_code == 0
    found = skipped(tmp_path / "out")
    assert found[:5] == [
        ("undecodable_video", "cut"), ("undecodable_picture", "junk"), ("damaged_sample", "latin"),
        ("wrong_members", "sound"), ("wrong_members", "other"),
    ]  # fmt: skip
    assert ("unreadable_shard", "1.tar") in found and found[-2:] == [
        ("wrong_members", "ours_00000"), ("empty_shard", "3.tar"),
    ]  # fmt: skip
    assert {"good_00000", "p_00000"} <= set(samples(tmp_path / "out"))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_run_goes_on_to_the_same_bytes(workers: int, tmp_path: Path) -> None:
    folder = make_video2dataset(tmp_path / "theirs", num_shards=4, clips_per_shard=4)
    options = ("--shard-size", 3, "--workers", workers)
    assert convert(folder, tmp_path / "undisturbed", *options).exit_code == 0
    out = tmp_path / "out"
    process = commands.start("shard", "--from-shards", folder, "--out", out, *options)
    deadline = time.monotonic() + 60
    while not (out / "000000.tar").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert convert(folder, out, *options).exit_code == 0
    assert content(out) == content(tmp_path / "undisturbed")
    assert convert(folder, out, *options).exit_code == 0
    assert content(out) == content(tmp_path / "undisturbed")


def test_patterns_files_and_mistakes(tmp_path: Path) -> None:
    folder = make_video2dataset(tmp_path / "theirs", num_shards=3, clips_per_shard=1)
    given = ("--from-shards", folder / "00002.tar", "--from-shards", folder / "0000[01].tar")
    run_well("shard", *given, "--out", tmp_path / "two", "--workers", 1)
    keys = list(samples(tmp_path / "two"))
    assert keys == ["000020000_00000", "000000000_00000", "000010000_00000"]
    planned = json.loads(convert(folder, tmp_path / "dry", "--dry-run", "--json").stdout)["counts"]
    assert (planned["clips"], planned["clips_done"], planned["videos_without_file"]) == (3, 0, 0)
    assert not (tmp_path / "dry").exists()
    out = tmp_path / "out"
    assert "no such shards" in error_of(convert(tmp_path / "none*.tar", out))
    assert "a URL cannot be used here" in error_of(convert("s3://bucket/clips", out))
    wrong = convert(folder, out, "--videos", tmp_path)
    assert wrong.exit_code == 2 and "leave --videos out" in wrong.output
    assert "only with --store frames" in error_of(convert(folder, out, "--max-frames", 4, "--store", "video"))
    missing = run("shard", "--out", out)
    assert missing.exit_code == 2 and "Missing option '--videos'" in missing.output
    assert not out.exists()
    ours = make_shard_folder(tmp_path / "ours", num_shards=1, clips_per_shard=1)
    assert "no clip could be stored" in error_of(convert(ours, out))
