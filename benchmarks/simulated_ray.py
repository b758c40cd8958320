"""A stand-in for the module `ray`: machines that are lost and come back, and a clock that nobody waits for.

It has what `clipvip.pipeline.runtime.ray_units` uses and no more, so that hand-out runs as it is. A unit's function is
called where Ray would send it away; it says how long the work takes. Which units there are is not known here.
"""

import heapq
import itertools
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np

from clipvip.pipeline.runtime import ray_units
from clipvip.pipeline.runtime.workers import Failure


@dataclass(frozen=True, slots=True)
class Machines:
    """A cluster. The command runs on the first machine; `mtbf_hours` of each; 0: none is ever lost.

    A lost machine is away for `repair_hours`; that it is lost is noticed after `notice_seconds`. `slow_fraction` of
    the machines take `slowness` times as long. The command takes `hand_out_seconds` for each unit.
    """

    count: int
    cores: int
    mtbf_hours: float = 0.0
    repair_hours: float = 1.0
    notice_seconds: float = 30.0
    slow_fraction: float = 0.0
    slowness: float = 2.0
    start_seconds: float = 3.0
    hand_out_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a unit's function says: core seconds on a fast machine, seconds of hanging after them, how it ends."""

    work_seconds: float
    stalled_seconds: float = 0.0
    failure: Failure | None = None


class CommandLost(Exception):
    """The machine that the command ran on was lost."""


class RayError(Exception):
    """A worker was lost."""


class RayTaskError(RayError):
    """Never raised: functions here make no mistakes."""


@dataclass(slots=True, eq=False)
class _Reference:
    command: int  # which start of the command waits for it
    value: Any = None
    is_lost: bool = False


@dataclass(slots=True, eq=False)
class _Machine:
    number: int
    slowness: float
    free: int
    life: int = 0  # counts its losses: Ray takes a machine that comes back for another
    is_up: bool = True
    is_alive: bool = True  # as far as Ray knows
    down_since: float = 0.0
    actors: "dict[_Actor, None]" = field(default_factory=dict)  # a set in order of their start

    @property
    def node_id(self) -> str:
        return f"{self.number}.{self.life}"


@dataclass(slots=True, eq=False)
class _Actor:
    machine: _Machine | None = None
    is_lost: bool = False
    reference: _Reference | None = None  # of what it is at
    attempt: Attempt | None = None
    started: float = 0.0
    begin: Any = None
    run: Any = None


