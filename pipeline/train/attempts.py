"""Which processes start together: those of one attempt, where a launcher starts all anew after a failure.

torchrun gives the processes of each attempt the store of the attempts before, in which these left their
addresses; what joined there would look for processes that are gone (seen with torch 2.13). How often it
started anew is not known alike on all machines. So the first process names the attempt, and tells it to
those that answer.
"""

import time
import uuid
from datetime import timedelta

from torch.distributed import PrefixStore, Store, rendezvous  # type: ignore[attr-defined]

_LOOK_SECONDS = 0.02


def store_of_attempt(timeout: timedelta) -> tuple[Store, str, int, int]:
    """A store for the processes of this attempt alone; its name, this one's rank, and how many there are.

    Raises:
        RuntimeError: they are not there in time.
    """
    store, rank, size = next(rendezvous("env://", timeout=timeout))
    name = join(store, rank, size, timeout=timeout)
    return PrefixStore(name, store), name, rank, size


def join(store: Store, rank: int, size: int, *, timeout: timedelta) -> str:
    """The name of the attempt that this process and `size` - 1 others begin."""
    mine = uuid.uuid4().hex
    store.set(f"clipvip/here/{rank}", mine)
    if rank != 0:
        told = f"clipvip/attempt/{rank}/{mine}"
        store.wait([told], timeout)
        name = store.get(told).decode()
        store.set(f"clipvip/joined/{name}/{rank}", "")
        return name
    deadline = time.monotonic() + timeout.total_seconds()
    missing = set(range(1, size))
    while missing:
        for other in sorted(missing):
            # Who is there may be of an earlier attempt: it does not answer, and another will take its place.
            if store.check([f"clipvip/here/{other}"]):
                there = store.get(f"clipvip/here/{other}").decode()
                store.set(f"clipvip/attempt/{other}/{there}", mine)
            if store.check([f"clipvip/joined/{mine}/{other}"]):
                missing.discard(other)
        if time.monotonic() > deadline:
            absent = ", ".join(map(str, sorted(missing)))
            raise RuntimeError(f"of {size} training processes these did not start in time: {absent}")
        time.sleep(_LOOK_SECONDS if missing else 0)
    return mine
