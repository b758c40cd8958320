"""An OFA of some ten thousand weights and a vocabulary of bytes and a few words, for tests."""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from transformers.convert_slow_tokenizer import bytes_to_unicode

from clipvip.model.ofa import OfaConfig, OfaForConditionalGeneration

SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "."]
WORDS = [
    "a",
    "the",
    "dog",
    "cat",
    "man",
    "woman",
    "runs",
    "sits",
    "eats",
    "on",
    "in",
    "with",
    "red",
    "blue",
    "beach",
    "car",
    "house",
    "tree",
    "small",
    "large",
]
IMAGE_SIZE = 64

# Ours -> fairseq's, the converter's renames the other way round.
_FAIRSEQ_NAMES = {
    "decoder": {
        ".self_attn_mid_layer_norm.": ".self_attn_ln.",
        ".cross_attn_mid_layer_norm.": ".cross_attn_ln.",
        ".cross_attn_layer_norm.": ".encoder_attn_layer_norm.",
        ".cross_attn.": ".encoder_attn.",
        ".ffn_layer_norm.": ".ffn_layernorm.",
    },
    "encoder": {".self_attn_mid_layer_norm.": ".attn_ln.", ".ffn_layer_norm.": ".ffn_layernorm."},
}


def write_vocabulary(folder: Path) -> int:
    """Write vocab.json and merges.txt; the number of tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = SPECIALS + [symbol for symbol in bytes_to_unicode().values() if symbol != "."]
    tokens += [f"Ġ{word}" for word in WORDS if len(word) > 1] + ["<mask>"]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return len(tokens)


def tiny_config(vocab_size: int, **changes: Any) -> OfaConfig:
    settings: dict[str, Any] = {
        "vocab_size": vocab_size,
        "max_position_embeddings": 64,
        "d_model": 32,
        "encoder_layers": 2,
        "encoder_ffn_dim": 48,
        "encoder_attention_heads": 4,
        "decoder_layers": 1,
        "decoder_ffn_dim": 40,
        "decoder_attention_heads": 2,
        "resnet_blocks": (1, 1, 1),
        "resnet_width": 4,
        "token_bucket_size": 16,
        "image_bucket_size": 6,
        "image_size": IMAGE_SIZE,
    }
    return OfaConfig(**settings | changes)


def make_model(vocab_size: int, *, seed: int = 0, **changes: Any) -> OfaForConditionalGeneration:
    """Random weights large enough for captions to differ from picture to picture."""
    torch.manual_seed(seed)
    model = OfaForConditionalGeneration(tiny_config(vocab_size, **changes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=(3.0 if "attn" in name else 1.0) * parameter.shape[-1] ** -0.5)
            elif parameter.ndim == 4:
                parameter.normal_(std=1.5 * parameter[0].numel() ** -0.5)
        # Words rather than bytes, whose halves are no text, and seldom the end.
        model.encoder.embed_tokens.weight[: len(SPECIALS) + 255] *= 0.1
    return model


def make_ofa(folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """A model folder in Hugging Face layout."""
    vocab_size = write_vocabulary(folder)
    make_model(vocab_size, seed=seed, **changes).save_pretrained(folder)
    return folder


def fairseq_name(name: str) -> str:
    for ours, theirs in _FAIRSEQ_NAMES[name.split(".")[0]].items():
        name = name.replace(ours, theirs)
    return name


def make_fairseq(path: Path, model: OfaForConditionalGeneration, **more: torch.Tensor) -> Path:
    """What fairseq's trainer saves of `model`: renamed, with counters, positions, settings and optimizer."""
    state = {fairseq_name(name): tensor.clone() for name, tensor in model.state_dict().items()}
    for side in ("encoder", "decoder"):
        state[f"{side}.version"] = torch.tensor([3.0])
        state[f"{side}.token_rp_bucket"] = torch.zeros(64, 64, dtype=torch.int64)
        state[f"{side}.image_rp_bucket"] = torch.zeros(37, 37, dtype=torch.int64)
    state["decoder.image_position_idx"] = torch.arange(1026)
    state["classification_heads.answers.dense.weight"] = torch.zeros(2, 2)
    settings = argparse.Namespace(arch="ofa_tiny", task=argparse.Namespace(bpe="gpt2"))
    optimizer = {"state": {0: {"step": 7, "exp_avg": torch.zeros(3, dtype=torch.float64)}}}
    content = {"args": settings, "cfg": None, "model": state | more, "last_optimizer_state": optimizer,
               "extra_state": {"val_loss": 1.5}}  # fmt: skip
    torch.save(content, path)
    return path
