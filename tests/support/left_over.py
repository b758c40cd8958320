"""Find what a command has left behind.

Processes, by a mark in their environment, and shared memory of nobody's.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

MARK = "CLIPVIP_TEST_MARK"
SHARED_MEMORY = Path("/dev/shm")


def read(path: str) -> bytes:
    """A file of /proc, or nothing where the process is gone."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def processes_of(mark: str) -> dict[int, bytes]:
    """The living processes that were started with this mark: id to command line."""
    wanted = f"{MARK}={mark}".encode()
    numbers = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    found = {
        n: read(f"/proc/{n}/cmdline") for n in numbers if wanted in read(f"/proc/{n}/environ").split(b"\0")
    }
    return {number: line for number, line in found.items() if line}  # a zombie has none


def loaders_of(mark: str) -> list[int]:
    """Its loading processes: forks of a fork server, which look as that does."""
    servers = {number for number, line in processes_of(mark).items() if b"forkserver" in line}
    return sorted(n for n in servers if parent_of(n) in servers)


def ranks_of(mark: str, launcher: int) -> list[int]:
    """Its training processes, where they are several."""
    found = processes_of(mark).items()
    return sorted(n for n, line in found if parent_of(n) == launcher and b"resource_tracker" not in line)


def parent_of(number: int) -> int:
    stat = read(f"/proc/{number}/stat").rpartition(b") ")[2].split()
    return int(stat[1]) if stat else 0


def shared_memory() -> set[str]:
    return set(os.listdir(SHARED_MEMORY))


def orphaned(names: set[str]) -> set[str]:
    """Which pieces of shared memory no living process has."""
    maps = b"".join(read(f"/proc/{name}/maps") for name in os.listdir("/proc") if name.isdigit())
    return {name for name in names & shared_memory() if f"{SHARED_MEMORY}/{name}".encode() not in maps}


def wait_until(holds: Callable[[], bool], seconds: float) -> bool:
    """Whether something comes to hold within some seconds."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
