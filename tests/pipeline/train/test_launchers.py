"""Launchers of others: torchrun that starts processes anew, and Slurm that starts one for each GPU."""

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.train.attempts import join
from clipvip.pipeline.train.distributed import process_group
from train_runs import arguments

SAME_FILES = ("log.jsonl", "model/model.safetensors", "model/config.json")


def start(world: Path, out: Path, *launcher: str, **variables: str) -> subprocess.Popen[str]:
    """Training by a launcher's command line, or without one in this environment."""
    command = [sys.executable, *launcher, "-m", "clipvip.pipeline.train", *arguments(world, out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def torchrun(*options: str) -> list[str]:
    return ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *options]


@pytest.fixture(scope="module")
def by_two(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that nothing disturbed."""
    out = tmp_path_factory.mktemp("launchers") / "out"
    process = start(world, out, *torchrun())
    assert (process.wait(240), process.communicate()[1])[0] == 0
    return out


def process_of(rank: int, launcher: int) -> int:
    """The training process of a rank among a launcher's children."""
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise AssertionError(f"{launcher} has no process of rank {rank}")


def steps_done(out: Path) -> int:
    log = out / "log.jsonl"
    return log.read_text().count("\n") if log.exists() else 0


def wait_for_step(process: subprocess.Popen[str], out: Path, step: int) -> None:
    deadline = time.monotonic() + 200
    while steps_done(out) < step:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.needs("linux")
@pytest.mark.slow
def test_torchrun_starts_anew_from_the_last_checkpoint(world: Path, by_two: Path, tmp_path: Path) -> None:
    """Twice: what the first attempt left with torchrun is not taken for the second's or third's."""
    out = tmp_path / "out"
    launched = start(world, out, *torchrun("--max-restarts", "2"))
    for rank, step in ((1, 10), (0, 25)):
        wait_for_step(launched, out, step)
        os.kill(process_of(rank, launched.pid), signal.SIGKILL)
        time.sleep(1)
    _, said = launched.communicate(timeout=240)
    assert launched.returncode == 0, said
    for name in SAME_FILES:
        assert (out / name).read_bytes() == (by_two / name).read_bytes(), name


def test_processes_of_one_attempt_find_each_other_among_what_others_left() -> None:
    store, names = dist.HashStore(), []  # type: ignore[attr-defined]
    for _ in range(3):
        store.set("clipvip/here/1", "a process that died before it had an answer")
        with ThreadPoolExecutor(3) as pool:
            joined = [pool.submit(join, store, rank, 3, timeout=timedelta(seconds=60)) for rank in (2, 0, 1)]
            (name,) = {one.result() for one in joined}
        names.append(name)
    assert len(set(names)) == 3
    with pytest.raises(RuntimeError, match=r"of 2 training processes these did not start in time: 1"):
        join(store, 0, 2, timeout=timedelta(seconds=0.1))


@pytest.mark.parametrize(
    ("local_rank", "visible", "number"),
    [("5", 1, 0), ("0", 1, 0), ("2", 4, 2), ("4", 4, None), ("1", 0, None)],
)
def test_the_gpu_of_a_process(
    local_rank: str, visible: int, number: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One GPU a task, as Slurm shows them with --gpus-per-task, is device 0 of each."""
    taken: list[torch.device] = []
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    if number is None:
        said = rf"process {local_rank} of this machine \(LOCAL_RANK\) finds {visible} GPUs; start one process"
        with pytest.raises(UserError, match=said), process_group("cuda"):
            pass
        return
    with process_group("cuda") as place:
        assert place.device == torch.device("cuda", number)
    assert taken == [place.device]


@pytest.mark.slow
def test_without_torchrun_by_variables_alone(world: Path, by_two: Path, tmp_path: Path) -> None:
    """As examples/slurm/pretrain-tasks.sbatch starts them; both see one GPU, or here none."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    out = tmp_path / "out"
    shared = {
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
    }
    started = [start(world, out, RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(2)]
    said = [process.communicate(timeout=240)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    for name in SAME_FILES:
        assert (out / name).read_bytes() == (by_two / name).read_bytes(), name
