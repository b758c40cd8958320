"""Locks between processes of a machine: whoever has one may die of anything, the system takes it back."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def locked(path: Path, *, waits: bool = True) -> Iterator[IO[bytes]]:
    """Hold the lock of the file `path`, which is made if need be, and is open to read and to append
    meanwhile.

    Raises:
        BlockingIOError: another process has it; only where this one does not wait for it.
    """
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        yield file
