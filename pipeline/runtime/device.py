"""What a command computes on: the device that it names, and how many cores there are."""

import os
from typing import TYPE_CHECKING

from clipvip.pipeline.runtime.errors import UserError

if TYPE_CHECKING:
    import torch


def torch_device(choice: str) -> "torch.device":
    """The device that `--device` names; `auto` is a GPU where there is one.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    import torch

    has_gpu = torch.cuda.is_available()
    if choice == "cuda" and not has_gpu:
        raise UserError("--device cuda: this machine shows no GPU to torch; use --device cpu")
    return torch.device("cuda" if has_gpu and choice != "cpu" else "cpu")


def num_cores() -> int:
    """The cores that this process is allowed on, which a scheduler may have limited."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
