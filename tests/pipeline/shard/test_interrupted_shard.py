"""`clipvip-data shard` killed, crashed, blocked and stopped, and run again."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

import commands
from clipvip.shards.tar.reader import list_shards, read_shard
from make_videos import make_video, write_metadata
from outputs import content, samples, skipped
from shard_folders import SECONDS, shard


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


def start(metadata: Path, videos: Path, out: Path, *options: str) -> "subprocess.Popen[str]":
    return commands.start("shard", "--metadata", metadata, "--videos", videos, "--out", out, *options)


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
    note_of(tmp_path, 2)  # the long one, which a busy machine cannot miss
    second = shard(long_video / "clips.jsonl", long_video, tmp_path, "--workers", "1")
    assert second.exit_code == 1
    assert "another run" in second.output
    first.communicate(timeout=120)
    assert first.returncode == 0
    assert len(samples(tmp_path)) == 108
