"""Processes that keep a pace together."""

import multiprocessing
import time
from functools import partial
from pathlib import Path

from clipvip.pipeline.download.pace import await_turn, hold_all


def test_turns_are_apart_over_all_processes(tmp_path: Path) -> None:
    path = tmp_path / "pace"
    started = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        pool.map(partial(await_turn, every_seconds=0.1), [path] * 12, chunksize=1)
    assert time.monotonic() - started >= 11 * 0.1 * 0.6


def test_a_pause_holds(tmp_path: Path) -> None:
    started = time.monotonic()
    await_turn(tmp_path / "pace", every_seconds=0)
    hold_all(tmp_path / "pace", 0.3)
    hold_all(tmp_path / "pace", 0.1)
    await_turn(tmp_path / "pace", every_seconds=0)
    assert 0.3 <= time.monotonic() - started < 5


def test_a_time_of_another_boot_does_not_hold(tmp_path: Path) -> None:
    (tmp_path / "pace").write_text(f"{time.monotonic() + 1e6:.3f}")
    started = time.monotonic()
    await_turn(tmp_path / "pace", every_seconds=0)
    assert time.monotonic() - started < 5
