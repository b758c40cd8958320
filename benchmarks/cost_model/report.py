"""Sums over kernels, the time that they are expected to take, and how that is told."""

from collections import defaultdict
from dataclasses import dataclass

from cost_model.devices import Device
from cost_model.fusion import Kernel


@dataclass(frozen=True)
class Totals:
    """A workload's kernels, bytes moved and FLOPs; seconds by the model; MFU of the useful FLOPs."""

    kernels: int
    gigabytes: float
    teraflops: float
    milliseconds: float
    mfu_percent: float | None


def seconds(kernel: Kernel, device: Device) -> float:
    """The longest of its products, its memory traffic and its start."""
    rate = device.attention_flops if kernel.is_attention else device.product_flops
    return max(kernel.flops / rate, kernel.num_bytes / device.bandwidth, device.launch_seconds)


def totals(kernels: list[Kernel], device: Device, *, useful_flops: float | None = None) -> Totals:
    """The sums; `useful_flops` as the project's formula gives them, for the MFU."""
    time = sum(seconds(kernel, device) for kernel in kernels)
    mfu = None if useful_flops is None else 100 * useful_flops / time / device.peak_flops
    return Totals(
        kernels=len(kernels),
        gigabytes=sum(kernel.num_bytes for kernel in kernels) / 1e9,
        teraflops=sum(kernel.flops for kernel in kernels) / 1e12,
        milliseconds=1000 * time,
        mfu_percent=mfu,
    )


def most_costly(kernels: list[Kernel], device: Device, *, most: int) -> list[str]:
    """A line for each of the kinds of kernels that take longest."""
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    moved: dict[tuple[str, str], int] = defaultdict(int)
    for kernel in kernels:
        times[kernel.phase, kernel.name].append(seconds(kernel, device))
        moved[kernel.phase, kernel.name] += kernel.num_bytes
    kinds = sorted(times, key=lambda kind: -sum(times[kind]))[:most]
    return [
        f"  {phase:8} {name:45} {len(times[phase, name]):5} x {moved[phase, name] / 1e9:8.2f} GB "
        f"{1000 * sum(times[phase, name]):8.2f} ms"
        for phase, name in kinds
    ]
