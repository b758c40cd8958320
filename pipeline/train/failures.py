"""What is said when training cannot go on: weights that are no numbers, and too little memory."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from clipvip.media.errors import one_line
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.train.checkpoint import list_checkpoints
from clipvip.pipeline.train.recipe import Recipe


def has_finite_weights(model: torch.nn.Module) -> bool:
    """Whether all parameters are finite numbers; they are the same in every process."""
    weights = [parameter.detach() for parameter in model.parameters()]
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


@contextmanager
def naming_lack_of_memory(recipe: Recipe) -> Iterator[None]:
    """UserError with what to change, where memory does not suffice: a GPU's or the machine's."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        is_lack = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not is_lack and "can't allocate memory" not in str(error):
            raise
        raise UserError(
            f"out of memory ({one_line(error, most=200)}). A smaller run.chunk_size "
            f"(now {recipe.run.chunk_size or 'the whole batch'}), run.checkpoint_activations=true and, "
            "in validation, fewer evaluation.clips_at_once need less"
        ) from error
