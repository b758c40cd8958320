"""The count of kernels, bytes and FLOPs is exact where one can count by hand, and casts are a GPU's."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from cost_model.autocast import gpu_autocast
from cost_model.devices import DEVICES
from cost_model.fusion import Kernel, kernels
from cost_model.recorder import FLOPS, Recorder
from cost_model.report import totals
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

ROOT = Path(__file__).resolve().parents[2]
ROWS, WIDTH, OUT = 64, 32, 48
FLOAT = 4


def recorded(function: Callable[[Tensor], Tensor], *, backward: bool = False) -> Recorder:
    """What a function of a (ROWS, WIDTH) tensor starts."""
    recorder = Recorder()
    x = torch.empty(ROWS, WIDTH, device="meta", requires_grad=backward)
    with recorder.recording(nn.Identity(), []):
        y = function(x)
        if backward:
            recorder.phase = "backward"
            y.backward(torch.empty_like(y))
    return recorder


def test_a_linear_layer_is_exact() -> None:
    layer = nn.Linear(WIDTH, OUT, device="meta")
    recorder = Recorder()
    with recorder.recording(layer, []), torch.no_grad():
        layer(torch.empty(ROWS, WIDTH, device="meta"))
    (kernel,) = kernels(recorder.operations, scope="all")
    assert kernel.flops == 2 * ROWS * WIDTH * OUT
    assert kernel.num_bytes == FLOAT * (ROWS * WIDTH + WIDTH * OUT + OUT + ROWS * OUT)


@pytest.mark.parametrize("length", [1, 2, 7])
def test_a_chain_of_pointwise_operations_is_one_kernel(length: int) -> None:
    def chain(x: Tensor) -> Tensor:
        for _ in range(length):
            x = torch.sigmoid(x)
        return x

    operations = recorded(chain).operations
    eager, fused = kernels(operations, scope="eager"), kernels(operations, scope="all")
    size = FLOAT * ROWS * WIDTH
    assert [kernel.num_bytes for kernel in eager] == [2 * size] * length
    assert [kernel.num_bytes for kernel in fused] == [2 * size]
    assert len(kernels(operations, scope="compiled parts")) == length  # nothing is compiled


def sizes(function: Callable[[Tensor], Tensor]) -> list[float]:
    """Bytes of the fused kernels in units of the input's."""
    found = kernels(recorded(function).operations, scope="all")
    return [kernel.num_bytes / (FLOAT * ROWS * WIDTH) for kernel in found]


def test_what_is_read_twice_counts_once_and_what_is_used_outside_is_written() -> None:
    weight = torch.empty(WIDTH, WIDTH, device="meta")
    # Both factors come from one input.
    assert sizes(lambda x: x.sin() * x.cos()) == [2]
    # x is read, its sine goes to the product and to the sum after it.
    before, product, after = sizes(lambda x: (s := x.sin()) + s @ weight)
    assert (before, product, after) == (2, 2.5, 3)
    # A softmax is a pass; so is what is made of it.
    assert sizes(lambda x: (2 * x).softmax(-1) + 1) == [2]
    # Constants are computed where they are needed.
    assert sizes(lambda x: x * torch.full_like(x, 2)) == [2]
    # The halves of a row are two pieces, the same half twice is one.
    assert sizes(lambda x: x[:, :16] * x[:, 16:]) == [1.5]
    assert sizes(lambda x: torch.cat([half := x[:, :16], half]) + half.repeat(2, 1)) == [1.5]


def test_a_sum_over_rows_is_not_read_in_its_own_kernel() -> None:
    found = kernels(recorded(lambda x: (y := x.sin()) - y.mean(0)).operations, scope="all")
    assert [[operation.name for operation in kernel.operations] for kernel in found] == [
        ["sin", "mean"],
        ["sub"],
    ]


def test_the_backward_pass_and_what_is_kept_for_it() -> None:
    recorder = recorded(lambda x: x.sin().exp(), backward=True)
    size = FLOAT * ROWS * WIDTH
    assert recorder.saved_bytes == 2 * size  # the sine's argument and the exponential's result
    forward, backward = kernels(recorder.operations, scope="all")
    assert (forward.phase, backward.phase) == ("forward", "backward")
    assert forward.num_bytes == 2 * size
    assert backward.num_bytes == 4 * size  # gradient, argument and result, and the new gradient


