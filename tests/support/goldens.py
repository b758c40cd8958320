"""Golden tensors of the published networks: read them, and build our networks on their weights."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from clipvip.model import ClipVip, ClipVipConfig

GOLDENS = Path(__file__).resolve().parents[1] / "goldens"
PREFIX = "clipmodel."


@cache
def tensors(name: str) -> dict[str, Tensor]:
    """The tensors of goldens/NAME.safetensors."""
    return load_file(GOLDENS / f"{name}.safetensors")


@cache
def manifest(name: str) -> Any:
    return json.loads((GOLDENS / f"{name}.json").read_text())


def tiny_config(name: str, *, encoder: str) -> ClipVipConfig:
    """The configuration of `vip_tiny` or `meanpool_tiny` as its manifest states it."""
    sizes = manifest(name)["config"]
    return ClipVipConfig(
        text_config={
            "hidden_size": sizes["text_hidden"],
            "num_hidden_layers": sizes["text_layers"],
            "num_attention_heads": sizes["text_heads"],
            "intermediate_size": sizes["text_mlp"],
            "vocab_size": sizes["vocab"],
            "max_position_embeddings": sizes["max_pos"],
            "bos_token_id": 0,
            "eos_token_id": 2,
        },
        vision_config={
            "hidden_size": sizes["hidden"],
            "num_hidden_layers": sizes["layers"],
            "num_attention_heads": sizes["heads"],
            "intermediate_size": sizes["mlp"],
            "patch_size": sizes["patch"],
            "image_size": sizes["image"],
        },
        projection_dim=sizes["projection_dim"],
        encoder=encoder,
        num_proxies=1 + sizes["add_cls_num"],
        temporal_size=sizes["temporal_size"],
    )


def tiny_model(name: str, *, encoder: str) -> ClipVip:
    return ClipVip.from_released(tensors(f"{name}.weights"), tiny_config(name, encoder=encoder))


def full_config(size: str, *, encoder: str = "vip") -> ClipVipConfig:
    """The configuration of CLIP-ViP `B/32` or `B/16`: CLIP's defaults and the patch size."""
    return ClipVipConfig(vision_config={"patch_size": int(size.split("/")[1])}, encoder=encoder)


def largest_difference(value: Tensor, expected: Tensor) -> float:
    assert value.shape == expected.shape
    return (value.detach().double() - expected.double()).abs().max().item()


def assert_close(value: Tensor, expected: Tensor, *, atol: float = 0.0, rtol: float = 0.0) -> None:
    torch.testing.assert_close(value.detach(), expected.to(value.dtype), atol=atol, rtol=rtol)
