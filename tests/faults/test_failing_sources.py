"""Sources that stall, vanish, shrink or cannot be read any more while `clipvip-data shard` is at work."""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from clipvip.shards.tar.reader import list_shards, read_shard
from commands import run_to_end, start, workers_of
from make_videos import make_video, write_metadata
from outputs import content

# On a busy machine a stage may take minutes to start.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SPANS = [(0, 1), (1, 2)]
LONG_SPANS = [(n, n + 1) for n in range(100)]
# Far longer than any of these videos takes; a busy machine may stop for a while.
TIMEOUT_SECONDS = 8
_PR_CAPBSET_DROP = 24
_CAPABILITIES_TO_READ_ALL = (1, 2)


def without_rights_to_all() -> None:
    """For root, to whom file permissions mean nothing: give that up from the next program on."""
    for capability in _CAPABILITIES_TO_READ_ALL:
        ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, capability)


def silent_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def forbidden(path: Path) -> None:
    path.chmod(0)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def failing_disk(path: Path) -> None:
    path.unlink()
    path.symlink_to("/proc/self/mem")  # opens, and fails to read


def half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


# What happens to a video, or else to its subtitles, and what its two clips are then.
VIDEO_FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "silent": (silent_pipe, "timeout"),
    "forbidden": (forbidden, "undecodable_video"),
    "gone": (Path.unlink, "undecodable_video"),
    "folder": (folder, "undecodable_video"),
    "failing": (failing_disk, "undecodable_video"),
    "half": (half, "undecodable_video"),
}
SUBTITLE_FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "subtitles_silent": (silent_pipe, "timeout"),
    "subtitles_forbidden": (forbidden, "kept"),
    "subtitles_failing": (failing_disk, "kept"),
    "subtitles_gone": (Path.unlink, "kept"),
}


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Videos and subtitles that are links, so that what they lead to can change unseen by the folder."""
    for kind in ("real", "videos", "subtitles"):
        (tmp_path / kind).mkdir()
    make_video(tmp_path / "real/long.mp4", num_frames=3000, width=320, height=240)
    short = make_video(tmp_path / "short.mp4")
    spans: dict[str, list[tuple[int, int]]] = {"long": LONG_SPANS}
    for name in ["first", *SUBTITLE_FAULTS, *VIDEO_FAULTS, "last"]:
        shutil.copy(short, tmp_path / f"real/{name}.mp4")
        (tmp_path / f"real/{name}.vtt").write_text(f"WEBVTT\n\n00:00:00.200 --> 00:00:00.800\n{name}\n")
        (tmp_path / f"subtitles/{name}.vtt").symlink_to(tmp_path / f"real/{name}.vtt")
        spans[name] = SPANS
    for name in spans:
        (tmp_path / f"videos/{name}.mp4").symlink_to(tmp_path / f"real/{name}.mp4")
    write_metadata(tmp_path / "clips.jsonl", spans)
    return tmp_path


def stop_in_first_video(process: "subprocess.Popen[str]", out: Path) -> int:
    """Wait until some shards of the first video are there, and halt the worker that has it; its process id."""
    deadline = time.monotonic() + 280
    while not (out / "000003.tar").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    (worker,) = workers_of(process)
    os.kill(worker, signal.SIGSTOP)
    return worker


def test_each_failing_source_costs_itself_alone(sources: Path, tmp_path: Path) -> None:
    out, real = tmp_path / "out", tmp_path / "real"
    command = ("shard", "--metadata", sources / "clips.jsonl", "--videos", sources / "videos")
    command += ("--subtitles", sources / "subtitles", "--shard-size", 4, "--workers", 1)
    command += ("--video-timeout", TIMEOUT_SECONDS, "--out", out)
    process = start(*command, preexec_fn=without_rights_to_all)
    worker = stop_in_first_video(process, out)
    os.truncate(real / "long.mp4", (real / "long.mp4").stat().st_size * 2 // 3)
    for name, (fault, _) in VIDEO_FAULTS.items():
        fault(real / f"{name}.mp4")
    for name, (fault, _) in SUBTITLE_FAULTS.items():
        fault(real / f"{name}.vtt")
    os.kill(worker, signal.SIGCONT)
    _, errors = process.communicate(timeout=280)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors

    found = {s.key: s for path in list_shards(out) for s in read_shard(path)}
    fates: dict[str, list[str]] = {}
    for sample in found.values():
        fates.setdefault(sample.record.video_id, []).append("kept")
    skips = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    for skip in skips:
        fates.setdefault(skip["what"].partition(".")[0], []).append(skip["reason"])
    # The file that became shorter while it was read has the clips before that place.
    long = Counter(fates.pop("long"))
    assert set(long) == {"kept", "undecodable_video"}
    assert 10 < long["kept"] < 99 and long.total() == len(LONG_SPANS)
    expected = {"first": "kept", "last": "kept"}
    expected |= {name: fate for name, (_, fate) in (VIDEO_FAULTS | SUBTITLE_FAULTS).items()}
    assert fates == {name: [fate, fate] for name, fate in expected.items()}
    assert {name for name in expected if f"{name}_00000" in found and found[f"{name}_00000"].subtitle} == {
        "first",
        "last",
    }
    warned = json.loads((out / "report.json").read_text())["subtitle_warnings"]
    assert warned["count"] == 3  # also what was there at the start and is gone

    before = content(out)
    assert run_to_end(*command)[0] == 0
    assert content(out) == before, "what was given up stays given up"

    # ... until its shard's mark, and what was blamed for a worker's end, are removed by hand.
    for name in VIDEO_FAULTS:
        path = real / f"{name}.mp4"
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)
        shutil.copy(tmp_path / "short.mp4", path)
    for path in (out / "_state").glob("[0-9]*.json"):
        path.unlink()
    assert run_to_end(*command)[0] == 0
    assert {s.record.video_id for path in list_shards(out) for s in read_shard(path)} >= set(VIDEO_FAULTS)
