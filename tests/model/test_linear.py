"""The CPU's linear layer is torch's, computed otherwise."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clipvip.model.linear import Linear, linear, prefers_convolution, use_fast_linear


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 260, 512), (2, 3, 100, 512), (600, 512)])
def test_large_products_equal_torchs_with_their_gradients(shape: tuple[int, ...], bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=generator), torch.randn(700, 512, generator=generator) / 20]
    inputs += [torch.randn(700, generator=generator)] if bias else []
    assert prefers_convolution(inputs[0], inputs[1])
    found = []
    for function in (linear, F.linear):
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        out = function(*leaves)
        out.sin().sum().backward()
        found.append([out.detach(), *(leaf.grad for leaf in leaves)])
    for ours, torchs in zip(*found, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-4, atol=2e-4)


def test_inputs_that_are_not_contiguous() -> None:
    x = torch.randn(512, 300, generator=torch.Generator().manual_seed(0)).T
    weight = torch.randn(512, 512, generator=torch.Generator().manual_seed(1))
    assert prefers_convolution(x, weight)
    torch.testing.assert_close(linear(x, weight), F.linear(x, weight), rtol=1e-4, atol=2e-4)


def test_small_products_and_other_types_stay_with_torch() -> None:
    large, weight = torch.zeros(1000, 512), torch.zeros(512, 512)
    assert prefers_convolution(large, weight)
    assert not prefers_convolution(torch.zeros(4, 512), weight)
    assert not prefers_convolution(large.bfloat16(), weight.bfloat16())
    assert not prefers_convolution(torch.zeros(0, 512), weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert not prefers_convolution(large, weight)
        assert linear(large, weight).dtype == torch.bfloat16


def test_only_plain_linear_layers_change_and_keep_their_names() -> None:
    class Own(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), Own(4, 2))
    before = {name: id(parameter) for name, parameter in model.named_parameters()}
    use_fast_linear(model)
    assert [type(part) for part in model] == [Linear, nn.ReLU, Own]
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == before
