"""Which number format to compute in: bfloat16 where the GPU computes in it, else float16."""

from typing import Literal

import torch

from clipvip.model.variants import Precision


def choose_precision(
    asked: Precision | Literal["auto"], *, on_gpu: bool, has_bf16: bool
) -> tuple[Precision, str]:
    """The number format to train in, and a remark on it for the user where there is one.

    `auto` is fp32 on a CPU, and on a GPU bf16 or, without that, fp16. ValueError: bf16 on a GPU that has
    none.
    """
    if asked == "auto":
        if not on_gpu or has_bf16:
            return ("bf16" if on_gpu else "fp32"), ""
        return "fp16", "this GPU has no bf16; training in fp16 (optim.precision=fp32 is slower and exact)"
    if asked == "bf16" and on_gpu and not has_bf16:
        raise ValueError("optim.precision is bf16, which this GPU does not have; give fp16, fp32 or auto")
    return asked, ""


def has_native_bf16() -> bool:
    """Whether the GPU in use computes in bf16; torch's own answer counts GPUs that emulate it."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def half_dtype() -> torch.dtype:
    """bfloat16, or float16 on a GPU that does not compute in that; where no GPU is seen, bfloat16."""
    return torch.float16 if torch.cuda.is_available() and not has_native_bf16() else torch.bfloat16
