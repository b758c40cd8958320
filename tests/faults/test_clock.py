"""A wall clock that is set forwards and backwards while stages are at work: same bytes, and no time limit misfires."""

import json
import os
import time
from pathlib import Path

import pytest

from clipvip.pipeline.runtime.workers import run_units
from commands import run_to_end
from outputs import content
from stage_commands import COMMANDS
from unit_functions import take_seconds

# On a busy machine a stage may take minutes to start.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

DAY = 86_400.0
# Every process of the stage starts with this: each third of a second its clock jumps, by years or by days.
JUMPY = f"""
import time

_time, _time_ns, _monotonic = time.time, time.time_ns, time.monotonic


def _offset():
    return (0.0, 3 * 365 * {DAY}, -{DAY}, {DAY}, -40 * 365 * {DAY})[int(_monotonic() * 3) % 5]


time.time = lambda: _time() + _offset()
time.time_ns = lambda: _time_ns() + int(_offset()) * 10**9
"""


@pytest.mark.parametrize("name", COMMANDS)
def test_a_clock_that_jumps_changes_nothing(name: str, tmp_path: Path) -> None:
    command = COMMANDS[name](tmp_path)
    steady, jumpy = tmp_path / "steady", tmp_path / "jumpy"
    assert run_to_end(*command, "--out", steady)[0] == 0
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(JUMPY)
    paths = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    code, line = run_to_end(*command, "--out", jumpy, env=os.environ | {"PYTHONPATH": paths})
    assert code == 0, line
    assert content(jumpy) == content(steady)
    seconds = json.loads((jumpy / "report.json").read_text())["this_run"]["seconds"]
    assert 0 < seconds < 600

    # After a jump the times of files lie in the future or the past of those made next.
    times = [0, 1, 2_000_000_000, 4_000_000_000]
    made = {path: path.read_bytes() for path in jumpy.rglob("*") if path.is_file()}
    for number, path in enumerate(sorted(made)):
        os.utime(path, (times[number % 4], times[number % 4]))
    before = {path: path.stat().st_ino for path in made if path.suffix in {".tar", ".parquet", ".npy"}}
    if name in {"shard", "subset"}:
        assert run_to_end(*command, "--out", jumpy)[0] == 0
        assert content(jumpy) == content(steady)
        assert {path: path.stat().st_ino for path in before} == before, "what was done is not done again"


def test_time_limits_go_by_a_clock_that_nobody_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here each look at the wall clock finds it a day later, then two days earlier."""
    really, num_looks = time.time, 0

    def jumping() -> float:
        nonlocal num_looks
        num_looks += 1
        return really() + (DAY if num_looks % 2 else -DAY)

    monkeypatch.setattr(time, "time", jumping)
    started = time.monotonic()
    outcomes = {
        o.unit: o for o in run_units(take_seconds, [0.5, 1.0, 600.0, 0.1], workers=2, timeout_seconds=8)
    }
    assert time.monotonic() - started < 60
    failures = {unit: outcome.failure.reason for unit, outcome in outcomes.items() if outcome.failure}
    assert failures == {600.0: "timeout"}
