"""Run one function over many units of work in processes that may crash or hang without taking the stage along.

What a unit is, what to do with one that failed, and where results go are the stage's business.
"""

import ctypes
import itertools
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures import TimeoutError as UnitTimeout
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pebble import ProcessExpired, ProcessPool

Unit = TypeVar("Unit")
Result = TypeVar("Result")

_PR_SET_PDEATHSIG = 1
# A queue a little deeper than the pool keeps every worker busy while the parent handles results.
_UNITS_IN_FLIGHT_PER_WORKER = 2


@dataclass(frozen=True, slots=True)
class Failure:
    """A unit whose process died (`crashed`) or ran past its time limit (`timeout`).

    A function may set a limit of its own on a part of its unit: dying of an alarm (`signal.setitimer`, whose
    default action works inside native code too) is a `timeout`.
    """

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Unit, Result]):
    """What became of one unit: `result`, or `failure` and no result."""

    unit: Unit
    result: Result | None
    failure: Failure | None = None


def run_units(
    function: Callable[[Unit], Result],
    units: Iterable[Unit],
    *,
    workers: int,
    timeout_seconds: float | None = None,
    initializer: Callable[..., None] | None = None,
    initargs: tuple[Any, ...] = (),
) -> Generator[Outcome[Unit, Result], None, None]:
    """Yield the outcome of `function(unit)` for each unit, as they finish.

    `function` and `initializer` are module-level functions; each worker is a fresh process that has run
    `initializer(*initargs)` once. `units` is read lazily. A worker that dies is replaced. `timeout_seconds`
    is per unit. An exception that `function` raises is the stage's own mistake, or the end of the stage,
    and is raised here; workers die with this process, even when it is killed.
    """
    context = multiprocessing.get_context("spawn")
    pool = ProcessPool(
        max_workers=workers,
        context=context,
        initializer=_start_worker,
        initargs=(os.getpid(), initializer, initargs),
    )
    source = iter(units)
    running: dict[Any, Unit] = {}
    try:
        while True:
            room = workers * _UNITS_IN_FLIGHT_PER_WORKER - len(running)
            for unit in itertools.islice(source, room):
                running[pool.schedule(function, args=[unit], timeout=timeout_seconds)] = unit
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield _outcome(running.pop(future), future)
        pool.close()
    finally:
        pool.stop()
        pool.join()


def _outcome(unit: Unit, future: Any) -> Outcome[Unit, Any]:
    try:
        return Outcome(unit, future.result())
    except ProcessExpired as error:
        if error.exitcode == -signal.SIGALRM:
            return Outcome(unit, None, Failure("timeout", "worker process ran past its time limit"))
        return Outcome(unit, None, Failure("crashed", f"worker process ended with code {error.exitcode}"))
    except UnitTimeout as error:
        return Outcome(unit, None, Failure("timeout", str(error)))


def _start_worker(
    parent_pid: int, initializer: Callable[..., None] | None, initargs: tuple[Any, ...]
) -> None:
    """Tie this worker to its parent, and leave Ctrl-C to the parent, which stops the pool."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:  # it died before the call above
            os._exit(1)
    if initializer is not None:
        initializer(*initargs)
