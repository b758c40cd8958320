"""Workers and parents killed at random moments, from the first import to the last rename: the bytes come out
the same.

A moment is a share of the time that an undisturbed run takes, so that slow machines are hit in all phases
too.
"""

import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from commands import start, workers_of
from outputs import content
from stage_commands import COMMANDS

# On a busy machine a stage may take minutes to start.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# A unit whose workers are killed more often is taken to be at fault, as documented.
MOST_WORKERS_KILLED = 2


@dataclass(frozen=True)
class Stage:
    """A command without --out, what an undisturbed run of it leaves, and how long that takes.

    It begins to write at `begun_seconds`; all before is imports and checks.
    """

    arguments: tuple[object, ...]
    undisturbed: Path
    begun_seconds: float
    seconds: float


def undisturbed(arguments: tuple[object, ...], out: Path) -> Stage:
    started = time.monotonic()
    process = start(*arguments, "--out", out)
    while not out.exists() and process.poll() is None:
        time.sleep(0.002)
    begun = time.monotonic()
    _, errors = process.communicate(timeout=280)
    assert process.returncode == 0, errors
    return Stage(arguments, out, begun - started, time.monotonic() - started)


@pytest.fixture(scope="module", params=["shard", "caption", "nmi", "transcribe"])
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    folder = tmp_path_factory.mktemp(request.param)
    return undisturbed(COMMANDS[request.param](folder), folder / "out")


def disturb(process: "subprocess.Popen[str]", stage: Stage, chance: random.Random) -> None:
    """Kill some of its workers at random moments, and in the end, if it gets there, the command itself."""
    started = time.monotonic()

    def moment() -> float:
        """Now and then while it imports and checks, mostly while it works or sums up."""
        return started + chance.uniform(
            0.1 if chance.random() < 0.2 else stage.begun_seconds, 1.1 * stage.seconds
        )

    for at in sorted(moment() for _ in range(chance.randint(0, MOST_WORKERS_KILLED))):
        time.sleep(max(0.0, at - time.monotonic()))
        workers = workers_of(process)
        if workers:
            with suppress(ProcessLookupError):
                os.kill(chance.choice(workers), signal.SIGKILL)
    try:
        process.communicate(timeout=max(0.0, moment() - time.monotonic()))
    except subprocess.TimeoutExpired:
        if chance.random() < 0.3:
            os.killpg(process.pid, signal.SIGKILL)
        else:  # its workers must not go on writing
            process.send_signal(chance.choice([signal.SIGKILL, signal.SIGTERM]))
        process.communicate(timeout=120)


def test_after_any_kills_the_bytes_are_those_of_an_undisturbed_run(stage: Stage, tmp_path: Path) -> None:
    # What imports torch takes many times as long to start as to work.
    num_seeds, num_runs = (3, 8) if stage.arguments[0] == "shard" else (1, 3)
    for seed in range(num_seeds):
        chance, out = random.Random(seed), tmp_path / f"out{seed}"
        for _ in range(num_runs):
            disturb(start(*stage.arguments, "--out", out), stage, chance)
        process = start(*stage.arguments, "--out", out)
        _, errors = process.communicate(timeout=280)
        assert process.returncode == 0, (seed, errors)
        assert content(out) == content(stage.undisturbed), f"seed {seed}"
