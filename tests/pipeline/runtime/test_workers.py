"""Units run in processes that may crash or hang."""

import os
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pytest
from pebble import ProcessPool

from clipvip.pipeline.runtime.workers import run_units, start_pool
from unit_functions import square


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


def test_a_pool_that_breaks_is_replaced_and_its_units_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that die before they say what they took break the pool that runs them."""
    pools: list[ProcessPool] = []

    def start_and_keep(*arguments: Any) -> ProcessPool:
        pools.append(start_pool(*arguments))
        return pools[-1]

    monkeypatch.setattr("clipvip.pipeline.runtime.workers.start_pool", start_and_keep)
    units = [n for n in range(30) if n not in {3, 5, 7}]
    outcomes = []
    for outcome in run_units(square, units, workers=2):
        outcomes.append((outcome.unit, outcome.result))
        if len(outcomes) in {5, 12}:
            pools[-1]._pool_manager.handle_broken_pool(BrokenProcessPool("All workers expired"))
    assert len(pools) == 3
    assert sorted(outcomes) == [(n, n * n) for n in units]


def test_a_mistake_in_the_function_is_raised() -> None:
    with pytest.raises(KeyError, match="seven"):
        list(run_units(square, [7], workers=1))


def test_no_units_is_no_work() -> None:
    assert list(run_units(square, [], workers=2)) == []


_PARENT = """
import sys, time
sys.path.insert(0, {folder!r})
from test_workers_target import sleep_forever
from clipvip.pipeline.runtime.workers import run_units, start_pool
if __name__ == "__main__":
    list(run_units(sleep_forever, [{folder!r}], workers=1))
"""

_TARGET = """
import os, pathlib, time
def sleep_forever(folder):
    pathlib.Path(folder, "pid").write_text(str(os.getpid()))
    time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
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