class SimulatedRay:
    """The module: see `installed`. `now` is in seconds; `spent` is core seconds by what they went into."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, machines: Machines, random: np.random.Generator) -> None:
        self.now = 0.0
        self.spent: Counter[str] = Counter()
        self.num_losses = 0
        self._plan = machines
        self._random = random
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._ready: deque[_Reference] = deque()
        self._pending: deque[_Actor] = deque()
        num_slow = round(machines.slow_fraction * machines.count)
        self._machines = [
            _Machine(
                number, machines.slowness if number >= machines.count - num_slow else 1.0, machines.cores
            )
            for number in range(machines.count)
        ]
        self._num_starts = 0
        self.command_is_lost = False
        for machine in self._machines:
            self._plan_loss(machine)

    @property
    def capacity(self) -> float:
        """Core seconds on fast machines that the whole cluster does in a second."""
        return sum(self._plan.cores / machine.slowness for machine in self._machines)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Make `import ray` give this, and hand-out go by this clock."""
        clock = SimpleNamespace(monotonic=lambda: self.now, sleep=self.sleep)
        with patch.dict(sys.modules, {"ray": self}), patch.object(ray_units, "time", clock):
            yield

    # What hand-out calls.

    def is_initialized(self) -> bool:
        return True

    def nodes(self) -> list[dict[str, Any]]:
        resources = {"CPU": self._plan.cores}
        return [
            {"NodeID": machine.node_id, "Alive": machine.is_alive, "Resources": resources}
            for machine in self._machines
        ]

    def remote(self, **_resources: Any) -> Callable[[type], Any]:
        return lambda _class: SimpleNamespace(remote=self._make_actor)

    def wait(self, _references: list[Any], *, timeout: float) -> tuple[list[Any], list[Any]]:
        """All that can become ready is awaited in hand-out, so which is asked for need not be known."""
        self._advance(self.now + timeout, until_ready=True)
        return ([self._ready.popleft()] if self._ready else []), []

    def get(self, reference: _Reference) -> Any:
        if reference.is_lost:
            raise RayError("the machine was lost")
        return reference.value

    def kill(self, actor: _Actor) -> None:
        self._stop(actor, "lost with the command")
        machine = actor.machine
        if machine is not None and actor in machine.actors:
            del machine.actors[actor]
            machine.free += 1
        actor.is_lost = True
        self._place()

    def sleep(self, seconds: float) -> None:
        self._advance(self.now + seconds, until_ready=False)

    # What happens meanwhile.

    def start_command(self, before_seconds: float) -> None:
        """The command is started, and is about to hand out; nobody waits for what the last one had asked for.

        Where its machine is lost, it waits until that is back, and is started again.
        """
        while True:
            if self.command_is_lost:
                self.sleep(3600 * self._plan.repair_hours)
            self.command_is_lost = False
            self._num_starts += 1
            self._ready.clear()
            self._pending.clear()
            self.sleep(before_seconds)
            if not self.command_is_lost:
                return

    def finish(self) -> None:
        """Account for machines that are away at the end."""
        for machine in self._machines:
            if not machine.is_up:
                self.spent["machines away"] += (self.now - machine.down_since) * self._plan.cores

    def _advance(self, until: float, *, until_ready: bool) -> None:
        while not (until_ready and self._ready):
            if self.command_is_lost and until_ready:
                raise CommandLost
            if not self._events or self._events[0][0] > until:
                self.now = max(self.now, until)
                return
            moment, _, action = heapq.heappop(self._events)
            self.now = max(self.now, moment)
            action()

    def _tell(self, reference: _Reference) -> None:
        if reference.command == self._num_starts:
            self._ready.append(reference)

    def _at(self, moment: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (moment, next(self._count), action))

    def _make_actor(self) -> _Actor:
        actor = _Actor()
        actor.begin = SimpleNamespace(remote=lambda *_: self._begin(actor))
        actor.run = SimpleNamespace(remote=lambda function, unit, _limit: self._run(actor, function(unit)))
        return actor

    def _begin(self, actor: _Actor) -> _Reference:
        actor.reference = reference = _Reference(self._num_starts)
        self._pending.append(actor)
        self._place()
        return reference

    def _place(self) -> None:
        """Start actors that wait, where most cores are free."""
        while self._pending:
            machine = max((m for m in self._machines if m.is_up), key=lambda m: m.free, default=None)
            if machine is None or not machine.free:
                return
            actor = self._pending.popleft()
            if actor.is_lost:
                continue
            machine.free -= 1
            machine.actors[actor] = None
            actor.machine = machine
            self._finish_at(self.now + self._plan.start_seconds, actor, machine.node_id)

    def _run(self, actor: _Actor, attempt: Attempt) -> _Reference:
        self.now += self._plan.hand_out_seconds
        actor.reference = reference = _Reference(self._num_starts)
        machine = actor.machine
        assert machine is not None
        if actor.is_lost:  # while it was idle: told when it is noticed
            reference.is_lost = True
            if not machine.is_up and machine.is_alive:
                noticed = machine.down_since + self._plan.notice_seconds
            else:
                noticed = self.now
            self._at(noticed, lambda: self._tell(reference))
            return reference
        actor.attempt, actor.started = attempt, self.now
        seconds = attempt.work_seconds * machine.slowness + attempt.stalled_seconds
        self._finish_at(self.now + seconds, actor, (None, attempt.failure))
        return reference

    def _finish_at(self, moment: float, actor: _Actor, value: Any) -> None:
        reference = actor.reference
        assert reference is not None

        def finish() -> None:
            if actor.reference is not reference:
                return
            reference.value, actor.reference = value, None
            if actor.attempt is not None:
                self._account(actor, actor.attempt)
                actor.attempt = None
            self._tell(reference)

        self._at(moment, finish)

    def _account(self, actor: _Actor, attempt: Attempt) -> None:
        assert actor.machine is not None
        kind = "lost in crashes" if attempt.failure else "useful"
        self.spent[kind] += attempt.work_seconds * actor.machine.slowness
        self.spent["hanging"] += attempt.stalled_seconds
        if not attempt.failure:
            self.spent["useful, on fast machines"] += attempt.work_seconds

    def _stop(self, actor: _Actor, why: str) -> None:
        """End what an actor is at, without a result."""
        if actor.attempt is not None:
            self.spent[why] += self.now - actor.started
            actor.attempt = None
        actor.reference = None

    def _plan_loss(self, machine: _Machine) -> None:
        if self._plan.mtbf_hours:
            hours = self._random.exponential(self._plan.mtbf_hours)
            self._at(self.now + 3600 * hours, lambda: self._lose(machine))

    def _lose(self, machine: _Machine) -> None:
        self.num_losses += 1
        self.command_is_lost |= machine.number == 0
        machine.is_up, machine.down_since, machine.free = False, self.now, 0
        lost = [actor.reference for actor in machine.actors if actor.reference is not None]
        for actor in machine.actors:
            self._stop(actor, "lost with machines")
            actor.is_lost = True
        machine.actors.clear()

        def notice() -> None:
            machine.is_alive = False
            for reference in lost:
                reference.is_lost = True
                self._tell(reference)

        def come_back() -> None:
            self.spent["machines away"] += (self.now - machine.down_since) * self._plan.cores
            machine.is_up, machine.is_alive, machine.free = True, True, self._plan.cores
            machine.life += 1
            self._plan_loss(machine)
            self._place()

        self._at(self.now + self._plan.notice_seconds, notice)
        away_seconds = max(3600 * self._plan.repair_hours, self._plan.notice_seconds)
        self._at(self.now + away_seconds, come_back)
