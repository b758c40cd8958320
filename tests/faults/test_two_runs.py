"""Two runs of one command on one output folder at the same time: one works, the other is refused or finds it done."""

import random
import subprocess
import time
from pathlib import Path

import pytest

from commands import run_to_end, start
from outputs import content
from stage_commands import COMMANDS

# On a busy machine a stage may take minutes to start.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

REFUSED = "another run is writing here"


def outcome(process: "subprocess.Popen[str]") -> str:
    _, errors = process.communicate(timeout=280)
    assert "Traceback" not in errors, errors
    last = errors.strip().splitlines()[-1] if errors.strip() else ""
    assert process.returncode == 0 or (process.returncode == 1 and REFUSED in last), errors
    return "done" if process.returncode == 0 else "refused"


@pytest.mark.parametrize(("name", "num_pairs"), [("shard", 4), ("subset", 4), ("caption", 1), ("nmi", 1)])
def test_two_runs_at_once_do_the_work_of_one(name: str, num_pairs: int, tmp_path: Path) -> None:
    command = COMMANDS[name](tmp_path)
    alone, chance = tmp_path / "alone", random.Random(0)
    assert run_to_end(*command, "--out", alone)[0] == 0
    for pair in range(num_pairs):
        out = tmp_path / f"out{pair}"
        first = start(*command, "--out", out)
        # At once, then at some moment of the other's work.
        time.sleep(chance.uniform(0, 2) if pair else 0)
        second = start(*command, "--out", out)
        assert "done" in [outcome(first), outcome(second)]
        assert content(out) == content(alone)
