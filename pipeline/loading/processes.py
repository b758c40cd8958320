"""The processes that load: how they start and end, and what is said when one dies."""

import math
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.worker_process import start_resource_tracker, without_main

Part = TypeVar("Part")
# What loading processes have to end by themselves; what they are loading may take longer.
_ENDING_SECONDS = 2.0
SHARED_MEMORY = Path("/dev/shm")
# In what torch says when it gets none, as the name of the piece.
_NO_SHARED_MEMORY = "</torch_"
# What the fork server has to notice that one has died.
_DEATH_SECONDS = 1.0


@dataclass(frozen=True)
class Advice:
    """What a user is told when loading processes end: how to go on, and what needs less memory."""

    goes_on: str
    when_dead: str
    when_failed: str


@dataclass(frozen=True)
class Loading:
    """How many processes load, and how many parts each has ready; `module` is what they have imported."""

    workers: int
    prefetch: int
    pin_memory: bool
    module: str
    advice: Advice


def free_shared_memory() -> float:
    """Bytes of shared memory that are free; infinite where it is no folder of a size of its own."""
    return shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else math.inf


def load_parts(dataset: Dataset[Part], items: Iterator[Any], loading: Loading) -> Generator[Part, None, None]:
    """Yield `dataset[item]` for one item after another. Closed, it ends its processes.

    A UserError: a loading process died, or none could start.
    """
    workers = loading.workers
    loader = DataLoader(
        dataset,
        sampler=items,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=loading.prefetch if workers else None,
        pin_memory=loading.pin_memory,
        worker_init_fn=_start_worker,
        # A fork of a process with threads and a GPU may hang; the fork server has neither.
        multiprocessing_context=fork_server(loading.module) if workers else None,
    )
    others = set(multiprocessing.active_children())
    iterator = None
    try:
        with without_main():
            try:
                iterator = iter(loader)
            except (EOFError, ConnectionError) as error:  # of the fork server
                raise UserError(
                    f"no loading process could start, since the process that starts them died; "
                    f"{loading.advice.goes_on}; {loading.advice.when_dead}"
                ) from error
        processes = set(multiprocessing.active_children()) - others
        yield from _explained(iterator, processes, loading.advice)
    finally:
        if workers:
            _end(iterator, set(multiprocessing.active_children()) - others)


def _explained(
    parts: Iterator[Part], processes: set[BaseProcess], advice: Advice
) -> Generator[Part, None, None]:
    """The parts; what ends them and is no mistake of ours is a UserError."""
    try:
        yield from parts
    except (RuntimeError, OSError, EOFError, MemoryError) as error:
        # The last line of a traceback, where it is of a loading process.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        # What it had ready cannot be fetched any more, which may be noticed first.
        if processes and wait([process.sentinel for process in processes], timeout=_DEATH_SECONDS):
            raise UserError(
                f"a loading process died ({lines[-1]}): too little memory (also in /dev/shm), or a video "
                f"that crashes the decoder. {advice.goes_on}; {advice.when_dead}"
            ) from error
        if _NO_SHARED_MEMORY in lines[-1] or (processes and isinstance(error, OSError | MemoryError)):
            raise UserError(
                f"a loading process failed ({lines[-1]}). {advice.when_failed}, also in /dev/shm"
            ) from error
        raise


def _end(iterator: Any, processes: set[BaseProcess]) -> None:
    """End loading processes, whatever they are doing: multiprocessing would wait for them for ever.

    First as DataLoader does, since one killed with a lock in its hand holds up whoever wants that next.
    """
    polite = threading.Thread(target=None if iterator is None else iterator._shutdown_workers, daemon=True)
    polite.start()
    polite.join(_ENDING_SECONDS)
    for process in processes:
        if process.exitcode != 0:
            with suppress(ProcessLookupError):
                assert process.pid is not None
                os.killpg(process.pid, signal.SIGKILL)  # with programs that it started to fetch shards
            process.kill()
    polite.join(_ENDING_SECONDS)
    for process in processes:
        process.join(_ENDING_SECONDS)
        # Where there is no room for shared memory torch leaves a name of it behind.
        for path in SHARED_MEMORY.glob(f"torch_{process.pid}_*"):
            path.unlink(missing_ok=True)


def fork_server(module: str) -> Any:
    """What makes forks that have imported `module`; where one runs already, what it was started with.

    It starts without being waited for.
    """
    forkserver.set_forkserver_preload([module])
    # A signal to all processes of a run must end neither the server nor its forks, which inherit the mask.
    start_resource_tracker()  # which unblocks them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return torch.multiprocessing.get_context("forkserver")


def _start_worker(worker: int) -> None:
    """Leave signals to the computing process, which ends its loading processes itself, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.setpgid(0, 0)  # of which all are killed that it starts
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.excepthook = _complain
    Queue._on_queue_feeder_error = staticmethod(_fail)  # type: ignore[attr-defined]
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    """The parent that the system knows is the fork server, which lives as long as its processes do."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.killpg(0, signal.SIGKILL)


def _complain(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """As Python, unless the computing process is gone: multiprocessing's threads would complain of that."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join(_DEATH_SECONDS)
    if parent.is_alive():
        sys.__excepthook__(kind, error, trace)


def _fail(error: Exception, part: object) -> None:
    """What cannot be sent is waited for: by itself multiprocessing would drop it and go on."""
    if _NO_SHARED_MEMORY not in str(error):
        traceback.print_exception(error)
    os._exit(1)
