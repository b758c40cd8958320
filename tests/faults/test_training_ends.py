"""Training that fails or is killed, wherever that is.

It ends in time, says why in one line, and leaves nothing behind.
"""

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from clipvip.model import ClipVip
from commands import start
from left_over import MARK, loaders_of, orphaned, processes_of, ranks_of, shared_memory, wait_until
from make_shards import make_shard_folder
from tiny_clip import make_clip

pytestmark = pytest.mark.timeout(300)

# A busy machine takes a while to start; what counts is the time from the fault on.
SECONDS_TO_BEGIN = 180
SECONDS_TO_END, SECONDS_TO_END_WITH_PEERS = 30, 60
# A little more than what passes for the same stop, sent by a terminal and a launcher.
BETWEEN_SIGNALS = 2.3


@dataclass
class Run:
    """A training run in a folder of its own, which goes on until it is disturbed."""

    process: "subprocess.Popen[str]"
    folder: Path
    mark: str

    def wait_for_step(self, step: int) -> None:
        log = self.folder / "out/log.jsonl"

        def is_there() -> bool:
            assert self.process.poll() is None, self.process.communicate()
            return log.is_file() and log.read_text().count("\n") >= step

        assert wait_until(is_there, SECONDS_TO_BEGIN)


def nothing(run: Run) -> None:
    """What it was given makes it fail."""


def damage_shards(run: Run) -> None:
    run.wait_for_step(2)
    for path in (run.folder / "clips").glob("*.tar"):
        path.write_bytes(bytes(1024))


def damage_validation(run: Run) -> None:
    """One of two shards: of two processes one fails, and the other waits for it."""
    run.wait_for_step(2)
    (run.folder / "validation/000001.tar").write_bytes(b"no tar" * 200)


def kill_rank(run: Run) -> None:
    run.wait_for_step(2)
    os.kill(ranks_of(run.mark, run.process.pid)[-1], signal.SIGKILL)


def kill_command(run: Run) -> None:
    run.wait_for_step(2)
    run.process.kill()


def kill_loader(run: Run) -> None:
    run.wait_for_step(2)
    os.kill(loaders_of(run.mark)[0], signal.SIGKILL)


def stop_twice(run: Run) -> None:
    """While it waits for loading processes, which have been halted."""
    run.wait_for_step(2)
    for number in loaders_of(run.mark):
        os.kill(number, signal.SIGSTOP)
    time.sleep(1)
    run.process.terminate()
    time.sleep(BETWEEN_SIGNALS)
    assert run.process.poll() is None
    run.process.terminate()


def kill_while_fetching(run: Run) -> None:
    """While a loading process waits for a program that fetches a shard, and never will."""
    assert wait_until(lambda: b"sleep\x00600\x00" in processes_of(run.mark).values(), SECONDS_TO_BEGIN)
    run.process.kill()


def no_checkpoints(folder: Path) -> None:
    """No folder can be made of that name, which the first process finds out while the others wait for it."""
    (folder / "out").mkdir()
    (folder / "out/checkpoints").write_text("")


def spoil_start(folder: Path) -> None:
    model = ClipVip.from_clip(folder / "clip", temporal_size=4)
    with torch.no_grad():
        model.visual_projection.weight[0, 0] = torch.nan
    model.save_pretrained(folder / "clip")


@dataclass(frozen=True)
class Fault:
    """What is done before the start and after it, further options, and what is to come of it."""

    message: str
    before: Callable[[Path], None] | None = None
    disturb: Callable[[Run], None] = nothing
    options: tuple[str, ...] = ()
    code: int = 1


FAULTS = {
    "step": Fault("training diverged at step 2", options=("optim.learning_rate=1e30",)),
    "loading": Fault("samples are usable, and a batch takes", disturb=damage_shards),
    "validation": Fault("validation/000001.tar", disturb=damage_validation),
    "saving": Fault("not a directory", before=no_checkpoints),
    "rank": Fault("a training process was ended by SIGKILL", disturb=kill_rank),
    "command": Fault("", disturb=kill_command, code=-signal.SIGKILL),
    "loader": Fault("a loading process died", disturb=kill_loader),
    "fetching": Fault(
        "",
        disturb=kill_while_fetching,
        options=("data.sources.clips.shards=pipe:sleep 600", "data.sources.clips.samples_per_shard=12"),
        code=-signal.SIGKILL,
    ),
    "nan": Fault("holds weights that are not finite", before=spoil_start),
    "stop": Fault("Stopped", disturb=stop_twice, code=128 + signal.SIGTERM),
}
# Processes and loading processes: each pair of them, of a fault and either, is met.
CASES = [
    ("step", 2, 1),
    ("step", 1, 2),
    ("loading", 1, 1),
    ("loading", 2, 2),
    ("validation", 1, 2),
    ("validation", 2, 0),
    ("saving", 1, 1),
    ("saving", 2, 2),
    ("rank", 2, 0),
    ("rank", 2, 2),
    ("command", 1, 2),
    ("command", 2, 1),
    ("loader", 1, 1),
    ("loader", 2, 2),
    ("fetching", 1, 1),
    ("nan", 2, 1),
    ("stop", 1, 2),
    ("stop", 2, 1),
]