def test_parts_that_are_compiled_are_so_each_way() -> None:
    class Part(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sin().exp()

    model = nn.Sequential(Part(), Part())
    recorder = Recorder()
    x = torch.empty(ROWS, WIDTH, device="meta", requires_grad=True)
    with recorder.recording(model, list(model)):
        y = model(x * 2)
        recorder.phase = "backward"
        y.backward(torch.empty_like(y))
    names = [
        [operation.name for operation in kernel.operations]
        for kernel in kernels(recorder.operations, scope="compiled parts")
    ]
    assert names[:3] == [["mul"], ["sin", "exp"], ["sin", "exp"]]
    assert len(names) == 6 and len(kernels(recorder.operations, scope="all")) == 2


def test_the_time_is_the_longest_of_three() -> None:
    device = DEVICES["H100"]
    found = totals(
        [Kernel([], 0, 0), Kernel([], 3_000_000_000, 0), Kernel([], 0, 750_000_000_000)],
        device,
        useful_flops=device.peak_flops / 1000,
    )
    assert found.milliseconds == pytest.approx(0.003 + 1 + 1)
    assert found.mfu_percent == pytest.approx(100 / 2.003)


def test_operations_of_our_own_are_counted() -> None:
    @torch.library.custom_op("cost_model_test::double", mutates_args=())
    def double(x: Tensor) -> Tensor:
        return 2 * x

    double.register_fake(torch.empty_like)
    FLOPS["cost_model_test::double"] = lambda x, *, out_val: 5 * x.numel()
    (kernel,) = kernels(recorded(lambda x: double(x)).operations, scope="all")
    assert (kernel.flops, kernel.num_bytes) == (5 * ROWS * WIDTH, 2 * FLOAT * ROWS * WIDTH)


CASTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "linear": lambda low, high: F.linear(high, torch.empty(8, 16, device=high.device)),
    "matmul": lambda low, high: high @ torch.empty(16, 8, device=high.device),
    "addmm": lambda low, high: torch.addmm(high, high, torch.empty(16, 16, device=high.device), beta=2),
    "layer_norm": lambda low, high: F.layer_norm(low, (16,)),
    "normalize": lambda low, high: F.normalize(low, dim=-1),
    "softmax": lambda low, high: low.softmax(-1),
    "sum": lambda low, high: low.sum(-1),
    "exp": lambda low, high: low.exp(),
    "mean": lambda low, high: low.mean(-1),
    "silu": lambda low, high: F.silu(low),
    "residual": lambda low, high: high + low,
    "cross_entropy": lambda low, high: F.cross_entropy(low, high.argmax(1)),
    "multi_head": lambda low, high: F.layer_norm(low.view(1, 8, 16) @ low.view(1, 8, 16).mT, (8,)),
    "native_layer_norm": lambda low, high: torch.native_layer_norm(low, (16,), None, None, 1e-5)[0],
}  # fmt: skip


@pytest.mark.parametrize("name", list(CASTS))
def test_casts_are_those_of_torch_on_a_gpu(name: str) -> None:
    """Beside torch's own autocast, on tensors that pretend to be on a GPU."""

    def outcome(device: str) -> torch.dtype:
        low = torch.empty(8, 16, device=device, dtype=torch.bfloat16)
        return CASTS[name](low, torch.empty(8, 16, device=device)).dtype

    with torch.no_grad():
        with gpu_autocast():
            found = outcome("meta")
        was_on, was = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        with FakeTensorMode():
            torch.set_autocast_enabled("cuda", True)
            torch.set_autocast_dtype("cuda", torch.bfloat16)
            try:
                expected = outcome("cuda")
            finally:
                torch.set_autocast_enabled("cuda", was_on)
                torch.set_autocast_dtype("cuda", was)
    assert found == expected


def test_blocks_without_autocast_and_the_cast_weights() -> None:
    layer = nn.Linear(WIDTH, OUT, device="meta")
    recorder = Recorder()
    x = torch.empty(ROWS, WIDTH, device="meta")
    with recorder.recording(layer, []), gpu_autocast():
        assert torch.is_autocast_enabled("meta") and torch.get_autocast_dtype("meta") == torch.bfloat16
        assert layer(x).dtype == layer(x).dtype == torch.bfloat16
        with torch.autocast("meta", enabled=False):
            assert layer(x).dtype == torch.float32 and not torch.is_autocast_enabled("meta")
    names = [operation.name for operation in recorder.operations]
    # The input twice, weight and bias once.
    assert names.count("_to_copy") == 4 and names.count("addmm") == 3
    assert layer(x).dtype == torch.float32


@pytest.mark.slow
def test_the_command_compares_with_another_checkout() -> None:
    step = ["step", "--batch", "2", "--frames", "2", "--texts", "1", "--tokens", "8", "--no-frame"]
    script = str(ROOT / "benchmarks" / "gpu_cost_model.py")

    def told(*more: str) -> str:
        done = subprocess.run(
            [sys.executable, script, *step, *more], capture_output=True, text=True, check=True
        )
        return done.stdout

    found = json.loads(told("--json"))
    assert found["eager"]["kernels"] > found["compiled parts"]["kernels"] > found["all"]["kernels"]
    assert found["eager"]["teraflops"] == found["all"]["teraflops"]
    lines = told("--old", str(ROOT), "--top", "1").splitlines()
    assert [line for line in lines if "ratio" in line] == [
        "  ratio: kernels 1.00, bytes 1.00, time 1.00, kept 1.00"
    ] * 3
