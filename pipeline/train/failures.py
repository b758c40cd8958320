"""What is said when training cannot go on: weights that are no numbers, and too little memory."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch._dynamo.exc import TorchDynamoException

from clipvip.media.errors import one_line
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.train.checkpoint import list_checkpoints
from clipvip.pipeline.train.recipe import Recipe


def has_finite_weights(model: torch.nn.Module) -> bool:
    """Whether all parameters are finite numbers; they are the same in every process."""
    # An empty tensor, the added proxies of a model with one proxy, has no largest number.
    weights = [parameter.detach() for parameter in model.parameters() if parameter.numel()]
    return math.isfinite(torch.nn.utils.get_total_norm(weights, norm_type=math.inf).item())


def diverged(out: Path, step: int, why: str, *, last_good: int) -> UserError:
    """What to say of a run that diverged at `step`; weights of steps up to `last_good` gave finite losses."""
    checkpoints = list_checkpoints(out)
    good = [folder for folder in checkpoints if int(folder.name.removeprefix("step-")) <= last_good]
    checkpoint = f"{good[-1]} is from before that" if good else "no checkpoint from before that is kept"
    return UserError(
        f"training diverged at step {step} ({why}); {checkpoint}. Try a lower optim.learning_rate or "
        "--set optim.precision=fp32, with another --out"
    )


@dataclass
class RowsAtOnce:
    """How many samples a process encodes at a time, 0 as long as that is not known.

    `chosen` is what run.chunk_size=auto chose: None for the whole batch.
    """

    number: int = 0
    chosen: int | None = None


@contextmanager
def naming_lack_of_memory(recipe: Recipe) -> Iterator[RowsAtOnce]:
    """UserError with what to change, where memory does not suffice: a GPU's or the machine's.

    Yields what the block may tell of the run.
    """
    rows = RowsAtOnce()
    try:
        yield rows
    except (MemoryError, RuntimeError) as error:
        is_lack = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not is_lack and "can't allocate memory" not in str(error):
            raise
        asked = recipe.run.chunk_size
        now = asked if isinstance(asked, int) else rows.chosen or "the whole batch"
        less = f"run.chunk_size={rows.number // 2}" if rows.number > 1 else "A smaller run.chunk_size"
        raise UserError(
            f"out of memory ({one_line(error, most=200)}). {less} (now {now}), "
            "run.checkpoint_activations=true and, in validation, fewer evaluation.clips_at_once need less"
        ) from error


@contextmanager
def naming_failed_compilation() -> Iterator[None]:
    """UserError with what to change, where torch.compile fails: of a mistake in our code, too."""
    try:
        yield
    except TorchDynamoException as error:
        raise UserError(
            f"torch.compile failed ({one_line(error, most=200)}); it needs a C compiler (C++ for a "
            "processor) and Python's headers: install them, or give --set run.compile=false, which is slower"
        ) from error
