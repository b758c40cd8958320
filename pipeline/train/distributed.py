"""What talks to the process group: start it, gather, reduce, and do things together; see also ring.py.

Everything works the same for a single process, which starts no group at all.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.train.attempts import store_of_attempt
from clipvip.pipeline.train.order import share
from clipvip.pipeline.train.ring import Ring

# Saving a checkpoint or building an index on one process must not look like a hang to the others.
_GROUP_TIMEOUT = timedelta(minutes=30)

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """Which process this is: its rank among `world_size`, and the device that it computes on."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, total: int) -> tuple[int, int]:
        """This process's part [start, stop) of `total` rows; parts differ by one row at most."""
        return share(total, self.rank, self.world_size)


def launched_world_size() -> int | None:
    """How many processes a launcher such as torchrun started, or None where none did."""
    size = os.environ.get("WORLD_SIZE")
    return int(size) if size is not None and "RANK" in os.environ else None


@contextmanager
def shared_temporary_folder() -> Iterator[Path]:
    """A path for the processes of this run on this machine; the first of them removes it at the end."""
    run = str(os.getpid())
    if launched_world_size() is not None:
        run = f"{os.environ.get('TORCHELASTIC_RUN_ID', '')}-{os.environ['MASTER_PORT']}"
    folder = Path(tempfile.gettempdir(), f"clipvip-{os.getuid()}-{run}")
    try:
        yield folder
    finally:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def meeting_place() -> Iterator[dict[str, str]]:
    """While entered, processes of this machine that have these environment variables find each other."""
    store = dist.TCPStore(  # type: ignore[attr-defined]
        "localhost", 0, is_master=True, wait_for_workers=False
    )
    yield {
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # torch's name for a store that none of them has to open
    }


@contextmanager
def process_group(device: str) -> Iterator[Place]:
    """Join the group that the launcher describes; without a launcher this process is alone.

    `device` is "cpu" or "cuda": there each process takes the GPU of its local rank, or the only one it sees.
    A process of several that leaves by an error tells the others, which then leave too: see ring.py.

    Raises:
        UserError: this process sees some GPUs, and not that of its rank.
        PeerGone: another process failed.
    """
    chosen = torch.device("cuda", _gpu_number()) if device == "cuda" else torch.device("cpu")
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if launched_world_size() is None:
        yield Place(0, 1, chosen)
        return
    # gloo beside NCCL: the small exchanges of flags and skips need no GPU.
    store, attempt, rank, size = store_of_attempt(_GROUP_TIMEOUT)
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=_GROUP_TIMEOUT, store=store, rank=rank, world_size=size)
    place = Place(rank, size, chosen)
    with Ring(attempt) if place.world_size > 1 else nullcontext():
        yield place
    # Not after an error: it may wait for collectives of which the others are in the middle.
    dist.destroy_process_group()


def _gpu_number() -> int:
    """The GPU of this process; schedulers may show each process no other than its own."""
    local_rank, found = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local_rank < found or found == 1:
        return min(local_rank, found - 1)
    raise UserError(
        f"process {local_rank} of this machine (LOCAL_RANK) finds {found} GPUs; start one process per GPU"
    )


def gather_rows(rows: torch.Tensor, *, total: int, place: Place) -> torch.Tensor:
    """Join the rows (share, dim) of all processes, in order of rank, to (total, dim). Carries no gradient.

    It needs none: every process computes the loss of the whole batch from the joined rows, so its gradient
    for the process's own rows is exact; what remains to be summed is that of the weights (`GradientSums`).
    """
    if place.world_size == 1:
        return rows.detach()
    shares = [share(total, rank, place.world_size) for rank in range(place.world_size)]
    lengths = [stop - start for start, stop in shares]
    padded = rows.detach().new_zeros((lengths[0], *rows.shape[1:]))
    padded[: len(rows)] = rows.detach()
    parts = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(parts, padded)
    return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])


def begin_sum(values: torch.Tensor) -> Callable[[], object]:
    """Begin to replace `values` by their sum over all processes; what is returned waits for it.

    On a GPU what is computed next waits, and not the thread.
    """
    work = dist.all_reduce(values, async_op=True)
    assert work is not None
    return work.wait


def copy_from_first(module: torch.nn.Module, *, place: Place) -> None:
    """Give every process the first one's weights and buffers."""
    if place.world_size == 1:
        return
    for tensor in module.state_dict().values():
        dist.broadcast(tensor.data, src=0)


def largest(value: int, *, place: Place) -> int:
    """The largest of the processes' values, in all of them."""
    if place.world_size == 1:
        return value
    values = torch.tensor([value])
    dist.all_reduce(values, op=dist.ReduceOp.MAX)
    return int(values.item())


class LateLargest:
    """The largest of the processes' values, found while they go on, and read when they come by again."""

    def __init__(self, *, place: Place) -> None:
        self._is_alone = place.world_size == 1
        self._values = torch.zeros(1, dtype=torch.int64)
        self._work: dist.Work | None = None

    def begin(self, value: int) -> None:
        """Give this process's value; every process has to, as often."""
        self._values = torch.tensor([value])
        if not self._is_alone:
            self._work = dist.all_reduce(self._values, op=dist.ReduceOp.MAX, async_op=True)

    def read(self) -> int:
        """What came of the last `begin`, the same in every process; 0 before the first."""
        if self._work is not None:
            self._work.wait()
            self._work = None
        return int(self._values.item())


def gather_objects(value: Any, *, place: Place) -> list[Any]:
    """The values of all processes in order of rank, in every process."""
    if place.world_size == 1:
        return [value]
    values: list[Any] = [None] * place.world_size
    dist.all_gather_object(values, value)
    return values


def barrier(place: Place) -> None:
    """Wait until every process is here."""
    largest(0, place=place)


def together(action: Callable[[], T], *, place: Place) -> T:
    """Do something with files in every process, and wait for the others; returns what it gave in this one.

    An OSError that one of them met is raised in all.
    """
    error: OSError | None = None
    try:
        result = action()
    except OSError as caught:
        error = caught
    # What makes an equal error in another process.
    arguments = error and (
        (str(error),) if error.errno is None else (error.errno, error.strerror, error.filename)
    )
    told = [of_one for of_one in gather_objects(arguments, place=place) if of_one]
    if error is not None:
        raise error
    if told:
        raise OSError(*told[0])
    return result
