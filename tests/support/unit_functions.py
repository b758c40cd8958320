"""Functions that tests run in worker processes, which import them by name."""

import os
import signal
import time


def square(unit: int) -> int:
    """The square; but 3 crashes, 5 hangs and 7 raises."""
    if unit == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if unit == 5:
        time.sleep(600)
    if unit == 7:
        raise KeyError("seven")
    return unit * unit
