"""`clipvip-data caption` killed, and with workers that die."""

import fcntl
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

import commands
from caption_runs import NUM_SHARDS, caption
from outputs import content


def start(shards: Path, out: Path, model: Path, *options: str) -> "subprocess.Popen[str]":
    return commands.start(
        "caption", "--gpus", 0, "--shards", shards, "--out", out, "--model", model, *options
    )


@pytest.mark.slow
def test_a_kill_and_a_second_run_give_the_same_bytes(
    undisturbed: Path, shards: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = start(shards, out, model, "--workers", "1")
    deadline = time.monotonic() + 60
    while not (out / "000000.parquet").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert (out / "000000.parquet").exists()
    assert not (out / "manifest.json").exists()
    assert caption(shards, out, model, "--workers", "1").exit_code == 0
    assert content(out) == content(undisturbed)


def test_two_runs_at_once_are_refused(undisturbed: Path, shards: Path, model: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(undisturbed, tmp_path / "out"))
    before = content(out)
    with (out / "_state/lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = caption(shards, out, model)
    assert result.exit_code == 1
    assert "another run is writing here" in result.output
    assert content(out) == before


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_many_kills_and_a_last_run_give_the_same_bytes(
    undisturbed: Path, shards: Path, model: Path, tmp_path: Path, seed: int
) -> None:
    started = time.monotonic()
    assert caption(shards, tmp_path / "timed", model, "--workers", "1").exit_code == 0
    seconds, moments, out = time.monotonic() - started, random.Random(seed), tmp_path / "out"
    for attempt in range(4):
        process = start(shards, out, model, "--workers", "2")
        try:
            process.communicate(timeout=moments.uniform(0.5, 2.0) * seconds)
        except subprocess.TimeoutExpired:
            # Every other time only the parent: its workers must not go on writing.
            os.killpg(process.pid, signal.SIGKILL) if attempt % 2 else process.kill()
            process.communicate()
    assert caption(shards, out, model, "--workers", "1").exit_code == 0
    assert content(out) == content(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("cause", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_dies_loses_nothing(shards: Path, model: Path, tmp_path: Path, cause: int) -> None:
    """One that was killed is replaced; a crash is told in one line."""
    out = tmp_path / "out"
    process = start(shards, out, model, "--workers", "1", "--num-beams", "50")
    deadline = time.monotonic() + 60
    while not (out / "000000.parquet").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    # At once: on a quiet machine the other shards take less than half a second together.
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [child for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    assert len(workers) == 1
    os.kill(int(workers[0]), cause)
    _, errors = process.communicate(timeout=120)
    assert "Traceback" not in errors
    if cause == signal.SIGKILL:
        assert process.returncode == 0, errors
    else:
        assert process.returncode == 1
        assert "run it again" in errors.strip().splitlines()[-1]
        assert not list(out.glob(".*"))
        assert caption(shards, out, model, "--workers", "1", "--num-beams", "50").exit_code == 0
    assert len(list(out.glob("*.parquet"))) == NUM_SHARDS
