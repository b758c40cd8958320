"""Run one function over many units of work in processes that may crash or hang without taking the stage along.

What a unit is, what to do with one that failed, and where results go are the stage's business.
"""

import ctypes
import itertools
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures import TimeoutError as UnitTimeout
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pebble import ProcessExpired, ProcessPool

if TYPE_CHECKING:
    from clipvip.pipeline.runtime.ray_units import RayCluster

Unit = TypeVar("Unit")
Result = TypeVar("Result")

_PR_SET_PDEATHSIG = 1
# A queue a little deeper than the pool keeps every worker busy while the parent handles results.
_UNITS_IN_FLIGHT_PER_WORKER = 2
_POOLS_AT_MOST = 20


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
    ray: "RayCluster | None" = None,
) -> Generator[Outcome[Unit, Result], None, None]:
    """Yield the outcome of `function(unit)` for each unit, as they finish.

    `function` and `initializer` are module-level functions; each worker is a fresh process that has run
    `initializer(*initargs)` once. `units` is read lazily. A worker that dies is replaced. `timeout_seconds`
    is per unit. An exception that `function` raises is the stage's own mistake, or the end of the stage,
    and is raised here; workers die with this process, even when it is killed. With `ray` all this holds, but
    the workers are that cluster's, whatever `workers` says, and what a lost machine had at hand another does.
    """
    if ray is not None:
        from clipvip.pipeline.runtime.ray_units import run_units_on_ray

        yield from run_units_on_ray(
            function,
            units,
            cluster=ray,
            timeout_seconds=timeout_seconds,
            initializer=initializer,
            initargs=initargs,
        )
        return
    waiting = iter(units)
    for _ in range(_POOLS_AT_MOST):
        lost: list[Unit] = []
        yield from _run_in_pool(
            function, waiting, lost, workers, timeout_seconds, start_pool(workers, initializer, initargs)
        )
        if not lost:
            return
        waiting = itertools.chain(lost, waiting)
    raise RuntimeError(f"{_POOLS_AT_MOST} pools of worker processes broke, one after another")


def _run_in_pool(
    function: Callable[[Unit], Result],
    waiting: Iterator[Unit],
    lost: list[Unit],
    workers: int,
    timeout_seconds: float | None,
    pool: ProcessPool,
) -> Generator[Outcome[Unit, Result], None, None]:
    """Yield outcomes until all units are done, or the pool breaks; `lost` are those that it then had.

    It breaks if a worker dies between taking a unit and saying so: nobody knows then which one it had.
    """
    running: dict[Any, Unit] = {}
    try:
        while not lost:
            room = workers * _UNITS_IN_FLIGHT_PER_WORKER - len(running)
            for unit in itertools.islice(waiting, room):
                try:
                    running[pool.schedule(function, args=[unit], timeout=timeout_seconds)] = unit
                except RuntimeError:  # it is broken
                    lost.append(unit)
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                unit = running.pop(future)
                if isinstance(future.exception(), BrokenProcessPool):
                    lost.append(unit)
                else:
                    yield outcome_of(unit, future)
        for future, unit in running.items():
            if future.done() and not isinstance(future.exception(), BrokenProcessPool):
                yield outcome_of(unit, future)
            else:
                lost.append(unit)
        pool.close()
    finally:
        pool.stop()
        pool.join()


def start_pool(
    workers: int, initializer: Callable[..., None] | None, initargs: tuple[Any, ...]
) -> ProcessPool:
    """Fresh processes for `run_units`; whoever starts them stops them."""
    return ProcessPool(
        max_workers=workers,
        context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(os.getpid(), initializer, initargs),
    )


def outcome_of(unit: Unit, future: Any) -> Outcome[Unit, Any]:
    """What became of a unit that was given to a pool, when it is done."""
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
