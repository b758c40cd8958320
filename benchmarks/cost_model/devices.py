"""Rates that a model of the time needs, by name: reached ones rather than those of the data sheet."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """A GPU: FLOP/s of large bf16 products and of attention, bytes/s of memory, seconds to start a kernel.

    `peak_flops` is the data sheet's, to which the MFU is put.
    """

    peak_flops: float
    product_flops: float
    attention_flops: float
    bandwidth: float
    launch_seconds: float = 3e-6


# Of the H100 the products and copies measured (docs/benchmarks.md), rounded; of the others the same parts of
# the data sheets' figures.
DEVICES = {
    "H100": Device(989e12, 750e12, 400e12, 3.0e12),
    "H200": Device(989e12, 750e12, 400e12, 4.2e12),
    "A100": Device(312e12, 250e12, 180e12, 1.8e12),
    "B200": Device(2250e12, 1650e12, 1100e12, 7.0e12),
}
