"""Run units on a Ray cluster: `run_units` with workers on machines of which any may be lost at any time.

Ray places the workers and tells when one is lost. Each runs its units in a process of its own, as locally, so
crashes and time limits are told by the same code. Only this file knows Ray.
"""

import logging
import os
import re
import signal
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from clipvip.extras import missing
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.report import counted
from clipvip.pipeline.runtime.worker_process import Death, WorkerProcess
from clipvip.pipeline.runtime.workers import Failure, Outcome, failure_of

Unit = TypeVar("Unit")
Result = TypeVar("Result")

# A unit that takes so many workers down with it is at fault itself, as one that does not fit in memory.
_MOST_LOSSES = 3
_MOST_FAILED_STARTS = 5
_SECONDS_BETWEEN_LOOKS = 2.0
_HOST_AND_PORT = re.compile(r"([^/]+):(\d{1,5})")


@dataclass(frozen=True, slots=True)
class RayCluster:
    """The cluster at `address` (`local`: this machine, started for the run), and what a worker takes of it.

    `workers` is how many there are at most; None: as many as there is room for, also while it grows.
    """

    address: str
    workers: int | None = None
    cpus_per_worker: int = 1
    gpus_per_worker: int = 0


@dataclass(frozen=True, slots=True)
class Machine:
    """What a machine of a cluster offers."""

    num_cpus: int
    num_gpus: int


class _Worker:
    """An actor: it has one process for units, and replaces it when it dies."""

    def begin(self, folder: str) -> str:
        """Start the process; returns the machine's id."""
        import ray

        if not os.path.isdir(folder):
            raise UserError(
                f"{folder}: not there on machine {ray.util.get_node_ip_address()} of the cluster; start"
                " from a folder that all its machines share"
            )
        os.chdir(folder)
        node: str = ray.get_runtime_context().get_node_id()
        self._writer = f"{node[:12]}-{os.getpid()}"
        self._process = WorkerProcess(writer=self._writer)
        return node

    def run(
        self, function: Callable[[Any], Any], unit: Any, timeout_seconds: float | None
    ) -> tuple[Any, Failure | None]:
        num_kills = 0
        while True:
            self._process.give(function, unit, timeout_seconds)
            result = self._process.take()
            if not isinstance(result, Death):
                return result, None
            self._process = WorkerProcess(writer=self._writer)
            num_kills += result.was_killed
            failure = failure_of(result, num_kills)
            if failure is not None:
                return None, failure


def run_units_on_ray(
    function: Callable[[Unit], Result],
    units: Iterable[Unit],
    *,
    cluster: RayCluster,
    timeout_seconds: float | None,
) -> Generator[Outcome[Unit, Result], None, None]:
    """As `run_units`, on a cluster.

    A worker has one unit at a time, and gets the next when it is done: fast ones do more. All machines see
    the same files, and have this package installed.

    Raises:
        UserError: Ray is not installed, no cluster answers, it has no room for one worker, or none starts.
    """
    ray = connect(cluster.address)
    crew = _Crew(ray, cluster)
    try:
        yield from _hand_out(ray, crew, function, units, timeout_seconds)
    finally:
        crew.dismiss()


def _hand_out(
    ray: Any,
    crew: "_Crew",
    function: Callable[[Unit], Result],
    units: Iterable[Unit],
    timeout_seconds: float | None,
) -> Generator[Outcome[Unit, Result], None, None]:
    source = enumerate(units)
    waiting: deque[tuple[int, Unit]] = deque()
    at_work: dict[Any, tuple[Any, tuple[int, Unit]]] = {}
    losses: Counter[int] = Counter()
    # With room for 3, 2 at work and 5 units to come: 3 are read, a third worker is started, and has the first
    # of them when it is up. What a lost worker had at hand comes before those that are read.
    while True:
        size = crew.size()
        waiting.extend(islice(source, max(0, size - len(waiting))))
        if not waiting and not at_work:
            return
        crew.start(min(size - len(at_work), len(waiting)))
        while crew.idle and waiting:
            actor, job = crew.idle.pop(), waiting.popleft()
            at_work[actor.run.remote(function, job[1], timeout_seconds)] = (actor, job)
        awaited = [*at_work, *crew.starting]
        if not awaited:  # the last machine was lost; another may join
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            continue
        done, _ = ray.wait(awaited, timeout=_SECONDS_BETWEEN_LOOKS)
        for reference in done:
            if reference in crew.starting:
                crew.welcome(reference)
                continue
            actor, (number, unit) = at_work.pop(reference)
            try:
                result, failure = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except ray.exceptions.RayError as error:
                losses[number] += crew.give_up(actor)
                if losses[number] < _MOST_LOSSES:
                    waiting.appendleft((number, unit))
                    continue
                detail = f"{losses[number]} worker processes died on it ({_first_line(error)})"
                result, failure = None, Failure("crashed", detail)
            else:
                crew.idle.append(actor)
            yield Outcome(unit, result, failure)


