"""Proxy-guided attention with all frames in one kernel, as on a GPU, is attention under the mask of Eq. 2."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clipvip.model.attention import attend, by_frame, proxy_guided_mask
from clipvip.model.frame_attention import frame_attention, has_kernel
from layers import assert_same, make_layers, with_gradients

Layout = dict[str, int]


def some_inputs(layout: Layout, *, patches: int, batch: int, heads: int, width: int) -> list[Tensor]:
    """Tokens, and the weights and biases of queries, keys and values and of what follows attention."""
    torch.manual_seed(patches)
    full = heads * width
    tokens = layout["num_proxies"] + layout["num_frames"] * patches
    shapes = [(batch, tokens, full), (3 * full, full), (3 * full,), (full, full), (full,)]
    return [torch.randn(shape, dtype=torch.float64).mul_(0.7) for shape in shapes]


def at_once(inputs: list[Tensor], layout: Layout, heads: int) -> Tensor:
    hidden, weight, bias, *out = inputs
    qkv = F.linear(by_frame(hidden, **layout), weight, bias).unflatten(-1, (3, heads, -1))
    return frame_attention(qkv, *out, **layout, scale=0.3)


def under_a_mask(inputs: list[Tensor], layout: Layout, heads: int) -> Tensor:
    hidden, weight, bias, *out = inputs
    frames, proxies = layout["num_frames"], layout["num_proxies"]
    mask = proxy_guided_mask(proxies, frames, (hidden.shape[1] - proxies) // frames).to(hidden.device)
    qkv = F.linear(hidden, weight, bias).unflatten(-1, (3, heads, -1))
    return F.linear(attend(*qkv.unbind(2), mask=mask, scale=0.3).flatten(2), *out)


def found_by(way: Any, inputs: list[Tensor], layout: Layout, heads: int) -> dict[str, Tensor]:
    """The output, and the gradients of all inputs."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    output = way(leaves, layout, heads)
    output.sin().sum().backward()
    names = ("hidden", "weight", "bias", "out weight", "out bias")
    gradients = {name: x.grad.double() for name, x in zip(names, leaves, strict=True)}
    return {"output": output.detach().double(), **gradients}


@settings(max_examples=60, deadline=None)
@given(
    num_proxies=st.integers(1, 5),
    num_frames=st.integers(2, 6),
    patches=st.integers(1, 9),
    batch=st.integers(1, 3),
    heads=st.integers(1, 3),
    width=st.sampled_from([1, 3, 8]),
)
def test_equals_masked_dense_attention(
    num_proxies: int, num_frames: int, patches: int, batch: int, heads: int, width: int
) -> None:
    layout = {"num_proxies": num_proxies, "num_frames": num_frames}
    inputs = some_inputs(layout, patches=patches, batch=batch, heads=heads, width=width)
    expected = found_by(under_a_mask, inputs, layout, heads)
    assert_same(found_by(at_once, inputs, layout, heads), expected, atol=1e-9)


def test_a_proxy_that_sees_almost_only_one_frame() -> None:
    """Logits of some hundreds: shares of 0 and 1, nothing overflows."""
    layout = {"num_proxies": 2, "num_frames": 3}
    inputs = some_inputs(layout, patches=4, batch=2, heads=2, width=8)
    inputs[1] *= 8
    expected = found_by(under_a_mask, inputs, layout, 2)
    assert_same(found_by(at_once, inputs, layout, 2), expected, atol=1e-8)


def test_its_gradient_is_that_of_its_differences() -> None:
    layout = {"num_proxies": 2, "num_frames": 3}
    qkv = torch.randn(6, 5, 3, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    inputs = [qkv, *some_inputs(layout, patches=3, batch=2, heads=2, width=4)[3:]]
    leaves = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(lambda *given: frame_attention(*given, **layout, scale=0.5), leaves)
    copied = torch.randn(2, 11, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: by_frame(x, **layout), [copied])


@pytest.mark.parametrize("compiled", [False, True])
def test_a_layer_computes_the_same_either_way(compiled: bool) -> None:
    layout = {"num_proxies": 3, "num_frames": 4}
    inputs = torch.randn(2, 3 + 4 * 5, 32, dtype=torch.float64)
    expected = with_gradients(make_layers(), inputs, **layout)
    layer = make_layers()
    layer.frame_kernel_on = ("cpu",)
    if compiled:
        layer.compile(dynamic=False, fullgraph=True, backend="aot_eager")
    assert_same(with_gradients(layer, inputs, **layout), expected)


def test_nothing_waits_for_the_device() -> None:
    """Tensors without values cannot be looked into; what they go through is what a GPU gets."""
    with torch.device("meta"):
        layer = make_layers().float()
        hidden = torch.empty(2, 2 + 3 * 4, 32, requires_grad=True)
    assert has_kernel(hidden, 8) and not has_kernel(hidden, 9)
    layer(hidden, num_proxies=2, num_frames=3).sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


@pytest.mark.gpu
@pytest.mark.parametrize("patches", [49, 196, 7])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-4), (torch.bfloat16, 3e-2)])
def test_the_kernel_of_a_gpu(dtype: torch.dtype, error: float, patches: int) -> None:
    """Beside a processor's in float64."""
    layout = {"num_proxies": 4, "num_frames": 3}
    inputs = some_inputs(layout, patches=patches, batch=2, heads=2, width=64)
    inputs[1:] = [x / 8 for x in inputs[1:]]
    expected = found_by(at_once, inputs, layout, 2)
    found = found_by(at_once, [x.to("cuda", dtype) for x in inputs], layout, 2)
    for name, tensor in expected.items():
        assert (found[name].cpu() - tensor).norm() < error * tensor.norm(), name
