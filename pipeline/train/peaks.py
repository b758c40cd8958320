"""The FLOP/s that a GPU has at most, to which the MFU is put: by its name, or else measured."""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch

from clipvip.model.precision import half_dtype

# TFLOP/s of dense products in bf16 with sums in float32 (V100, T4: fp16, they have no bf16), by the name that
# `torch.cuda.get_device_name` gives, without "NVIDIA". Sources: NVIDIA's data sheets of each, halved where
# they count sparsity (H100, H200, H20, L4, L40, L40S, A10, A40, RTX A6000, RTX 6000 Ada, HGX B200 and
# GB200 NVL72, GB300 NVL72), and the architecture papers of GA102, AD102 and Blackwell RTX for GeForce, whose
# rate with sums in float32 is half of that in fp16; AMD's data sheets. Slices of a GPU (MIG) have names of
# their own and are measured.
_TFLOPS: dict[str, float] = {
    "GB300": 2500,
    "GB200": 2500,
    "B300 SXM6 AC": 2250,
    "B200": 2250,
    "GH200 480GB": 989.4,
    "GH200 120GB": 989.4,
    "GH200 144G HBM3e": 989.4,
    "H200": 989.4,
    "H200 NVL": 835.5,
    "H100 80GB HBM3": 989.4,
    "H100 SXM5 80GB": 989.4,
    "H100 NVL": 835.5,
    "H100 PCIe": 756.5,
    "H800": 989.4,
    "H800 PCIe": 756.5,
    "H20": 148,
    "H20-3e": 148,
    **dict.fromkeys(
        (
            *("A100-SXM4-40GB", "A100-SXM4-80GB", "A100-SXM-80GB", "A100-PCIE-40GB", "A100-PCIE-80GB"),
            *("A100 80GB PCIe", "A800-SXM4-40GB", "A800-SXM4-80GB", "A800 80GB PCIe", "A800-PCIE-80GB"),
            "A800 40GB Active",
        ),
        312.0,
    ),
    "A30": 165,
    "A10": 125,
    "A10G": 70,
    "A40": 149.7,
    "RTX A6000": 154.8,
    "RTX A5000": 111.1,
    "RTX 6000 Ada Generation": 364.2,
    "L40S": 362.05,
    "L40": 181.05,
    "L20": 119.5,
    "L4": 121,
    "GeForce RTX 5090": 209.5,
    "GeForce RTX 5080": 112.6,
    "GeForce RTX 4090": 165.2,
    "GeForce RTX 4080": 97.5,
    "GeForce RTX 3090 Ti": 80,
    "GeForce RTX 3090": 71,
    "Tesla V100-SXM2-16GB": 125,
    "Tesla V100-SXM2-32GB": 125,
    "Tesla V100-SXM3-32GB": 125,
    "Tesla V100-PCIE-16GB": 112,
    "Tesla V100-PCIE-32GB": 112,
    "Tesla V100S-PCIE-32GB": 130,
    "Tesla T4": 65,
    "AMD Instinct MI300X": 1307.4,
}
_SIDE = 4096
_TIMES = 10


@dataclass(frozen=True)
class Peak:
    """FLOP/s; `remark` says where they are not the maker's."""

    flops: float
    remark: str = ""


def known_peak(name: str) -> float | None:
    """FLOP/s of the device that torch calls `name`, or None."""
    tflops = _TFLOPS.get(name.removeprefix("NVIDIA ").strip())
    return None if tflops is None else tflops * 1e12


@cache
def peak_of(device: torch.device) -> Peak | None:
    """The peak of a GPU; None on a processor, or where there is no memory left to measure it."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    known = known_peak(name)
    if known is not None:
        return Peak(known)
    try:
        measured = _product_rate(device)
    except torch.OutOfMemoryError:
        return None
    return Peak(
        measured,
        f"{name}: its peak is not known; MFU is relative to {measured / 1e12:.0f} TFLOP/s, measured here "
        f"with matrices of {_SIDE} x {_SIDE}",
    )


def _product_rate(device: torch.device) -> float:
    """FLOP/s of the fastest of a few square products."""
    x = torch.ones(_SIDE, _SIDE, device=device, dtype=half_dtype())
    out = torch.empty_like(x)
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(_TIMES + 1)]
    torch.mm(x, x, out=out)  # the first one chooses the kernel
    for mark in marks[:-1]:
        mark.record()
        torch.mm(x, x, out=out)
    marks[-1].record()
    torch.cuda.synchronize(device)
    spans = [before.elapsed_time(after) for before, after in pairwise(marks)]
    return 2 * _SIDE**3 / (min(spans) / 1000)
