"""One small transformer layer, what it gives with its gradients, and whether two of those are the same."""

from typing import Any

import torch
from torch import Tensor
from transformers import CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from clipvip.model.layer import TransformerLayer, use_fast_layers

WIDTH = 32


def make_layers(*, activation: str = "quick_gelu", fast: bool = True) -> torch.nn.Module:
    """One layer of transformers, or ours with the same weights."""
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=64, num_attention_heads=4, hidden_act=activation
    )
    config._attn_implementation = "sdpa"
    layer = CLIPEncoderLayer(config)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    if fast:
        use_fast_layers(layer)
        assert type(layer) is TransformerLayer
    return layer.double()


def with_gradients(layer: torch.nn.Module, inputs: Tensor, **options: Any) -> dict[str, Tensor]:
    """The output, and the gradients of the input and of every parameter."""
    inputs = inputs.clone().requires_grad_()
    output = layer(inputs, **options)
    output.sin().sum().backward()
    gradients = {name: p.grad for name, p in layer.named_parameters()}
    return {"output": output.detach(), "inputs": inputs.grad, **gradients}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], *, atol: float = 1e-11) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name].cpu(), tensor.cpu(), rtol=1e-9, atol=atol, msg=lambda text, n=name: f"{n}: {text}"
        )
