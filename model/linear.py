"""Linear layers that are fast on a CPU: the same weights and results as torch's, another library underneath.

torch multiplies float32 matrices with MKL, which leaves a third of four cores unused; its convolutions go to
oneDNN, which does not (docs/benchmarks.md). A linear layer is a convolution of one pixel.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Below so many multiplications the setting up of a convolution costs more than it gains.
_LEAST_PRODUCTS = 2**26


def prefers_convolution(x: Tensor, weight: Tensor) -> bool:
    """Whether `linear` computes these as a convolution."""
    return (
        not torch.compiler.is_compiling()  # which sees to that itself, and cannot follow the questions below
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()
        and x.numel() * weight.shape[0] >= _LEAST_PRODUCTS
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`: (..., in) -> (..., out) with `weight` (out, in)."""
    if not prefers_convolution(x, weight):
        return F.linear(x, weight, bias)
    # Rows as the pixels of one image whose channels come last: the same memory, nothing is copied.
    pixels = x.reshape(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)
    out = F.conv2d(pixels, weight[:, :, None, None], bias)
    return out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)


class Linear(nn.Linear):
    """`torch.nn.Linear` that computes by `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def use_fast_linear(module: nn.Module) -> None:
    """Let every plain `torch.nn.Linear` in `module` compute by `linear`; names and parameters stay."""
    for part in module.modules():
        if type(part) is nn.Linear:
            part.__class__ = Linear
