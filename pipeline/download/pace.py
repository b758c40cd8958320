"""A pace that all processes of a stage keep together: how often a site is asked, and when to leave it alone.

The state is a file under a lock, which the system takes back from a process however it dies.
"""

import random
import time
from pathlib import Path

from clipvip.shards.files.locks import locked

# A time further ahead than any pause is of another boot's clock.
_LONGEST_PAUSE_SECONDS = 3600.0


def await_turn(path: Path, *, every_seconds: float) -> None:
    """Wait for this process's turn: turns are `every_seconds` apart on average, over all processes."""
    step = every_seconds * random.uniform(0.5, 1.5)
    turn, now = _advance(path, at_least_seconds=0.0, step_seconds=step)
    while turn > now:
        time.sleep(turn - now)
        now = time.monotonic()


def hold_all(path: Path, seconds: float) -> None:
    """Let no process have its turn for `seconds` from now; those that have it keep it."""
    _advance(path, at_least_seconds=min(seconds, _LONGEST_PAUSE_SECONDS), step_seconds=0.0)


def _advance(path: Path, *, at_least_seconds: float, step_seconds: float) -> tuple[float, float]:
    """Move the time of the next turn; returns what it was, and the time now.

    At 100 s, with 103 in the file and steps of 1 s: it is 104 for whoever comes next, and 103 is this turn.
    """
    with locked(path) as file:
        file.seek(0)
        text = file.read()
        now = time.monotonic()
        turn = float(text) if text else now
        if turn > now + 2 * _LONGEST_PAUSE_SECONDS:
            turn = now
        turn = max(turn, now + at_least_seconds)
        file.seek(0)
        file.truncate()
        file.write(f"{turn + step_seconds:.3f}".encode())
    return turn, now
