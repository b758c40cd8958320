"""Run one function over many units of work, in processes that may crash without taking the stage along.

The stage decides what a unit is and what becomes of one that failed; `worker_process` is one process.
"""

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from clipvip.pipeline.runtime.worker_process import Death, WorkerProcess

if TYPE_CHECKING:
    from clipvip.pipeline.runtime.ray_units import RayCluster

Unit = TypeVar("Unit")
Result = TypeVar("Result")

# A unit whose workers are killed so often is at fault itself, as one that does not fit in memory.
_MOST_KILLS = 3


@dataclass(frozen=True, slots=True)
class Failure:
    """A unit whose process died (`crashed`) or ran past its time limit (`timeout`).

    A function may set a limit of its own on a part of its unit: dying of an alarm (as by `time_limit`, whose
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
    ray: "RayCluster | None" = None,
) -> Generator[Outcome[Unit, Result], None, None]:
    """Yield the outcome of `function(unit)` for each unit, as they finish.

    `function` is a module-level function; each worker is a fresh process. `units` is read lazily; an iterator
    that has none at the moment is asked again after each outcome. A worker that dies is replaced; if it was
    killed, which is not its own doing, its unit is done again. `timeout_seconds` is per unit. An exception
    that `function` raises is the stage's own mistake, or the end of the stage, and is raised here; workers
    die with this process, even when it is killed. With `ray` all this holds, but the workers are that
    cluster's, whatever `workers` says, and what a lost machine had at hand another does.
    """
    if ray is not None:
        from clipvip.pipeline.runtime.ray_units import run_units_on_ray

        yield from run_units_on_ray(function, units, cluster=ray, timeout_seconds=timeout_seconds)
        return
    crew: set[WorkerProcess] = set()

    def start() -> WorkerProcess:
        worker = WorkerProcess(needs_main=function.__module__ == "__main__")
        crew.add(worker)
        return worker

    try:
        yield from _hand_out(function, units, start, workers, timeout_seconds)
    finally:
        for worker in crew:
            worker.stop()


def run_plain_units(
    function: Callable[[Unit], Result], units: Iterable[Unit], *, workers: int
) -> Iterator[Outcome[Unit, Result]]:
    """As `run_units`, for plain Python, which takes no process down: one worker is this process itself."""
    if workers > 1:
        yield from run_units(function, units, workers=workers)
        return
    for unit in units:
        yield Outcome(unit, function(unit))


@dataclass(slots=True)
class _Job(Generic[Unit]):
    unit: Unit
    num_kills: int = 0


def _hand_out(
    function: Callable[[Unit], Result],
    units: Iterable[Unit],
    start: Callable[[], WorkerProcess],
    num_workers: int,
    timeout_seconds: float | None,
) -> Generator[Outcome[Unit, Result], None, None]:
    source, returned = iter(units), deque[_Job[Unit]]()
    idle: list[WorkerProcess] = []
    at_work: dict[Any, tuple[WorkerProcess, _Job[Unit]]] = {}
    finished: list[Outcome[Unit, Result]] = []

    def give_out() -> None:
        jobs = list(_take(source, returned, num_workers - len(at_work)))
        # All are started before the first is given its unit, which it must be up for.
        idle.extend(start() for _ in range(len(jobs) - len(idle)))
        for job in jobs:
            worker = idle.pop()
            worker.give(function, job.unit, timeout_seconds)
            at_work[worker.awaited] = worker, job

    # 2 workers, 5 units: 0 and 1 are given out. 1 is done first: 2 is given out, then 1 is yielded; what the
    # caller does with it may end the wait of a unit for which the source had nothing yet.
    while True:
        give_out()  # before the caller sees to results, so that workers are busy meanwhile
        yield from finished
        finished = []
        give_out()  # what the source has since, or because of them
        if not at_work:
            return
        for pipe in wait(list(at_work)):
            worker, job = at_work.pop(pipe)
            result = worker.take()
            if not isinstance(result, Death):
                idle.append(worker)
                finished.append(Outcome(job.unit, result))
                continue
            job.num_kills += result.was_killed
            failure = failure_of(result, job.num_kills)
            if failure is None:
                returned.append(job)
            else:
                finished.append(Outcome(job.unit, None, failure))


def _take(source: Iterator[Unit], returned: deque[_Job[Unit]], most: int) -> Iterator[_Job[Unit]]:
    """Up to `most` units: first those that were given back."""
    for _ in range(most):
        if returned:
            yield returned.popleft()
        else:
            yield from map(_Job, itertools.islice(source, 1))


def failure_of(death: Death, num_kills: int) -> Failure | None:
    """What a death means for its unit, which `num_kills` workers were killed with; None: do it again."""
    if death.is_timeout:
        return Failure("timeout", "worker process exceeded its time limit")
    if not death.was_killed:
        return Failure("crashed", f"worker process ended with code {death.exit_code}")
    return (
        Failure("crashed", f"{num_kills} worker processes were killed") if num_kills >= _MOST_KILLS else None
    )