class _Crew:
    """The workers: `starting` (by what tells that they began) and `idle`; `_hand_out` has those at work."""

    def __init__(self, ray: Any, cluster: RayCluster) -> None:
        self._ray = ray
        self._cluster = cluster
        self._actor = ray.remote(
            num_cpus=cluster.cpus_per_worker, num_gpus=cluster.gpus_per_worker, max_restarts=0
        )(_Worker)
        self._all: list[Any] = []
        self._nodes: dict[Any, str] = {}
        self._num_failed_starts = 0
        self._size = 0
        self._looked_at = -1e9
        self.starting: dict[Any, Any] = {}
        self.idle: list[Any] = []

    def size(self) -> int:
        """How many workers there should be: what fits into the machines that there are now."""
        if time.monotonic() - self._looked_at >= _SECONDS_BETWEEN_LOOKS:
            self._looked_at = time.monotonic()
            cluster = self._cluster
            room = sum(map(self._room, machines(cluster.address)))
            if not room and not self._all:
                gpus = f" and {counted(cluster.gpus_per_worker, 'GPUs')}" if cluster.gpus_per_worker else ""
                needs = f"{counted(cluster.cpus_per_worker, 'CPUs')}{gpus}"
                raise UserError(f"--ray {cluster.address}: no machine of the cluster has {needs}")
            self._size = min(room, cluster.workers or room)
        return self._size

    def _room(self, machine: Machine) -> int:
        room = machine.num_cpus // self._cluster.cpus_per_worker
        if self._cluster.gpus_per_worker:
            room = min(room, machine.num_gpus // self._cluster.gpus_per_worker)
        return room

    def start(self, num_needed: int) -> None:
        """Ask for workers until `num_needed` are idle or on their way; Ray starts them where it can."""
        for _ in range(num_needed - len(self.idle) - len(self.starting)):
            actor = self._actor.remote()
            self._all.append(actor)
            self.starting[actor.begin.remote(os.getcwd())] = actor

    def welcome(self, reference: Any) -> None:
        """Take in a worker that began, or failed to."""
        actor = self.starting.pop(reference)
        try:
            self._nodes[actor] = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self._ray.exceptions.RayError as error:
            self.give_up(actor)
            self._num_failed_starts += 1
            if self._num_failed_starts >= _MOST_FAILED_STARTS:
                raise UserError(
                    f"--ray {self._cluster.address}: workers do not start ({_first_line(error)}); "
                    "is clipvip installed on the machines of the cluster?"
                ) from error
        else:
            self._num_failed_starts = 0
            self.idle.append(actor)

    def give_up(self, actor: Any) -> bool:
        """End a worker that cannot be reached; whether its machine is still there."""
        self._all.remove(actor)
        self._ray.kill(actor)
        self._looked_at = -1e9
        node = self._nodes.pop(actor, None)
        return any(found["NodeID"] == node and found["Alive"] for found in self._ray.nodes())

    def dismiss(self) -> None:
        for actor in self._all:
            self._ray.kill(actor)


def connect(address: str) -> Any:
    """The module `ray`, connected to the cluster at `address`; it stays so until the process ends.

    Raises:
        UserError: it is not installed, or nothing answers.
    """
    # Ray's own reports home; who wants them sets the variable.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise UserError(missing("ray", "--ray")) from error
    if address.startswith("ray://"):
        raise UserError(
            f"--ray {address}: give HOST:PORT of the head, as 'ray start' says it, without ray://"
        )
    if not ray.is_initialized():
        local: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
        try:
            if address == "auto":
                address = os.environ.get("RAY_ADDRESS", address)
            if match := _HOST_AND_PORT.fullmatch(address):  # Ray itself would try for minutes
                socket.create_connection((match[1].strip("[]"), int(match[2])), timeout=10).close()
            before = signal.getsignal(signal.SIGTERM)  # for which Ray sets a handler of its own
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)
        except Exception as error:  # Ray raises that itself where it takes too long to start
            raise UserError(
                f"--ray {address}: no cluster answers there ({_first_line(error)}); if it asks for a token,"
                " set RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH as on its machines"
            ) from error
    return ray


def machines(address: str) -> list[Machine]:
    """The machines of the cluster at `address` that are there now; see `connect`."""
    nodes = [node["Resources"] for node in connect(address).nodes() if node["Alive"]]
    return [Machine(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in nodes]


def share_machines(
    address: str, *, gpus: int | None, workers: int | None, cpus_per_worker: int
) -> RayCluster:
    """The cluster for workers that compute a model, each on a GPU or on up to `cpus_per_worker` cores.

    `gpus` is how many GPUs to take at most, 0 for none; None: all that there are. On GPUs `workers` is how
    many cores go with each, else how many workers there are at most, as for local ones.

    Raises:
        UserError: there are no GPUs, and they are asked for.
    """
    found = machines(address)
    with_gpus = [machine for machine in found if machine.num_gpus]
    if gpus == 0 or (gpus is None and not with_gpus):
        most_cpus = max((machine.num_cpus for machine in found), default=1)
        return RayCluster(address, workers, cpus_per_worker=max(1, min(cpus_per_worker, most_cpus)))
    if not with_gpus:
        raise UserError(f"--gpus {gpus}: the cluster at {address} has no GPU; give --gpus 0")
    share = min(machine.num_cpus // machine.num_gpus for machine in with_gpus)
    cpus = max(1, min(workers or cpus_per_worker, share))
    return RayCluster(address, gpus, cpus_per_worker=cpus, gpus_per_worker=1)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
