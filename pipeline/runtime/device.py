"""Which processor a command computes on."""

import torch

from clipvip.pipeline.runtime.errors import UserError


def torch_device(choice: str) -> torch.device:
    """The device that `--device` names; `auto` is a GPU where there is one.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    has_gpu = torch.cuda.is_available()
    if choice == "cuda" and not has_gpu:
        raise UserError("--device cuda: this machine shows no GPU to torch; use --device cpu")
    return torch.device("cuda" if has_gpu and choice != "cpu" else "cpu")
