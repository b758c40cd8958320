"""`clipvip-data shard` without a list: each video of the folder is one clip."""

import json
from pathlib import Path

import pytest

from clipvip.shards.tar.reader import list_shards, read_shard
from commands import error_of, run, run_well
from make_videos import make_video


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    make_video(folder / "b.mp4", num_frames=60)
    make_video(folder / "below" / "two words.mkv", num_frames=30)
    make_video(folder / ("long" * 20 + ".mp4"), num_frames=30)
    (folder / "broken.mp4").write_bytes(b"\0" * 100)
    return folder


def test_each_video_is_a_clip_with_its_subtitles(videos: Path, tmp_path: Path) -> None:
    subtitles = tmp_path / "subtitles"
    subtitles.mkdir()
    lines = "1\n00:00:00,000 --> 00:00:01,000\nhello\n\n2\n00:00:01,000 --> 00:00:02,000\nyou\n"
    (subtitles / "b.srt").write_text(lines)
    out = tmp_path / "out"
    words = ("shard", "--videos", videos, "--subtitles", subtitles, "--out", out, "--workers", 1)
    run_well(*words, "--max-frames", 4)
    samples = [sample for path in list_shards(out) for sample in read_shard(path)]
    found = {sample.record.clip_id: (sample.record.span_seconds, sample.subtitle) for sample in samples}
    assert found == {"b": ((0.0, 2.0), "hello you"), "two words": ((0.0, 1.0), "")}
    assert all(len(sample.record.frame_seconds) <= 4 for sample in samples)
    skips = json.loads((out / "report.json").read_text())["skipped_by_reason"]
    assert {reason: entry["count"] for reason, entry in skips.items()} == {
        "undecodable_video": 1,
        "unsafe_id": 1,
    }
    first = {path.name: path.read_bytes() for path in list_shards(out)}
    run_well(*words, "--max-frames", 4)
    assert {path.name: path.read_bytes() for path in list_shards(out)} == first


def test_other_videos_are_another_list(tmp_path: Path) -> None:
    make_video(tmp_path / "videos" / "a.mp4", num_frames=30)
    words = ("shard", "--videos", tmp_path / "videos", "--out", tmp_path / "out", "--workers", 1)
    run_well(*words)
    make_video(tmp_path / "videos" / "b.mp4", num_frames=30)
    refused = run(*words)
    assert refused.exit_code == 1 and "metadata_sha256" in error_of(refused)


def test_what_cannot_be_done_is_said(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    for words, message in (
        (("--videos", tmp_path / "none"), "holds no video files"),
        (("--videos", videos, "--max-frames", 4, "--store", "video"), "only with --store frames"),
    ):
        refused = run("shard", *words, "--out", tmp_path / "out")
        assert refused.exit_code == 1 and message in error_of(refused)
    refused = run("shard", "--videos", videos, "--dataset", "webvid/val", "--out", tmp_path / "out")
    assert refused.exit_code == 2 and "give its file or folder to --annotations" in refused.output
    assert not (tmp_path / "out").exists()
