"""Functions that tests run in worker processes, which import them by name."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from clipvip.shards.checking.shard import decode_all
from clipvip.shards.tar.reader import Sample


def square(unit: int) -> int:
    """The square; but 3 crashes, 5 hangs and 7 raises."""
    if unit == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if unit == 5:
        time.sleep(600)
    if unit == 7:
        raise KeyError("seven")
    return unit * unit


def die_of_marked_samples(sample: Sample) -> None:
    """Decode a sample; but one that says "crash" or "hang" does so."""
    if sample.subtitle == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if sample.subtitle == "hang":
        time.sleep(600)
    decode_all(sample)


def append_line(unit: tuple[Path, int]) -> int:
    """Note in a file of its own that this process began the unit; then take a while."""
    folder, number = unit
    with (folder / f"{number:03d}").open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(0.4)
    return number


def append_line_and_hold(unit: tuple[Path, int, Path | None]) -> int:
    """As `append_line`, but the unit ends when the file that it waits for is there."""
    folder, number, awaited = unit
    append_line((folder, number))
    while awaited is not None and not awaited.exists():
        time.sleep(0.05)
    return number


def visible_gpus(unit: int) -> str:
    """The GPUs that this process is shown; after a while, so that every worker gets a unit."""
    time.sleep(0.3)
    return os.environ.get("CUDA_VISIBLE_DEVICES", "")


def kill_parent(unit: int) -> int:
    """The unit; but 3 takes the process down that started this one."""
    if unit == 3:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    return unit


def die_twice(unit: tuple[Path, int]) -> int:
    """The number of the unit.

    But the first two processes that begin it are killed, as by a system out of memory.
    """
    folder, number = unit
    for attempt in ("first", "second"):
        note = folder / f"{number}.{attempt}"
        if not note.exists():
            note.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return number


class SlowToArrive(int):
    """A unit that takes a while to unpickle; while the first does, its process is killed."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (int(self),)


def _arrive(number: int) -> int:
    note = Path(os.environ["CLIPVIP_TEST_FOLDER"], "arrived")
    time.sleep(0.3)
    if number == 1 and not note.exists():
        note.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


class AwkwardError(Exception):
    """Its pickle cannot be read."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one}, {two}")


def raise_awkward(unit: int) -> int:
    raise AwkwardError("one", "two")


def take_seconds(unit: float) -> float:
    """The unit, after so many seconds."""
    time.sleep(unit)
    return unit
