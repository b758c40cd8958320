"""`clipvip-data clips`: a list for a folder of videos, which `shard` then cuts without a loss."""

import json
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

import clipvip
from clipvip import extras
from clipvip.pipeline.runtime.report import duration
from clipvip.shards.sources.hdvila import read_sources
from commands import error_of, run, run_well
from make_videos import make_video

COLOURS = ((200, 30, 30), (20, 160, 40), (30, 40, 220), (230, 220, 40))
SECONDS_A_SHOT = 2.0


def make_shots(path: Path, num_shots: int = 4, fps: int = 25) -> Path:
    """A video of plain colours that drift a little, another each two seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "veryfast", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 320, 192, "yuv420p"
        for number in range(round(num_shots * SECONDS_A_SHOT * fps)):
            shot = int(number / fps / SECONDS_A_SHOT)
            picture = np.full((192, 320, 3), COLOURS[shot % len(COLOURS)], np.uint8)
            picture[:, : number % 320] //= 2
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good videos in several containers, and files that are none, or damaged."""
    folder = tmp_path_factory.mktemp("videos")
    make_video(folder / "one.mp4", num_frames=30 * 17)
    make_video(folder / "below" / "two words.mkv", num_frames=30 * 3)
    make_video(folder / "three.avi", num_frames=30 * 9, codec="mpeg4", time_base=Fraction(1, 30))
    make_video(folder / "twice.mp4", num_frames=30)
    make_video(folder / "twice.webm", num_frames=30, codec="libvpx")
    whole = make_video(folder / "cut.mp4", num_frames=30 * 12, movflags="faststart").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("ffconcat version 1.0\nfile one.mp4\n")
    make_video(folder / ("long" * 20 + ".mp4"), num_frames=30)
    (folder / "notes.txt").write_text("no video")
    return folder


