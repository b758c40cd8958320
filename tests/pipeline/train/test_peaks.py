"""To which FLOP/s the MFU is put: GPUs with like names are told apart, and what is not known is measured."""

import pytest
import torch

from clipvip.pipeline.train import peaks
from clipvip.pipeline.train.logs import Speed
from clipvip.pipeline.train.peaks import Peak, known_peak, peak_of


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA H200", 989.4),
        ("NVIDIA H800", 989.4),
        ("NVIDIA H20", 148),
        ("NVIDIA B200", 2250),
        ("NVIDIA GB200", 2500),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("A100-SXM4-40GB", 312),  # by older drivers
        ("NVIDIA A800 80GB PCIe", 312),
        ("NVIDIA A10", 125),
        ("NVIDIA A10G", 70),
        ("NVIDIA L4", 121),
        ("NVIDIA L40", 181.05),
        ("NVIDIA L40S", 362.05),
        ("NVIDIA GeForce RTX 3090", 71),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA GeForce RTX 5090", 209.5),
        ("NVIDIA RTX A6000", 154.8),
        ("Tesla V100-PCIE-16GB", 112),
        ("Tesla T4", 65),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA H1000", None),
        ("", None),
    ],
)
def test_names_are_told_apart(name: str, tflops: float | None) -> None:
    assert known_peak(name) == (None if tflops is None else pytest.approx(tflops * 1e12))


def test_an_unknown_gpu_is_measured_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    device = torch.device("cuda", 7)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA X1")
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 0)
    monkeypatch.setattr(peaks, "_product_rate", lambda device: 5e13)
    speed = Speed(device=device)
    for _ in range(2):
        speed.flops = 1e30
        assert speed.take()["mfu"] > 0
    line = "NVIDIA X1: its peak is not known; MFU is relative to 50 TFLOP/s, measured here with matrices"
    assert capsys.readouterr().err == f"{line} of 4096 x 4096\n"
    peak_of.cache_clear()

    def nothing_left(device: torch.device) -> float:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(peaks, "_product_rate", nothing_left)
    assert "mfu" not in Speed(device=device).take()
    peak_of.cache_clear()


def test_a_processor_has_none() -> None:
    assert peak_of(torch.device("cpu")) is None


@pytest.mark.gpu
def test_what_is_measured_is_less_than_the_makers() -> None:
    device = torch.device("cuda", 0)
    rate, known = peaks._product_rate(device), peak_of(device)
    assert known is not None and rate > 1e12
    if not known.remark:
        assert known == Peak(known.flops) and 0.2 * known.flops < rate < 1.05 * known.flops
