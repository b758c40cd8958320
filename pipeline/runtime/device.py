"""What a command computes on: the device that it names, a GPU of its own for each worker, the cores."""

import os
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from clipvip.pipeline.runtime.errors import UserError
from clipvip.shards.files.claims import STATE_FOLDER
from clipvip.shards.files.copies import url_hash
from clipvip.shards.files.locks import locked
from clipvip.shards.files.stores import Location

if TYPE_CHECKING:
    import torch

CLAIM_SECONDS = 30.0
_held_locks = ExitStack()


def torch_device(choice: str) -> "torch.device":
    """The device that `--device` names; `auto` is a GPU where there is one.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    import torch

    has_gpu = torch.cuda.is_available()
    if choice == "cuda" and not has_gpu:
        raise UserError("--device cuda: torch finds no GPU on this machine; use --device cpu")
    return torch.device("cuda" if has_gpu and choice != "cpu" else "cpu")


def num_cores() -> int:
    """The cores that this process is allowed on, which a scheduler may have limited."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_of_cores(parts: int) -> int:
    """The cores of this process, divided by `parts`; one at least."""
    return max(1, num_cores() // parts)


def claim_gpu(out: Location, num_gpus: int) -> int:
    """The number of a GPU that no other worker of this run has; UserError if none is free in CLAIM_SECONDS.

    It is claimed by a lock rather than a counter: this is let go however the worker ends.
    """
    if isinstance(out, Path):
        folder = out / STATE_FOLDER
    else:  # GPUs are of this machine
        folder = Path(tempfile.gettempdir(), f"clipvip-gpus-{os.getuid()}-{url_hash(str(out))[:16]}")
        folder.mkdir(exist_ok=True)
    deadline = time.monotonic() + CLAIM_SECONDS
    while time.monotonic() < deadline:
        for number in range(num_gpus):
            with suppress(BlockingIOError):
                _held_locks.enter_context(locked(folder / f"gpu{number}.lock", waits=False))
                return number
        time.sleep(0.1)
    raise UserError(f"{out}: worker processes of an earlier run still use all GPUs; end them first")
