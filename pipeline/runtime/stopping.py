"""Ctrl-C and SIGTERM stop a command alike: by a KeyboardInterrupt, so that all is put away on the way.

Training finishes its step and saves a checkpoint first: for it there is `StopSignal`.
"""

import atexit
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn, Self

# Terminals and launchers may both send the first.
_SECOND_SIGNAL_SECONDS = 2.0
# What is put away when Python ends, by us or by libraries.
_LEAVING_SECONDS = 5.0
_UNWRITTEN = 120  # as Python has it where standard output cannot be written
# The signals that came while a process was being started.
_put_off: list[list[int]] = []


def _hears_signals() -> bool:
    """Whether this thread may set handlers, and is the one that they interrupt."""
    return threading.current_thread() is threading.main_thread()


def exit_code(error: KeyboardInterrupt) -> int:
    """What shells report for a process that the signal ended: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + (error.args[0] if error.args else signal.SIGINT)


class Stopped(KeyboardInterrupt):
    """A stage that was told to stop, and finished what it was doing; `message` is all there is to say."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(number)
        self.message = message

    def __str__(self) -> str:
        return self.message


class Stopping:
    """While entered, both signals raise KeyboardInterrupt; a second, well after the first, ends the process.

    Handlers that others have set, and signals that are ignored, stay as they are.
    """

    def __init__(self) -> None:
        self._since = 0.0
        self._taken: list[tuple[int, object]] = []

    def _stop(self, number: int, frame: object) -> None:
        if not self._since:
            self._since = time.monotonic()
            if not _put_off:
                raise KeyboardInterrupt(number)
            _put_off[-1].append(number)
        elif time.monotonic() - self._since > _SECOND_SIGNAL_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def __enter__(self) -> Self:
        usual = ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL))
        if _hears_signals():
            self._taken = [(n, handler) for n, handler in usual if signal.getsignal(n) == handler]
        for number, _ in self._taken:
            signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._taken:
            signal.signal(number, handler)  # type: ignore[arg-type]


class StopSignal:
    """Remembers, in the main thread, that SIGTERM or Ctrl-C came: training can stop between two steps.

    A second one, well after the first, stops at once, by a KeyboardInterrupt; a third ends the process.
    """

    def __init__(self) -> None:
        self.number = 0
        self._since = 0.0
        self._is_interrupted = False

    def _remember(self, number: int, frame: object) -> None:
        now = time.monotonic()
        if not self.number:
            self.number, self._since = number, now
        elif now - self._since > _SECOND_SIGNAL_SECONDS:
            if self._is_interrupted:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            self._is_interrupted, self._since = True, now
            raise KeyboardInterrupt(number)

    def __enter__(self) -> Self:
        numbers = (signal.SIGTERM, signal.SIGINT) if _hears_signals() else ()
        self._before = {n: signal.signal(n, self._remember) for n in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


@contextmanager
def starting_a_process() -> Iterator[None]:
    """Put a stop off to the end of the block, lest the new process be left with half of what it is told.

    That process does not hear Ctrl-C, which on a terminal reaches all, until it says so.
    """
    came: list[int] = []
    if _hears_signals():
        _put_off.append(came)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if _hears_signals():
            _put_off.pop()
    if came:
        raise KeyboardInterrupt(came[0])


def leave(code: int, *, within: float = _LEAVING_SECONDS) -> NoReturn:
    """End this process with an exit code, `within` so many seconds, whatever threads and libraries wait for.

    The interpreter is not torn down: native threads of libraries that are still at work would meet its ruins,
    and end the process by an abort (134).
    """
    last = threading.Timer(within, os._exit, [code])
    last.daemon = True
    with suppress(RuntimeError):  # no memory for a thread: there is nothing to wait for then
        last.start()
    # What an error still holds is put away before the handlers of exit run: a loader that is collected later
    # finds its processes' folder gone, and says so in a traceback.
    gc.collect()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):  # a full disk, or nobody reads
            code = code or _UNWRITTEN
    os._exit(code)
