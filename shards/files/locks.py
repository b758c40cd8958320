"""Locks between processes of a machine: whoever has one may die of anything, the system takes it back."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def locked(path: Path, *, waits: bool = True) -> Iterator[IO[bytes]]:
    """Hold the lock of the file `path`, made if need be, and open meanwhile to read and to append.

    Raises BlockingIOError where another process has it and this one does not wait.
    """
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        yield file
