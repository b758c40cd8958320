"""What is trained, what decays, and the learning rate at each step; by default as in the reference."""

import math
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal

from torch import nn

# What the reference exempts from weight decay. CLIP calls its norms layer_norm1, pre_layrnorm and so on, so
# that the reference's rule for LayerNorm weights never matches: they decay, and here too.
_NOT_DECAYED = ("bias", "LayerNorm.weight", "logit_scale")

# Where the schedule gives zero or less, the reference uses this.
_LEARNING_RATE_FLOOR = 1e-8

# The parts of CLIP's towers below their first layer, and those within the layers.
_BELOW_LAYERS = re.compile(r"(text_model|vision_model)\.(embeddings|pre_layrnorm)\.")
_IN_LAYER = re.compile(r"(text_model|vision_model)\.encoder\.layers\.(\d+)\.")

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


def rate_factors(
    model: nn.Module, *, multipliers: Mapping[str, float], layer_decay: float = 1.0
) -> dict[str, float]:
    """What the learning rate of each parameter is multiplied by, by its name; 0: it is not trained.

    Args:
        multipliers: a factor for all parameters that a pattern matches, such as `vision_model.*` (`*`, `?`
            and `[...]` as in a shell, `*` over dots too). The last pattern that matches counts.
        layer_decay: in each tower, a layer has this times the rate of the one above it; the projections, the
            last norms and what is over the towers have the whole rate, the embeddings the lowest
            (https://arxiv.org/abs/2106.08254). Multiplied with the former.

    Raises:
        ValueError: a pattern matches no parameter, or nothing is left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in multipliers:
        if not any(fnmatchcase(name, pattern) for name in names):
            examples = f"{names[0]} or {names[-1]}"
            raise ValueError(f"{pattern!r} matches no parameter; names are such as {examples}")
    factors = {name: layer_decay ** _below_the_head(name, names) for name in names}
    for name in names:
        matching = [factor for pattern, factor in multipliers.items() if fnmatchcase(name, pattern)]
        factors[name] *= matching[-1] if matching else 1.0
    if not any(factors.values()):
        raise ValueError("all parameters have the factor 0; leave something to train")
    return factors


def _below_the_head(name: str, names: list[str]) -> int:
    """How far under its tower's projection a parameter is: of 12 layers the last 1, the embeddings 13."""
    found = _IN_LAYER.match(name) or _BELOW_LAYERS.match(name)
    if found is None:
        return 0
    layers = {int(m[2]) for other in names if (m := _IN_LAYER.match(other)) and m[1] == found[1]}
    depth = int(found[2]) + 1 if found.re is _IN_LAYER else 0
    return len(layers) + 1 - depth


def freeze(model: nn.Module, factors: Mapping[str, float]) -> None:
    """Take parameters with the factor 0 out of training: they get no gradient and no optimizer state."""
    for name, parameter in model.named_parameters():
        if factors[name] == 0:
            parameter.requires_grad_(False)


def parameter_groups(
    model: nn.Module, *, weight_decay: float, factors: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """The optimizer's groups, for each factor of the learning rate decayed and not, in the model's order.

    `rate_factor` of a group is what the rate of a step is to be multiplied by for it, by `factors` (else 1).
    """
    factor_of = factors or {}
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    return [
        {
            "params": [
                p for name, p in trained if factor_of.get(name, 1.0) == factor and is_decayed(name) == decays
            ],
            "weight_decay": weight_decay if decays else 0.0,
            "rate_factor": factor,
        }
        for factor in dict.fromkeys(factor_of.get(name, 1.0) for name, _ in trained)
        for decays in (True, False)
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