def begin(fault: Fault, folder: Path, processes: int, workers: int, *, by_torchrun: bool) -> Run:
    make_clip(folder / "clip")
    make_shard_folder(folder / "clips", num_shards=2, clips_per_shard=6)
    make_shard_folder(folder / "validation", num_shards=2, clips_per_shard=3, width=40)
    if fault.before is not None:
        fault.before(folder)
    settings = (
        *("data.num_frames=2", "data.max_text_tokens=20", "loss.pairs=baseline", "optim.batch_size=4"),
        *("optim.steps=100000", "optim.epochs=null", "optim.warmup_fraction=0", "evaluation.every_steps=4"),
        *("run.log_every_steps=1", "run.save_every_steps=10", "run.tensorboard=false"),
        *(f"run.processes={1 if by_torchrun else processes}", f"run.workers={workers}", *fault.options),
    )
    program, before = "clipvip.pipeline.train.command", ()
    if by_torchrun:
        program, before = (
            "torch.distributed.run",
            ("--nproc-per-node", processes, "-m", "clipvip.pipeline.train"),
        )
    mark = uuid.uuid4().hex
    process = start(
        *before,
        *(
            "demo",
            "--set",
            f"data.sources.clips.shards={folder / 'clips'}",
            "--validation",
            folder / "validation",
            "--gpus",
            0,
        ),
        *("--init", folder / "clip", "--out", folder / "out"),
        *(word for setting in settings for word in ("--set", setting)),
        program=program,
        env={**os.environ, MARK: mark, "OMP_NUM_THREADS": "1"},
    )
    return Run(process, folder, mark)


def check_that_it_ends(
    name: str, processes: int, workers: int, folder: Path, *, by_torchrun: bool = False
) -> str:
    """Begin a run, disturb it, and look at its end; returns what it said."""
    fault, before = FAULTS[name], shared_memory()
    run = begin(fault, folder, processes, workers, by_torchrun=by_torchrun)
    try:
        fault.disturb(run)
        limit = SECONDS_TO_END if processes == 1 else SECONDS_TO_END_WITH_PEERS
        if fault.disturb is nothing:
            limit += SECONDS_TO_BEGIN
        deadline = time.monotonic() + limit
        run.process.wait(timeout=limit)
        seconds_left = max(5.0, deadline - time.monotonic())
        assert wait_until(lambda: not processes_of(run.mark), seconds_left), processes_of(run.mark)
        said = run.process.communicate()[1]
        made = shared_memory() - before
        assert wait_until(lambda: not orphaned(made), 30), orphaned(made)
    finally:
        for number in processes_of(run.mark):
            os.kill(number, signal.SIGKILL)
    assert run.process.returncode == fault.code, said
    return said


def check_message(name: str, said: str) -> None:
    assert "Traceback" not in said, said
    assert FAULTS[name].message in said, said
    assert said.count("Error: ") == (FAULTS[name].code == 1), said


@pytest.mark.slow
@pytest.mark.parametrize(("name", "processes", "workers"), CASES)
def test_training_ends_with_all_that_it_started(
    name: str, processes: int, workers: int, tmp_path: Path
) -> None:
    said = check_that_it_ends(name, processes, workers, tmp_path)
    if FAULTS[name].message:
        check_message(name, said)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"), [("saving", "not a directory"), ("rank", "process 1 of"), ("command", "")]
)
def test_it_does_so_under_torchrun(name: str, message: str, tmp_path: Path) -> None:
    """Which adds pages of its own on how its processes ended."""
    said = check_that_it_ends(name, 2, 1, tmp_path, by_torchrun=True)
    assert message in said, said
    assert said.count("Error: ") - said.count("ChildFailedError: ") == (message != ""), said


@pytest.mark.slow
def test_a_run_with_a_loading_process_ends_when_it_diverges(tmp_path: Path) -> None:
    check_message("step", check_that_it_ends("step", 1, 1, tmp_path))
