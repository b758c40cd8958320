"""A limit on parts of a unit that a file may block, also inside of native code."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def time_limit(seconds: float) -> Iterator[Callable[[], None]]:
    """End this worker process by SIGALRM after so many seconds; what is yielded starts them anew.

    A file that crashes or blocks its readers so costs the process and not the stage: `run_units` tells of it.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def allow_more_time() -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds)

    try:
        allow_more_time()
        yield allow_more_time
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
