"""Which parameters decay, and the learning rate at each step, as in the reference. Pure functions."""

import math
from typing import Any, Literal

from torch import nn

# What the reference exempts from weight decay. CLIP calls its norms layer_norm1, pre_layrnorm and so on, so
# that the reference's rule for LayerNorm weights never matches: they decay, and here too.
_NOT_DECAYED = ("bias", "LayerNorm.weight", "logit_scale")

# Where the schedule gives zero or less, the reference uses this.
_LEARNING_RATE_FLOOR = 1e-8

Decay = Literal["cosine", "linear", "constant"]


def is_decayed(name: str) -> bool:
    """Whether the parameter `name` has weight decay."""
    return not any(part in name for part in _NOT_DECAYED)


def freeze_key_biases(model: nn.Module) -> None:
    """Take the biases of the attentions' keys out of training.

    They add the same to all logits of a query, which softmax does not see: their gradient is rounding alone,
    which Adam would scale up to steps of full size, other ones on other numbers of processes.
    """
    for name, parameter in model.named_parameters():
        if name.endswith("k_proj.bias"):
            parameter.requires_grad_(False)


def parameter_groups(model: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """The optimizer's two groups, decayed and not, in the model's order."""
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    return [
        {"params": [p for name, p in trained if is_decayed(name)], "weight_decay": weight_decay},
        {"params": [p for name, p in trained if not is_decayed(name)], "weight_decay": 0.0},
    ]


def learning_rate(
    base: float, step: int, num_steps: int, *, warmup_fraction: float = 0.01, decay: Decay = "cosine"
) -> float:
    """The rate of update number `step`, counted from 1 as the reference does.

    Linear from 0 to `base` over the first `int(warmup_fraction * num_steps)` steps, then cosine or linear to
    0 at `num_steps`, or constant. ValueError: `num_steps` is not positive.
    """
    if num_steps <= 0:
        raise ValueError(f"{num_steps = } must be positive")
    warmup_steps = int(warmup_fraction * num_steps)
    if step < warmup_steps:
        factor = step / warmup_steps
    elif decay == "constant" or warmup_steps == num_steps:
        factor = 1.0
    else:
        progress = (step - warmup_steps) / (num_steps - warmup_steps)
        factor = 0.5 * (1.0 + math.cos(math.pi * progress)) if decay == "cosine" else 1.0 - progress
    rate = base * factor
    return rate if rate > 0 else _LEARNING_RATE_FLOOR
