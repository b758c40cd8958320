"""A CLIP of a few thousand weights with a tokenizer that takes any text, for tests of what uses one."""

from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from clipvip.model import ClipVip, ClipVipConfig

MAX_TOKENS = 24
IMAGE_SIZE = 32


def tiny_tokenizer() -> CLIPTokenizer:
    """One token per byte, with and without the mark of a word's end."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    symbols = [chr(code) for code in printable] + [chr(256 + n) for n in range(256 - len(printable))]
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols), "<|startoftext|>", "<|endoftext|>"]
    vocab = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=MAX_TOKENS)


def tiny_text_config() -> dict:
    vocab_size = len(tiny_tokenizer())
    return {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "projection_dim": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": MAX_TOKENS,
        "bos_token_id": vocab_size - 2,
        "eos_token_id": vocab_size - 1,
        "pad_token_id": vocab_size - 1,
    }


def make_text_tower(folder: Path, *, seed: int = 0) -> Path:
    """A text tower with projection and random weights in `folder`, in Hugging Face layout."""
    torch.manual_seed(seed)
    model = CLIPTextModelWithProjection(CLIPTextConfig(**tiny_text_config()))
    return _save(model, folder)


def make_clip(folder: Path, *, seed: int = 0) -> Path:
    """A whole CLIP with random weights: patches of 16, images of 32 pixels."""
    torch.manual_seed(seed)
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": IMAGE_SIZE,
        "patch_size": 16,
        "projection_dim": 16,
    }
    model = CLIPModel(CLIPConfig(text_config=tiny_text_config(), vision_config=vision, projection_dim=16))
    return _save(model, folder)


def wide_model() -> ClipVip:
    """Heads of 64, as all of the published models have them."""
    torch.manual_seed(0)
    tower = {"hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 96, "num_hidden_layers": 2}
    config = ClipVipConfig(
        text_config=tiny_text_config() | tower | {"bos_token_id": 0, "eos_token_id": 2},
        vision_config=tower | {"image_size": 48, "patch_size": 16},
        projection_dim=20,
        num_proxies=3,
        temporal_size=6,
    )
    model = ClipVip(config).eval()
    torch.nn.init.normal_(model.vision_model.embeddings.temporal_embedding)
    return model


def _save(model: torch.nn.Module, folder: Path) -> Path:
    # The library's initial weights are so small that all texts get nearly the same feature.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(std=0.5 * parameter.shape[-1] ** -0.5)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
