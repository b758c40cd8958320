"""Units run in processes that may crash or hang."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clipvip.pipeline.runtime.workers import run_units
from unit_functions import SlowToArrive, die_twice, raise_awkward, square


def test_a_crash_and_a_hang_cost_only_their_own_units() -> None:
    units = [0, 1, 2, 3, 4, 5, 6]
    outcomes = {o.unit: o for o in run_units(square, units, workers=2, timeout_seconds=2.0)}
    assert sorted(outcomes) == units
    assert {u: o.result for u, o in outcomes.items() if o.failure is None} == {
        u: u * u for u in units if u not in {3, 5}
    }
    crashed, hung = outcomes[3].failure, outcomes[5].failure
    assert crashed is not None and crashed.reason == "crashed"
    assert hung is not None and hung.reason == "timeout"


def test_a_unit_whose_worker_is_killed_is_done_again(tmp_path: Path) -> None:
    outcomes = list(run_units(die_twice, [(tmp_path, number) for number in range(4)], workers=2))
    assert sorted(outcome.result or 0 for outcome in outcomes) == [0, 1, 2, 3]
    assert len(list(tmp_path.iterdir())) == 4 * 2


def test_a_kill_while_a_worker_starts_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed while it unpickles its first unit, which imports modules; others are at work then."""
    monkeypatch.setenv("CLIPVIP_TEST_FOLDER", str(tmp_path))
    started = time.monotonic()
    outcomes = list(run_units(square, [SlowToArrive(number) for number in range(3)], workers=2))
    assert sorted(outcome.result or 0 for outcome in outcomes) == [0, 1, 4]
    assert time.monotonic() - started < 30


def test_errors_that_cannot_be_pickled_are_told() -> None:
    with pytest.raises(RuntimeError, match="AwkwardError: one, two"):
        list(run_units(raise_awkward, [1], workers=1))


def test_a_mistake_in_the_function_is_raised() -> None:
    with pytest.raises(KeyError, match="seven"):
        list(run_units(square, [7], workers=1))


def test_no_units_is_no_work() -> None:
    assert list(run_units(square, [], workers=2)) == []


_LEAVES_EARLY = """
import multiprocessing, sys, time
from clipvip.pipeline.runtime.workers import run_units

def leave():
    outcomes = run_units(time.sleep, [0.1, 600.0], workers=2)
    next(outcomes)
    sys.exit(3)

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=leave)
    process.start()
    process.join()
    assert process.exitcode == 3
    leave()
"""


def test_a_process_that_ends_does_not_wait_for_its_workers(tmp_path: Path) -> None:
    """Neither a program nor a process of one, which ends in another way."""
    (tmp_path / "script.py").write_text(_LEAVES_EARLY)
    done = subprocess.run([sys.executable, tmp_path / "script.py"], timeout=60, check=False)
    assert done.returncode == 3


_PARENT = """
import sys, time
sys.path.insert(0, {folder!r})
from test_workers_target import sleep_forever
from clipvip.pipeline.runtime.workers import run_units
if __name__ == "__main__":
    list(run_units(sleep_forever, [{folder!r}], workers=1))
"""

_TARGET = """
import os, pathlib, time
def sleep_forever(folder):
    pathlib.Path(folder, "pid").write_text(str(os.getpid()))
    time.sleep(600)
"""


@pytest.mark.needs("linux")  # whose kernel has the parent-death signal
def test_workers_die_with_a_killed_parent(tmp_path) -> None:
    (tmp_path / "test_workers_target.py").write_text(_TARGET)
    script = tmp_path / "parent.py"
    script.write_text(_PARENT.format(folder=str(tmp_path)))
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    parent = subprocess.Popen([sys.executable, str(script)], env=environment, stderr=subprocess.DEVNULL)
    pid_file = tmp_path / "pid"
    deadline = time.monotonic() + 60
    while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    worker = int(pid_file.read_text())
    parent.kill()
    parent.wait()
    while _alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(worker)


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
