"""Layers and the text tower compute what transformers' own compute, in fewer passes and without waiting."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModel

from clipvip.model.attention import proxy_guided_mask
from clipvip.model.layer import QuickGeluMLP
from clipvip.model.text import TextTransformer
from layers import WIDTH, assert_same, make_layers, with_gradients
from resources import DEVICES
from tiny_clip import tiny_text_config

PROXIES, FRAMES, PATCHES = 2, 3, 4
TOKENS = PROXIES + FRAMES * PATCHES
CAUSAL = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()
# What a layer is given, and the same as a mask of all tokens against all.
KINDS: dict[str, tuple[dict[str, Any], Tensor | None]] = {
    "all see all": ({}, None),
    "causal": ({"is_causal": True}, CAUSAL),
    "masked": ({"attention_mask": CAUSAL}, CAUSAL),
    "video": (
        {"num_proxies": PROXIES, "num_frames": FRAMES},
        proxy_guided_mask(PROXIES, FRAMES, PATCHES),
    ),
    "image": ({"num_proxies": PROXIES, "num_frames": 1}, None),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_is_that_of_transformers(kind: str, activation: str, device: str) -> None:
    options, mask = KINDS[kind]
    inputs = torch.randn(2, TOKENS, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = with_gradients(
        make_layers(activation=activation, fast=False),
        inputs,
        attention_mask=None if mask is None else mask[None, None],
    )
    on_device = {name: x.to(device) if isinstance(x, Tensor) else x for name, x in options.items()}
    layer = make_layers(activation=activation).to(device)
    assert_same(with_gradients(layer, inputs.to(device), **on_device), expected)


def test_the_first_token_alone_is_that_of_all() -> None:
    layer = make_layers()
    inputs = torch.randn(2, TOKENS, WIDTH, dtype=torch.float64)
    torch.testing.assert_close(layer.first_token(inputs), layer(inputs)[:, 0])


def test_factors_in_the_weights_are_factors_of_the_products() -> None:
    """Both ways of computing the MLP: the one for GPUs and the one for processors."""
    found = []
    for name in ("with_folded_factors", "on_processor"):
        mlp = make_layers().mlp
        assert type(mlp) is QuickGeluMLP
        mlp.forward = getattr(mlp, name)
        rows = torch.randn(5, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        found.append(with_gradients(mlp, rows))
    assert_same(*found)


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_compiles_to_one_graph(kind: str) -> None:
    options, _ = KINDS[kind]
    inputs = torch.randn(2, TOKENS, WIDTH, dtype=torch.float64)
    expected = with_gradients(make_layers(), inputs, **options)
    layer = make_layers()
    layer.compile(dynamic=False, fullgraph=True, backend="aot_eager")
    assert_same(with_gradients(layer, inputs, **options), expected)


class Casts(TorchDispatchMode):
    """The shapes of what is cast from float32 to bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and output.dtype == torch.bfloat16:
            self.shapes.append(tuple(output.shape))
        return output


def test_what_a_norm_gives_is_cast_once() -> None:
    """In bf16: for queries, keys and values together, and for the MLP. The tokens stay in float32."""
    layer = make_layers().float()
    inputs = torch.randn(2, TOKENS, WIDTH)
    with torch.autocast("cpu", torch.bfloat16), Casts() as casts:
        assert layer(inputs, num_proxies=PROXIES, num_frames=FRAMES).dtype == torch.float32
    of_tokens = [shape for shape in casts.shapes if shape[0] in (2, 2 * TOKENS)]
    assert of_tokens == [(2, TOKENS, WIDTH), (2 * TOKENS, WIDTH)]


# --- texts ---


@contextmanager
def text_towers(*, legacy: bool = False, dtype: torch.dtype = torch.float64) -> Iterator[Any]:
    settings = tiny_text_config() | ({"eos_token_id": 2} if legacy else {})
    torch.manual_seed(0)
    reference = CLIPTextModel(CLIPTextConfig(**settings)).to(dtype)
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours = TextTransformer(CLIPTextConfig(**settings)).to(dtype)
    ours.load_state_dict(reference.state_dict())
    yield ours, reference


def some_texts(*, pad: int, lengths: tuple[int, ...] = (3, 9, 16, 2)) -> tuple[Tensor, Tensor]:
    """Ids and mask (texts, 16): tokens, the end token, and padding."""
    end = tiny_text_config()["eos_token_id"]
    ids = torch.full((len(lengths), 16), pad)
    mask = torch.zeros_like(ids)
    generator = torch.Generator().manual_seed(2)
    for row, length in enumerate(lengths):
        ids[row, : length - 1] = torch.randint(3, end, (length - 1,), generator=generator)
        ids[row, length - 1] = end
        mask[row, :length] = 1
    return ids, mask


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("pad", [0, tiny_text_config()["eos_token_id"]])
@pytest.mark.parametrize("masked", [False, True])
def test_texts_are_those_of_transformers(masked: bool, pad: int, legacy: bool) -> None:
    """Also without the mask, as the padding is at the end."""
    ids, mask = some_texts(pad=pad)
    found = []
    with text_towers(legacy=legacy) as towers:
        for tower, given in zip(towers, (mask if masked else None, mask), strict=True):
            output = tower(input_ids=ids, attention_mask=given)
            output.pooler_output.sin().sum().backward()
            gradients = {name: p.grad for name, p in tower.named_parameters()}
            real = output.last_hidden_state[mask.bool()].detach()
            found.append({"feature": output.pooler_output.detach(), "tokens": real, **gradients})
    assert_same(*found)


def test_texts_in_one_pass_and_cut_are_texts_alone_and_padded() -> None:
    ids, _ = some_texts(pad=tiny_text_config()["eos_token_id"], lengths=(3, 9, 5, 2, 4, 7))
    with text_towers() as (tower, _):
        apart = [tower(part).pooler_output for part in (ids[:3], ids[3:])]
        torch.testing.assert_close(tower(ids).pooler_output, torch.cat(apart), rtol=0, atol=1e-13)
        cut = tower(ids[:, :9]).pooler_output
        torch.testing.assert_close(cut, torch.cat(apart), rtol=0, atol=1e-13)


def test_a_hole_in_a_text_is_not_seen() -> None:
    ids, mask = some_texts(pad=0)
    mask[1, 4] = 0
    other = ids.clone()
    other[1, 4] = 5 if ids[1, 4] != 5 else 6
    with text_towers() as (tower, reference):
        first, second = (tower(some, mask).pooler_output for some in (ids, other))
        assert torch.equal(first, second)
        torch.testing.assert_close(first, reference(ids, mask).pooler_output, rtol=0, atol=1e-13)


@pytest.mark.parametrize("masked", [False, True])
def test_nothing_waits_for_the_device(masked: bool) -> None:
    """Tensors without values cannot be looked into: whoever asks what is in one fails."""
    with torch.device("meta"):
        tower = TextTransformer(CLIPTextConfig(**tiny_text_config()))
        ids = torch.zeros(3, 16, dtype=torch.int64)
    output = tower(ids, torch.ones_like(ids) if masked else None).pooler_output
    output.sum().backward()
    assert all(parameter.grad is not None for parameter in tower.parameters())


def test_too_many_tokens() -> None:
    with text_towers() as (tower, _), pytest.raises(ValueError, match="25 tokens, but the text tower has 24"):
        tower(torch.zeros(1, 25, dtype=torch.int64))
