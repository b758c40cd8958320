"""`clipvip-data shard --dataset`: from a set's own annotation files and a folder of videos to shards."""

import json
from pathlib import Path

import pytest
from click.testing import Result

from clipvip.shards.format.manifest import read_manifest
from clipvip.shards.tar.reader import Sample, list_shards, read_shard
from commands import run
from make_videos import make_video, read_number


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of one to four seconds, named in the ways that people keep them."""
    folder = tmp_path_factory.mktemp("videos")
    names = ["video0.mp4", "movie/video1.avi.mp4", "deeper/x1.mp4", "v_x2.mkv"]
    for number, name in enumerate(names, start=1):
        make_video(folder / name, num_frames=30 * number)
    return folder


def shard(dataset: str, annotations: Path, videos: Path, out: Path, *options: str) -> Result:
    inputs = ("--dataset", dataset, "--annotations", annotations, "--videos", videos)
    return run("shard", *inputs, "--out", out, "--workers", 1, *options)


def samples_by_video(out: Path) -> dict[str, Sample]:
    return {sample.record.video_id: sample for path in list_shards(out) for sample in read_shard(path)}


def test_alternatives_stay_beside_each_other(videos: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("video,caption\nvideo0,one\nvideo1,other\nvideo0,two\nmissing,three\n")
    result = shard("captions", path, videos, tmp_path / "out")
    assert result.exit_code == 0, result.output
    found = samples_by_video(tmp_path / "out")
    assert {video: sample.sentences for video, sample in found.items()} == {
        "video0": ["one", "two"],
        "video1": ["other"],
    }
    assert {sample.sentences_are for sample in found.values()} == {"alternatives"}
    assert [found[video].subtitle for video in ("video0", "video1")] == ["", "other"]
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None and manifest.options["dataset"] == "captions"
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {reason: entry["count"] for reason, entry in report["skipped_by_reason"].items()} == {
        "missing_video": 1
    }
    assert report["counts"]["clips_without_subtitle"] == 0


def test_a_clip_is_the_whole_video(videos: Path, tmp_path: Path) -> None:
    entries = {
        "v_x1": {"duration": 3.0, "timestamps": [[1, 3], [0, 2]], "sentences": ["Then.", "First."]},
        "v_x2": {"duration": 4.0, "timestamps": [[0, 4]], "sentences": ["All."]},
    }
    (tmp_path / "train.json").write_text(json.dumps(entries))
    result = shard("activitynet/train", tmp_path, videos, tmp_path / "out")
    assert result.exit_code == 0, result.output
    found = samples_by_video(tmp_path / "out")
    assert [found[video].subtitle for video in ("v_x1", "v_x2")] == ["First. Then.", "All."]
    for video, seconds in (("v_x1", 3), ("v_x2", 4)):
        sample = found[video]
        assert sample.record.span_seconds == pytest.approx([0, seconds], abs=0.05)
        shown = [read_number(picture) for picture in sample.decode(range(sample.num_frames))]
        assert shown == list(range(0, 30 * seconds, 10))


def test_at_most_so_many_frames_of_a_whole_video(videos: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"clip_id": "v_x2", "text": "four seconds"}\n')
    assert shard("captions", path, videos, tmp_path / "out", "--max-frames", "4").exit_code == 0
    (sample,) = samples_by_video(tmp_path / "out").values()
    assert [read_number(picture) for picture in sample.decode(range(4))] == [0, 30, 70, 110]
    refused = shard("captions", path, videos, tmp_path / "v", "--max-frames", "4", "--store", "video")
    assert refused.exit_code == 1 and "only with --store frames" in refused.output


def test_a_second_run_adds_nothing_and_another_set_is_refused(videos: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("video,caption\nvideo0,one\nvideo1,other\n")
    out = tmp_path / "out"
    assert shard("captions", path, videos, out).exit_code == 0
    before = {file.name: file.read_bytes() for file in out.glob("*.tar")}
    assert shard("captions", path, videos, out).exit_code == 0
    assert {file.name: file.read_bytes() for file in out.glob("*.tar")} == before
    refused = shard("paragraphs", path, videos, out)
    assert refused.exit_code == 1 and "dataset" in refused.output


def test_videos_are_found_whatever_their_names(tmp_path: Path) -> None:
    files = {
        "v_--a_b-1": "--a_b-1.mkv",
        "v_-abcdefghij": "more/v_-abcdefghij.MP4",
        "v__x": "v__x.mkv.mp4",
        "v_v_y": "v_y.mov",
        "v_z.1": "z.1.avi",
    }
    for name in files.values():
        make_video(tmp_path / "videos" / name, num_frames=30)
    rows = [json.dumps({"clip_id": video, "text": [f"{video}."]}) for video in files]
    (tmp_path / "val1.jsonl").write_text("\n".join(rows))
    result = shard("activitynet/val1", tmp_path / "val1.jsonl", tmp_path / "videos", tmp_path / "out")
    assert result.exit_code == 0, result.output
    found = samples_by_video(tmp_path / "out")
    assert {video: sample.subtitle for video, sample in found.items()} == {v: f"{v}." for v in files}
    assert {sample.num_frames for sample in found.values()} == {3}


def test_captions_that_changed_beside_a_list_are_others(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "MSRVTT_train.9k.csv").write_text("video_id\nvideo0\n")
    missing = shard("msrvtt/train9k", tmp_path, videos, tmp_path / "out")
    assert (
        missing.exit_code == 1 and "MSRVTT_data.json: no such file; msrvtt/train9k needs it" in missing.output
    )
    for number, caption in enumerate(("one", "two")):
        content = {"videos": [], "sentences": [{"video_id": "video0", "caption": caption}]}
        (tmp_path / "MSRVTT_data.json").write_text(json.dumps(content))
        result = shard("msrvtt/train9k", tmp_path, videos, tmp_path / "out")
        assert result.exit_code == number, result.output
    assert "metadata" in result.output and result.output.count("\n") == 1
    assert [sample.subtitle for sample in samples_by_video(tmp_path / "out").values()] == ["one"]


def test_a_test_with_several_sentences_is_refused_at_once(videos: Path, tmp_path: Path) -> None:
    path = tmp_path / "test1ka.jsonl"
    path.write_text('{"clip_id": "video0", "text": ["one", "two"]}\n')
    result = shard("msrvtt/1ka", path, videos, tmp_path / "out")
    assert result.exit_code == 1 and result.output.count("\n") == 1
    assert "has 2 sentences for video0, but a video of msrvtt/1ka has one" in result.output
    assert not (tmp_path / "out").exists()


def test_mistakes_are_told_in_one_line(videos: Path, tmp_path: Path) -> None:
    for dataset, options, message in [
        ("msrvtt", [], "name a split of it: msrvtt/train9k"),
        ("didemo/test", [], "has no annotations of didemo/test (looked for test_data.json"),
        ("didemo/test", ["--subtitles", str(tmp_path)], "leave --subtitles out"),
    ]:
        result = shard(dataset, tmp_path, videos, tmp_path / "out", *options)
        assert result.exit_code == 1
        assert message in result.output and result.output.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_published_list_of_clips_is_cut_as_it_says(videos: Path, tmp_path: Path) -> None:
    entry = {"start": [0.5, 1.5, 1.5], "end": [1.5, 2.5, 2.5], "text": ["first cut", "then mix", "you mix"]}
    path = tmp_path / "caption.json"
    path.write_text(json.dumps({"x1": entry, "video1": {"start": [5], "end": [6], "text": ["too late"]}}))
    out = tmp_path / "out"
    # What is kept of whole videos is known at their end only; of clips before.
    result = shard("howto100m", path, videos, out, "--store", "video", "--max-frames", "2")
    assert result.exit_code == 0, result.output
    samples = [sample for shard_path in list_shards(out) for sample in read_shard(shard_path)]
    assert [(s.record.key, s.record.clip_id, s.record.span_seconds, s.sentences) for s in samples] == [
        ("x1_00000", "x1.0.mp4", (0.5, 1.5), ["first cut"]),
        ("x1_00001", "x1.1.mp4", (1.5, 2.5), ["then mix", "you mix"]),
    ]
    assert samples[0].subtitle == "first cut"
    report = json.loads((out / "report.json").read_text())
    assert report["counts"]["videos"] == 2
    assert report["skipped_by_reason"]["span_past_end"]["count"] == 1
    assert shard("howto100m", path, videos, out, "--store", "video", "--max-frames", "2").exit_code == 0


def test_a_known_list_under_a_wrong_name_is_said_by_name(videos: Path, tmp_path: Path) -> None:
    path = tmp_path / "caption.json"
    path.write_text(json.dumps({"x1": {"start": [0, 1], "end": [1, 2], "text": ["a", "b"]}}))
    refused = shard("captions", path, videos, tmp_path / "out")
    assert refused.exit_code == 1 and len(refused.output.splitlines()) == 1
    assert "looks like HowTo100M's list, not one of captions; give --dataset howto100m" in refused.output
    refused = run("shard", "--metadata", path, "--videos", videos, "--out", tmp_path / "out", "--workers", 1)
    assert (
        refused.exit_code == 1 and "looks like HowTo100M's list; give --dataset howto100m" in refused.output
    )
    hdvila = tmp_path / "clips.jsonl"
    hdvila.write_text('{"video_id": "x1", "clip": [{"clip_id": "x1.0.mp4", "span": [0, 1]}]}\n')
    refused = shard("captions", hdvila, videos, tmp_path / "out")
    assert refused.exit_code == 1 and "leave --dataset out" in refused.output
    assert not (tmp_path / "out").exists()
