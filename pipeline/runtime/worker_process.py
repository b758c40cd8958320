"""One worker process, which does one unit at a time and may crash, hang or be killed while it does.

It shares no lock and no pipe with other workers, so that it cannot hold these up however it dies. `workers`
and `ray_units` decide which units there are, and what becomes of one that a worker died of.
"""

import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.util import Finalize
from typing import Any

from clipvip.pipeline.runtime.stopping import starting_a_process
from clipvip.shards.files.atomic import name_writer

_PR_SET_PDEATHSIG = 1
_QUIET = "ignore:resource_tracker:UserWarning"


@dataclass(frozen=True, slots=True)
class Death:
    """How a worker ended before its unit did: the exit code, negative for a signal."""

    exit_code: int

    @property
    def was_killed(self) -> bool:
        """Whether from outside, as by a system out of memory, a scheduler or a person."""
        return -self.exit_code in {signal.SIGKILL, signal.SIGTERM, signal.SIGHUP}

    @property
    def is_timeout(self) -> bool:
        """Whether by an alarm, which is how time limits end a worker, even inside native code."""
        return self.exit_code == -signal.SIGALRM


class WorkerProcess:
    """A fresh process that does one unit after another; it dies with this one.

    `writer` is its name as a writer of files, where machines share a folder (see `name_writer`). `needs_main`
    is for functions that the caller's script defines.
    """

    def __init__(self, *, writer: str = "", needs_main: bool = False) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, os.getpid(), writer)
        self._process = context.Process(target=_work, args=arguments)
        start_resource_tracker()  # which unblocks signals
        with starting_a_process(), nullcontext() if needs_main else without_main():
            self._process.start()
        # What a daemon is for, which may not have processes of its own: not to be waited for at our end.
        self._at_end = Finalize(None, self._process.kill, exitpriority=0)
        theirs.close()

    @property
    def awaited(self) -> Connection:
        """For `multiprocessing.connection.wait`: ready when `take` will not block."""
        return self._pipe

    def give(self, function: Callable[[Any], Any], unit: Any, timeout_seconds: float | None) -> None:
        """Let it begin with `function(unit)`, which ends it if it takes longer than `timeout_seconds`."""
        job = pickle.dumps((function, unit, timeout_seconds))
        with suppress(OSError):  # it is dead, which `take` tells
            self._pipe.send_bytes(job)

    def take(self) -> Any:
        """Wait for what the function returns, or the worker's `Death`; raises what the function raises."""
        try:
            result, error = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            assert self._process.exitcode is not None
            return Death(self._process.exitcode)
        if error is not None:
            raise error
        return result

    def stop(self) -> None:
        """End it, whatever it is doing."""
        self._at_end.cancel()
        self._process.kill()
        self._process.join()
        self._pipe.close()


@contextmanager
def without_main() -> Iterator[None]:
    """Let processes that start in the block leave the caller's script alone.

    multiprocessing has each run that script first, up to its `if __name__ == "__main__"`, for functions
    defined there. Ours are not, and a script of two lines, `import clipvip; clipvip.shard(...)`, has no such
    line: each process would start the stage over.
    """
    main = sys.modules["__main__"]
    names = ("__spec__", "__file__")
    kept = {name: vars(main)[name] for name in names if name in vars(main)}
    for name in kept:
        delattr(main, name)
    main.__spec__ = None
    try:
        yield
    finally:
        vars(main).update(kept)


def start_resource_tracker() -> None:
    """Start the process that removes the semaphores of those that were killed, without complaints of them."""
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [before, _QUIET]))
    try:
        resource_tracker.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before


def die_with_parent(parent_pid: int | None = None) -> None:
    """Have this process killed when its parent dies; now, where the parent `parent_pid` is dead already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if parent_pid is not None and os.getppid() != parent_pid:
            os._exit(1)


def _work(pipe: Connection, parent_pid: int, writer: str) -> None:
    """The process: leave Ctrl-C to the parent, end with it, and do units until then."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    die_with_parent(parent_pid)
    if writer:
        name_writer(writer)
    while True:
        try:
            job = pipe.recv_bytes()
        except EOFError:
            return
        reply: tuple[Any, Exception | None]
        try:
            reply = _run(job), None
            data = pickle.dumps(reply)
        except Exception as error:  # noqa: BLE001 (raised again in the parent)
            data = pickle.dumps((None, _portable(error)))
        pipe.send_bytes(data)


def _run(job: bytes) -> Any:
    function, unit, timeout_seconds = pickle.loads(job)  # noqa: S301 (of our parent, by a pipe of our own)
    # The kernel counts by a clock that nobody sets.
    signal.setitimer(signal.ITIMER_REAL, timeout_seconds or 0)
    try:
        return function(unit)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _portable(error: Exception) -> Exception:
    """An error that the parent can unpickle, with the traceback of this process."""
    error.add_note(traceback.format_exc())
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 (of our own making)
    except Exception:  # noqa: BLE001 (whatever its class does when it is made again)
        return RuntimeError("".join(traceback.format_exception(error)))
    return error