def spans(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Video -> its spans, read as `shard` does."""
    found = {}
    for source in read_sources(path):
        assert not source.skips
        found[source.video_id] = [(clip.start_seconds, clip.end_seconds) for clip in source.clips]
        assert [clip.clip_id for clip in source.clips] == [
            f"{source.video_id}.{number}.mp4" for number in range(len(source.clips))
        ]
    return found


def skipped(out: Path) -> dict[str, str]:
    lines = (out.with_name(f"{out.name}.report") / "skipped.jsonl").read_text().splitlines()
    return {entry["what"]: entry["reason"] for entry in map(json.loads, lines)}


LEFT_OUT = {
    "cut.mp4": "cut_short",
    "empty.mp4": "undecodable_video",
    "text.mp4": "undecodable_video",
    "twice.webm": "duplicate_id",
    "long" * 20 + ".mp4": "unsafe_id",
}


def test_pieces_and_what_is_left_out(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "clips.jsonl"
    printed = run_well("clips", videos, "--out", out, "--workers", 2).output
    found = spans(out)
    cut = found.pop("cut")
    # Of AVI the first frame has the time of its packet.
    assert np.allclose(found.pop("three"), [(0, 8), (8, 9)], atol=0.05)
    assert found == {
        "one": [(0, 8), (8, 16), (16, 17)],
        "twice": [(0, 1)],
        "two words": [(0, 3)],
    }
    assert cut and cut[-1][1] < 11
    assert skipped(out) == LEFT_OUT
    seconds = sum(end - start for some in spans(out).values() for start, end in some)
    assert f"videos, {duration(seconds)} -> {out}" in printed and "cut_short 1" in printed
    # All that is listed can be cut.
    shards = tmp_path / "shards"
    run_well("shard", "--metadata", out, "--videos", videos, "--out", shards, "--workers", 1)
    assert (shards / "skipped.jsonl").read_text() == ""


@pytest.mark.needs("scenedetect")
def test_shots_at_the_times_of_our_frames(tmp_path: Path) -> None:
    make_shots(tmp_path / "videos" / "cuts.mp4")
    make_video(tmp_path / "videos" / "still.mp4", times=[0, 0.5, 25.0], fps=25)
    shutil.copy(tmp_path / "videos" / "cuts.mp4", tmp_path / "videos" / "torn.mp4")
    with (tmp_path / "videos" / "torn.mp4").open("r+b") as file:
        file.seek(file.seek(0, 2) // 2)
        file.write(b"\0" * 200)
    out = tmp_path / "clips.jsonl"
    run_well("clips", tmp_path / "videos", "--out", out, "--by", "shots", "--workers", 1)
    found = spans(out)
    assert found["cuts"] == [(0, 2), (2, 4), (4, 6), (6, 8)]
    assert max(end - start for start, end in found["still"]) <= 20
    out = tmp_path / "short.jsonl"
    options = ("--by", "shots", "--seconds", 1, "--shortest", 0.5)
    run_well("clips", tmp_path / "videos", "--out", out, *options, "--workers", 1)
    assert spans(out)["cuts"] == [(float(n), float(n + 1)) for n in range(8)]
    out = tmp_path / "none.jsonl"
    run_well("clips", tmp_path / "videos", "--out", out, "--by", "shots", "--threshold", 255, "--workers", 1)
    assert spans(out)["cuts"] == [(0, 8)]


def test_without_pyscenedetect_the_line_says_what_to_install(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    refused = run("clips", videos, "--out", tmp_path / "clips.jsonl", "--by", "shots")
    assert refused.exit_code == 1 and "pip install '.[shots]'" in error_of(refused)


def test_sentences_of_the_subtitles(videos: Path, tmp_path: Path) -> None:
    subtitles = tmp_path / "subtitles"
    subtitles.mkdir()
    lines = "1\n00:00:01,000 --> 00:00:03,000\nFirst you\n\n2\n00:00:03,000 --> 00:00:05,000\ncut it.\n\n"
    lines += "3\n00:00:09,000 --> 00:00:12,000\nThen you mix\n\n4\n00:00:40,000 --> 00:00:42,000\ntoo late\n"
    (subtitles / "one.srt").write_text(lines)
    (subtitles / "three.en.vtt").write_text("no subtitles at all")
    (subtitles / "two words.srt").write_text("1\n00:01:00,000 --> 00:01:01,000\nlate\n")
    out = tmp_path / "clips.jsonl"
    run_well("clips", videos, "--out", out, "--by", "subtitles", "--subtitles", subtitles, "--workers", 1)
    assert spans(out) == {"one": [(1, 5), (9, 12)]}
    left_out = skipped(out)
    assert left_out["three.avi"] == "unreadable_subtitles" and left_out["twice.mp4"] == "no_subtitles"
    assert left_out["below/two words.mkv"] == "no_clips"
    shards = tmp_path / "shards"
    inputs = ("--metadata", out, "--videos", videos, "--subtitles", subtitles, "--workers", 1)
    run_well("shard", *inputs, "--out", shards)
    texts = run_well("inspect", shards, "--num", 2).output
    assert "First you cut it." in texts and "Then you mix" in texts


def test_subtitles_in_an_encoding_that_is_told(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "subtitles").mkdir()
    lines = "1\n00:00:01,000 --> 00:00:03,000\nстоп。\n".replace("。", "!")
    (tmp_path / "subtitles" / "one.srt").write_bytes(lines.encode("cp1251"))
    words = ("--by", "subtitles", "--subtitles", tmp_path / "subtitles", "--workers", 1)
    out = tmp_path / "clips.jsonl"
    run_well("clips", videos, "--out", out, *words, "--subtitle-encoding", "cp1251")
    assert spans(out) == {"one": [(1, 3)]}
    refused = run("clips", videos, "--out", tmp_path / "x.jsonl", *words, "--subtitle-encoding", "cp99")
    assert refused.exit_code == 1 and "no encoding of that name" in error_of(refused)


def test_a_run_goes_on_and_only_new_videos_are_looked_into(videos: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "videos", tmp_path / "clips.jsonl"
    shutil.copytree(videos, folder)
    words = ("clips", folder, "--out", out, "--workers", 1)
    assert "would read 7 videos" in run_well(*words, "--dry-run").output
    assert not out.exists() and not out.with_name("clips.jsonl.report").exists()
    first = clipvip.clips(str(folder), out=out, workers=1)
    assert first.content["this_run"]["videos"] == 7
    whole = out.read_bytes()
    again = json.loads(run_well(*words, "--json").stdout)
    assert again["this_run"]["videos"] == 0 and again["counts"] == first.counts
    assert out.read_bytes() == whole
    # What a killed run leaves: no list, and half of a line.
    journal = out.with_name("clips.jsonl.report") / "videos.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:3]) + lines[3][:10])
    out.unlink()
    assert json.loads(run_well(*words, "--json").stdout)["this_run"]["videos"] == 4
    assert out.read_bytes() == whole
    # A file that was mended, and one that is new.
    shutil.copy(folder / "one.mp4", folder / "cut.mp4")
    make_video(folder / "zebra.mp4", num_frames=30)
    assert json.loads(run_well(*words, "--json").stdout)["this_run"]["videos"] == 2
    assert spans(out)["cut"] == spans(out)["one"] and "zebra" in spans(out)
    refused = run(*words, "--seconds", 4)
    assert refused.exit_code == 1 and "seconds: 8.0 there, 4.0 asked" in error_of(refused)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--by", "subtitles"), "give the folder of subtitles to --subtitles"),
        (("--subtitles", "."), "goes with --by subtitles"),
        (("--seconds", "0.5"), "less than --shortest 1"),
        (("--subtitle-encoding", "cp1251"), "goes with --by subtitles"),
    ],
)
def test_options_that_do_not_go_together(
    videos: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    refused = run("clips", videos, "--out", tmp_path / "clips.jsonl", *words)
    assert refused.exit_code == 2 and message in refused.output
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_used(videos: Path, tmp_path: Path) -> None:
    mine = tmp_path / "clips.jsonl"
    mine.write_text("mine\n")
    (tmp_path / "none").mkdir()
    for folder, out, message in (
        (videos, mine, "not of an earlier run"),
        (videos, tmp_path, "is a folder"),
        (tmp_path / "none", tmp_path / "x.jsonl", "holds no video files"),
        (tmp_path / "absent", tmp_path / "x.jsonl", "no such folder of videos"),
    ):
        refused = run("clips", folder, "--out", out)
        assert refused.exit_code == 1 and message in error_of(refused)
    assert mine.read_text() == "mine\n" and not (tmp_path / "x.jsonl.report").exists()


def test_a_folder_without_one_good_video_gives_no_list(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"\0" * 1000)
    refused = run("clips", tmp_path / "videos", "--out", tmp_path / "clips.jsonl")
    assert refused.exit_code == 1 and "no video has a clip" in error_of(refused)
    assert not (tmp_path / "clips.jsonl").exists()
    assert skipped(tmp_path / "clips.jsonl") == {"a.mp4": "undecodable_video"}
