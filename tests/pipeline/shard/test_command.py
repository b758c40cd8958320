"""The command `clipvip-data shard`, from videos to shards, with everything that can go wrong on the way."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from click.testing import CliRunner, Result

from clipvip.pipeline.cli import main
from clipvip.shards.tar.reader import Sample, list_shards, read_shard
from make_videos import make_video, read_number, write_metadata

SECONDS = [(n, n + 1) for n in range(4)]


def shard(metadata: Path, videos: Path, out: Path, *options: str) -> Result:
    arguments = ["shard", "--metadata", metadata, "--videos", videos, "--out", out, *options]
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def start(metadata: Path, videos: Path, out: Path, *options: str) -> "subprocess.Popen[str]":
    """The command in a process group of its own, so that all of it can be killed.

    It takes Ctrl-C also where the tests run in the background of a shell, which ignores that for its jobs.
    """
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    code += "from clipvip.pipeline.cli import main; main()"
    command = [sys.executable, "-c", code, "shard"]
    command += ["--metadata", str(metadata), "--videos", str(videos), "--out", str(out), *options]
    return subprocess.Popen(
        command,
        start_new_session=True,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def samples(out: Path) -> dict[str, Sample]:
    return {sample.key: sample for path in list_shards(out) for sample in read_shard(path)}


def skipped(out: Path) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    return [(row["reason"], row["what"]) for row in rows]


def report(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "report.json").read_text())
    return content


def content(out: Path) -> dict[str, bytes]:
    """Every file of an output but the report, which alone may differ from run to run."""
    files = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    del files["report.json"]
    return files


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos of four seconds whose frames show their numbers, a broken one and one that is no video."""
    folder = tmp_path_factory.mktemp("videos")
    first = make_video(folder / "v0.mp4", num_frames=120)
    for number in range(1, 6):
        shutil.copy(first, folder / f"v{number}.mp4")
    (folder / "broken.mp4").write_bytes(first.read_bytes()[:500])
    (folder / "text.webm").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def metadata(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips of each video: 36 in all, of which 24 can be had."""
    names = ["v0", "v1", "broken", "v2", "missing", "v3", "text", "v4", "v5"]
    return write_metadata(
        tmp_path_factory.mktemp("metadata") / "clips.jsonl", {name: SECONDS for name in names}
    )


@pytest.fixture(scope="module")
def undisturbed(metadata: Path, videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    result = shard(metadata, videos, out, "--shard-size", "8", "--workers", "1")
    assert result.exit_code == 0, result.output
    return out


def test_the_shards_hold_what_was_asked(undisturbed: Path) -> None:
    found = samples(undisturbed)
    assert list(found) == [f"v{v}_{n:05d}" for v in range(6) for n in range(4)]
    for key, sample in found.items():
        first = 30 * int(key[-5:])
        assert [read_number(picture) for picture in sample.decode(range(3))] == [
            first,
            first + 10,
            first + 20,
        ]
        assert sample.num_frames == 3
        assert sample.subtitle == ""
    # The last shard but one lost half its clips, and the clips around stayed where they were planned.
    assert [path.name for path in list_shards(undisturbed)] == [f"{n:06d}.tar" for n in range(5)]
    assert [sum(1 for _ in read_shard(path)) for path in list_shards(undisturbed)] == [8, 4, 4, 4, 4]


def test_what_was_left_out_is_counted_and_listed(undisturbed: Path) -> None:
    expected = [("undecodable_video", f"broken.{n}.mp4") for n in range(4)]
    expected += [("missing_video", f"missing.{n}.mp4") for n in range(4)]
    expected += [("undecodable_video", f"text.{n}.mp4") for n in range(4)]
    assert skipped(undisturbed) == expected
    found = report(undisturbed)
    assert found["counts"]["clips"] == 24
    assert found["counts"]["clips_without_subtitle"] == 24
    assert found["counts"]["frames"] == 72
    assert {reason: row["count"] for reason, row in found["skipped_by_reason"].items()} == {
        "undecodable_video": 8,
        "missing_video": 4,
    }


def test_plain_webdataset_and_tar_open_them(undisturbed: Path) -> None:
    path = list_shards(undisturbed)[0]
    found = list(webdataset.WebDataset(str(path), shardshuffle=False).decode())
    assert [sample["__key__"] for sample in found][:2] == ["v0_00000", "v0_00001"]
    assert found[0]["json"]["span_seconds"] == [0.0, 1.0]
    listing = subprocess.run(["tar", "-tf", str(path)], capture_output=True, text=True, check=True)
    assert len(listing.stdout.split()) == 3 * 8


def test_more_workers_give_the_same_bytes(
    undisturbed: Path, metadata: Path, videos: Path, tmp_path: Path
) -> None:
    assert shard(metadata, videos, tmp_path, "--shard-size", "8", "--workers", "3").exit_code == 0
    assert content(tmp_path) == content(undisturbed)


def test_running_again_makes_only_what_is_missing(
    undisturbed: Path, metadata: Path, videos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    (out / "000001.tar").unlink()
    (out / ".000003.tar.partial").write_bytes(b"half")
    (out / "_state/000002.json").unlink()
    before = (out / "000000.tar").stat().st_mtime_ns
    assert shard(metadata, videos, out, "--shard-size", "8", "--workers", "1").exit_code == 0
    assert content(out) == content(undisturbed)
    assert report(out)["this_run"]["clips"] == 16
    assert (out / "000000.tar").stat().st_mtime_ns == before


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video that takes a second or two to decode, between two short ones."""
    folder = tmp_path_factory.mktemp("long")
    make_video(folder / "a.mp4", num_frames=120)
    make_video(folder / "long.mp4", num_frames=3000, width=320, height=240)
    shutil.copy(folder / "a.mp4", folder / "z.mp4")
    write_metadata(
        folder / "clips.jsonl", {"a": SECONDS, "long": [(n, n + 1) for n in range(100)], "z": SECONDS}
    )
    # Here no shard of the long video is complete before its end.
    backwards = [(99 - n, 100 - n) for n in range(100)]
    write_metadata(folder / "backwards.jsonl", {"a": SECONDS, "long": backwards, "z": SECONDS})
    return folder


def note_of(out: Path, line: int) -> int:
    """Wait until a worker has the video of that metadata line open; its process id."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for note in (out / "_state").glob("*.open"):
            try:
                words = note.read_text().split()
            except FileNotFoundError:
                continue
            if len(words) == 3 and int(words[0]) == line:
                return int(words[2])
        time.sleep(0.002)
    raise AssertionError("the video was never opened")


@pytest.fixture(scope="module")
def long_undisturbed(long_video: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards of `long_video`."""
    out = tmp_path_factory.mktemp("long_undisturbed") / "out"
    process = start(long_video / "clips.jsonl", long_video, out, "--shard-size", "30", "--workers", "2")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return out


def wait_for_work(process: "subprocess.Popen[str]", out: Path) -> None:
    """Until a worker of the command has opened a video, or the command has ended."""
    state = out / "_state"
    old = {path: path.stat().st_mtime_ns for path in state.glob("*.open")}
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if any(path.stat().st_mtime_ns != old.get(path) for path in state.glob("*.open")):
                return
        except FileNotFoundError:
            continue
        time.sleep(0.002)


def test_a_kill_and_a_second_run_give_the_same_bytes(
    long_undisturbed: Path, long_video: Path, tmp_path: Path
) -> None:
    process = start(long_video / "clips.jsonl", long_video, tmp_path, "--shard-size", "30", "--workers", "2")
    note_of(tmp_path, 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "manifest.json").exists()
    result = shard(long_video / "clips.jsonl", long_video, tmp_path, "--shard-size", "30", "--workers", "1")
    assert result.exit_code == 0, result.output
    assert content(tmp_path) == content(long_undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_many_kills_and_a_last_run_give_the_same_bytes(
    long_undisturbed: Path, long_video: Path, tmp_path: Path, seed: int
) -> None:
    moments, num_hits = random.Random(seed), 0
    for attempt in range(6):
        process = start(
            long_video / "clips.jsonl", long_video, tmp_path, "--shard-size", "30", "--workers", "2"
        )
        wait_for_work(process, tmp_path)
        time.sleep(moments.uniform(0, 0.5) if attempt else 0)  # a quick machine may soon be done
        if process.poll() is None:
            # Every other time only the parent: its workers must not go on writing.
            os.killpg(process.pid, signal.SIGKILL) if attempt % 2 else process.kill()
            num_hits += 1
        process.communicate()
    assert num_hits
    workers = str(1 + seed % 4)
    result = shard(
        long_video / "clips.jsonl", long_video, tmp_path, "--shard-size", "30", "--workers", workers
    )
    assert result.exit_code == 0, result.output
    assert content(tmp_path) == content(long_undisturbed)


@pytest.mark.parametrize("shard_size", ["200", "10"], ids=["one shard", "shards of its own"])
def test_a_crash_costs_only_the_video_that_was_open(
    long_video: Path, tmp_path: Path, shard_size: str
) -> None:
    process = start(
        long_video / "backwards.jsonl", long_video, tmp_path, "--shard-size", shard_size, "--workers", "1"
    )
    os.kill(note_of(tmp_path, 2), signal.SIGSEGV)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "metadata line 2" in errors
    assert list(samples(tmp_path)) == [f"{name}_{n:05d}" for name in "az" for n in range(4)]
    assert skipped(tmp_path) == [("decoder_crashed", f"long.{n}.mp4") for n in range(100)]
    before = content(tmp_path)
    assert (
        shard(long_video / "backwards.jsonl", long_video, tmp_path, "--shard-size", shard_size).exit_code == 0
    )
    assert content(tmp_path) == before


def test_a_video_that_blocks_is_given_up(long_video: Path, tmp_path: Path) -> None:
    """Opening a video takes longer than the limit here, as it would for ever in a decoder that hangs."""
    result = shard(
        long_video / "clips.jsonl", long_video, tmp_path, "--workers", "1", "--video-timeout", "0.00005"
    )
    assert result.exit_code == 1
    assert "no clip could be stored" in result.output
    assert {reason for reason, _ in skipped(tmp_path)} == {"timeout"}
    assert len(skipped(tmp_path)) == 108


def test_however_few_units_may_wait_to_be_made_again_none_is_lost(
    long_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three units whose videos all block, with two workers: of those that fail one at a time may wait, then none."""
    few = ("--shard-size", "4", "--workers", "2", "--video-timeout", "0.00005")
    assert shard(long_video / "clips.jsonl", long_video, tmp_path / "usual", *few).exit_code == 1
    monkeypatch.setattr("clipvip.pipeline.shard.run._MOST_FAILED", 1)
    assert shard(long_video / "clips.jsonl", long_video, tmp_path / "few", *few).exit_code == 1
    assert len(skipped(tmp_path / "few")) == 108
    assert content(tmp_path / "few") == content(tmp_path / "usual")


def test_what_was_skipped_is_tried_again_when_asked_for(long_video: Path, tmp_path: Path) -> None:
    """A video that was not there yet, and one that killed its worker, end as if nothing had been wrong."""
    videos, out = tmp_path / "videos", tmp_path / "out"
    shutil.copytree(long_video, videos)
    (videos / "a.mp4").rename(tmp_path / "a.mp4")
    arguments = (videos / "backwards.jsonl", videos, out, "--shard-size", "10", "--workers", "1")
    process = start(*arguments)
    os.kill(note_of(out, 2), signal.SIGSEGV)
    process.communicate(timeout=120)
    assert {reason for reason, _ in skipped(out)} == {"decoder_crashed", "missing_video"}
    (tmp_path / "a.mp4").rename(videos / "a.mp4")
    before = content(out)
    assert shard(*arguments).exit_code == 0
    assert content(out) == before
    told = shard(*arguments, "--retry-skipped", "--dry-run", "--json")
    counts = json.loads(told.stdout)["counts"]
    assert 0 < counts["clips_done"] < counts["clips"] and counts["videos_without_file"] == 0
    result = shard(*arguments, "--retry-skipped")
    assert result.exit_code == 0, result.output
    assert shard(*arguments[:2], tmp_path / "undisturbed", *arguments[3:]).exit_code == 0
    assert content(out) == content(tmp_path / "undisturbed")


def test_a_large_video_is_spread_over_shards(long_video: Path, tmp_path: Path) -> None:
    result = shard(long_video / "clips.jsonl", long_video, tmp_path, "--shard-size", "30", "--workers", "2")
    assert result.exit_code == 0, result.output
    assert [sum(1 for _ in read_shard(path)) for path in list_shards(tmp_path)] == [4, 30, 30, 30, 10, 4]


def test_interrupted_it_says_how_to_go_on(long_video: Path, tmp_path: Path) -> None:
    process = start(long_video / "clips.jsonl", long_video, tmp_path, "--workers", "1")
    worker = note_of(tmp_path, 2)
    os.kill(worker, signal.SIGSTOP)  # so that there is something left to interrupt
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1].startswith("Stopped.")
    assert "Traceback" not in errors
    assert not Path(f"/proc/{worker}/cmdline").exists()


def test_two_runs_at_once_are_refused(long_video: Path, tmp_path: Path) -> None:
    first = start(long_video / "clips.jsonl", long_video, tmp_path, "--workers", "1")
    note_of(tmp_path, 1)
    second = shard(long_video / "clips.jsonl", long_video, tmp_path, "--workers", "1")
    assert second.exit_code == 1
    assert "another run" in second.output
    first.communicate(timeout=120)
    assert first.returncode == 0
    assert len(samples(tmp_path)) == 108


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fps", "6"], "fps: 3.0 there, 6.0 asked"),
        (["--size", "128"], "size"),
        (["--store", "video"], "store"),
        (["--quality", "50"], "quality"),
        (["--max-frames", "2"], "max_frames"),
        (["--shard-size", "9"], "shard_size"),
    ],
)
def test_other_options_on_the_same_folder_are_refused(
    undisturbed: Path, metadata: Path, videos: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    before = content(undisturbed)
    result = shard(
        metadata,
        videos,
        undisturbed,
        *(["--shard-size", "8"] if "--shard-size" not in options else []),
        *options,
    )
    assert result.exit_code == 1
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert content(undisturbed) == before


def test_other_metadata_on_the_same_folder_is_refused(
    undisturbed: Path, videos: Path, tmp_path: Path
) -> None:
    other = write_metadata(tmp_path / "other.jsonl", {"v0": SECONDS})
    result = shard(other, videos, undisturbed, "--shard-size", "8")
    assert result.exit_code == 1
    assert "metadata_sha256" in result.output


def test_a_folder_of_foreign_shards_is_not_touched(metadata: Path, videos: Path, tmp_path: Path) -> None:
    (tmp_path / "000000.tar").write_bytes(b"someone else's")
    result = shard(metadata, videos, tmp_path)
    assert result.exit_code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["000000.tar"]


def test_bad_input_is_one_line_and_writes_nothing(metadata: Path, videos: Path, tmp_path: Path) -> None:
    out, nothing, a_file = tmp_path / "out", tmp_path / "nothing", tmp_path / "file"
    a_file.write_text("")
    cases: list[tuple[Sequence[Any], str]] = [
        ((nothing, videos, out), "no such metadata file"),
        ((metadata, nothing, out), "no such folder of videos"),
        ((metadata, videos, out, "--subtitles", str(nothing)), "no such file or folder"),
        ((a_file, videos, out), "lists no clips"),
        ((metadata, videos, a_file / "out"), "not a directory"),
        ((metadata, videos, out, "--quality", "0"), "--quality 0"),
        ((metadata, videos, out, "--store", "video", "--quality", "52"), "--quality 52"),
    ]
    for arguments, message in cases:
        result = shard(*arguments)
        assert result.exit_code == 1, arguments
        assert message in result.output
        assert len(result.output.strip().splitlines()) == 1, result.output
        assert not out.exists()
    for option in (["--fps", "0"], ["--fps", "nan"], ["--size", "2"], ["--workers", "0"], ["--store", "gif"]):
        result = shard(metadata, videos, out, *option)
        assert result.exit_code == 2
        assert option[0] in result.output.splitlines()[-1]
        assert not out.exists()


def test_subtitles_of_a_folder_are_cut_to_the_spans(videos: Path, metadata: Path, tmp_path: Path) -> None:
    subtitles = tmp_path / "subtitles"
    subtitles.mkdir()
    cues = "\n".join(f"00:00:0{n}.100 --> 00:00:0{n}.900\nwords of second {n}\n" for n in range(4))
    (subtitles / "v0.vtt").write_text(f"WEBVTT\n\n{cues}")
    (subtitles / "v1.vtt").write_bytes(b"\x00\x01 no subtitles")
    out = tmp_path / "out"
    assert shard(metadata, videos, out, "--subtitles", str(subtitles), "--workers", "1").exit_code == 0
    found = samples(out)
    assert [found[f"v0_{n:05d}"].subtitle for n in range(4)] == [f"words of second {n}" for n in range(4)]
    assert {sample.subtitle for key, sample in found.items() if not key.startswith("v0")} == {""}
    assert report(out)["counts"]["clips_without_subtitle"] == 20
    assert report(out)["subtitle_warnings"]["count"] == 1
    assert "v1.vtt" in report(out)["subtitle_warnings"]["examples"][0]


def test_subtitles_of_a_table_go_by_clip_id(videos: Path, metadata: Path, tmp_path: Path) -> None:
    table = tmp_path / "texts.jsonl"
    table.write_text('{"clip_id": "v0.1.mp4", "text": "one"}\n{"clip_id": "v5.3.mp4", "text": "two"}\n')
    out = tmp_path / "out"
    assert shard(metadata, videos, out, "--subtitles", str(table), "--workers", "1").exit_code == 0
    texts = {key: sample.subtitle for key, sample in samples(out).items() if sample.subtitle}
    assert texts == {"v0_00001": "one", "v5_00003": "two"}


def test_store_video_holds_the_same_pictures(
    undisturbed: Path, videos: Path, metadata: Path, tmp_path: Path
) -> None:
    result = shard(metadata, videos, tmp_path, "--shard-size", "8", "--store", "video", "--workers", "1")
    assert result.exit_code == 0, result.output
    found, as_frames = samples(tmp_path), samples(undisturbed)
    assert list(found) == list(as_frames)
    for key, sample in found.items():
        assert sample.extension == "mp4"
        numbers = [read_number(picture) for picture in sample.decode(range(3))]
        assert numbers == [read_number(picture) for picture in as_frames[key].decode(range(3))]


@pytest.mark.needs_shared
def test_all_real_files(shared_dir: Path, tmp_path: Path) -> None:
    rows = json.loads((shared_dir / "data/videos/manifest.json").read_text())
    names = {Path(row["file"]).stem: row for row in rows}
    clips = {name: [(0, 0.9), ("00:00:01.000", "00:00:02.500")] for name in names}
    listed = write_metadata(tmp_path / "clips.jsonl", clips)
    out = tmp_path / "out"
    options = ("--subtitles", str(shared_dir / "data/subtitles"), "--shard-size", "16", "--workers", "2")
    result = shard(listed, shared_dir / "data/videos", out, *options)
    assert result.exit_code == 0, result.output
    found = samples(out)
    assert len(found) + len(skipped(out)) == 2 * len(rows)
    kept = {sample.record.video_id for sample in found.values()}
    assert kept == {name for name, row in names.items() if row["decoded_frames"]}
    for sample in found.values():
        row = names[sample.record.video_id]
        size = (row["width"], row["height"])
        upright = size if row["rotation"] % 180 == 0 else size[::-1]
        assert (sample.record.source_width > sample.record.source_height) == (upright[0] > upright[1])
        low, high = sample.record.span_seconds
        assert all(low <= seconds < high for seconds in sample.record.frame_seconds)
        assert np.asarray(sample.middle_frame()).shape == (sample.record.height, sample.record.width, 3)
    assert found["friday_00001"].subtitle or found["friday_00000"].subtitle
