"""Run stages that need each other's results, several at a time, each once: a finished one is not run again.

Each is a process of its own, writes its log beside the others', and is marked as finished when it ended well.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipvip.pipeline.runtime.errors import StageCommand, UserError
from clipvip.pipeline.runtime.progress import Progress
from clipvip.pipeline.runtime.stage import Stage, StageFailed, StageOptions, command_line, options_in
from clipvip.pipeline.runtime.worker_process import die_with_parent
from clipvip.pipeline.runtime.workers import run_units
from clipvip.shards.files.atomic import write_json
from clipvip.shards.files.locks import locked

if TYPE_CHECKING:
    from clipvip.pipeline.runtime.ray_units import RayCluster

_MARKS, _LOGS = "finished", "logs"


@dataclass(frozen=True, slots=True)
class Task:
    """A stage with its options, and the tasks that must have ended before it begins.

    `how` are more options, which say how it is computed and not what comes out: with others it is the same
    task. `cost` is a rough measure of its length: of those that may begin, long ones do so first, after
    those of an earlier `turn`.
    """

    name: str
    stage: Stage[Any, Any, Any]
    options: StageOptions
    needs: tuple[str, ...] = ()
    how: Mapping[str, int] = field(default_factory=dict)
    cost: float = 1.0
    turn: int = 0

    @property
    def command(self) -> list[str]:
        """The command that does the same."""
        return command_line(self.stage, replace(self.options, **self.how))

    def run(self) -> None:
        """Do it, and print what comes out."""
        try:
            click.echo(self.stage(replace(self.options, **self.how)))
        except StageFailed as failure:
            click.echo(failure.report)
            raise


def run_tasks(
    tasks: Sequence[Task], out: Path, *, jobs: int, num_gpus: int = 0, ray: "RayCluster | None" = None
) -> int:
    """Run what is not finished, `jobs` at a time, each when its needs are met; return how many were run.

    Raises:
        UserError: a task failed. Those running beside it end first; what is finished is kept.
    """
    left = {task.name: task for task in tasks if not is_finished(task, out)}
    count, queue = len(left), _Queue(left)
    failed: list[tuple[Task, str]] = []
    work = partial(run_task, out=out, num_gpus=num_gpus)
    with Progress("study", total=len(tasks), unit="runs", initial=len(tasks) - count) as progress:
        for outcome in run_units(work, queue, workers=jobs, ray=ray):
            task = outcome.unit
            message = outcome.failure.detail if outcome.failure else outcome.result
            if message:
                failed.append((task, message))
                queue.close()
                continue
            progress.add(1)
            del left[task.name]
    if failed:
        task, message = failed[0]
        raise UserError(
            f"{task.name}: {message}. Its log is {log_path(task, out)}. What is finished is kept: the same "
            "command goes on from there"
        )
    if left:
        raise ValueError(f"tasks wait for each other: {', '.join(sorted(left))}")
    return count


class _Queue(Iterator[Task]):
    """The tasks that may begin, in turns, long ones first; where none may, some may when others end."""

    def __init__(self, left: Mapping[str, Task]) -> None:
        self._left = left
        self._unbegun = sorted(left.values(), key=lambda task: (task.turn, -task.cost))

    def __next__(self) -> Task:
        for task in self._unbegun:
            if not any(need in self._left for need in task.needs):
                self._unbegun.remove(task)
                return task
        raise StopIteration

    def close(self) -> None:
        """Let no further task begin."""
        self._unbegun.clear()


def run_task(task: Task, *, out: Path, num_gpus: int) -> str:
    """Run a task from a worker process, in one of its own; return "" or, where it failed, its last line."""
    log = log_path(task, out)
    log.parent.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    with _a_gpu(out, num_gpus) as gpu:
        if gpu is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = str(gpu)
        process = get_context("spawn").Process(target=_work, args=(task, log, os.getpid()))
        process.start()
        process.join()
    if process.exitcode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"exit code {process.exitcode}: {lines[-1] if lines else 'no output'}"
    path = _mark_path(task, out)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"command": command_line(task.stage, task.options)})
    return ""


def _work(task: Task, log: Path, parent_pid: int) -> None:
    """The process of a task: all that it says goes to its log, and it ends as the command would."""
    die_with_parent(parent_pid)
    with log.open("wb") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    StageCommand(task.name, callback=task.run).main([])


def is_finished(task: Task, out: Path) -> bool:
    """Whether this very task has ended well there, whichever way the command was written."""
    try:
        content = json.loads(_mark_path(task, out).read_bytes())
        return bool(options_in(task.stage, content["command"]) == task.options)
    except (FileNotFoundError, ValueError, RecursionError, KeyError, TypeError, click.ClickException):
        return False  # damaged, or of another task: it is done again


def log_path(task: Task, out: Path) -> Path:
    return out / _LOGS / f"{task.name}.log"


def _mark_path(task: Task, out: Path) -> Path:
    return out / _MARKS / f"{task.name}.json"


@contextmanager
def _a_gpu(out: Path, num_gpus: int) -> Iterator[int | None]:
    """The number of a GPU that no other task of this machine has; None where there are none to be used."""
    with ExitStack() as held:
        for number in range(num_gpus):
            lock = out / _LOGS / f"gpu{number}.lock"
            # There are as many workers as GPUs; the last one waits for whoever is about to let go.
            with suppress(BlockingIOError):
                held.enter_context(locked(lock, waits=number + 1 == num_gpus))
                break
        yield number if num_gpus else None
