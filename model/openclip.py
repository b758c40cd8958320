"""OpenCLIP checkpoints (one file) -> a CLIP in Hugging Face layout, which `ClipVip.from_clip` starts from.

Nothing of OpenCLIP is needed. What its architectures are is in `openclip_architectures`.
"""

import gzip
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from clipvip.media.errors import one_line
from clipvip.model.checkpoint_file import read_checkpoint
from clipvip.model.config import END_IS_HIGHEST
from clipvip.model.errors import CheckpointError
from clipvip.model.openclip_architectures import Architecture, TextSettings, VisionSettings
from clipvip.model.preprocess import check_tokenizer, load_tokenizer
from clipvip.model.weights import require_fit, whole_folder

# What a training run's or a compiled model's names begin with.
_WRAPPERS = re.compile(r"(?:module\.|_orig_mod\.)+")
# Of OpenAI's own files alone: sizes beside the weights.
_OF_OPENAI = {"input_resolution", "context_length", "vocab_size"}
_WHOLE = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "visual.proj": "visual_projection.weight",
    "logit_scale": "logit_scale",
}
# Held as (width, dim); a linear layer has (dim, width).
_TRANSPOSED = ("text_projection", "visual.proj")
_BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)")
_IN_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_QUERIES_KEYS_VALUES = ("q_proj", "k_proj", "v_proj")
# OpenCLIP's vocabulary: bytes, bytes that end a word, one token for each merge, and the start and end token.
_NUM_MERGES = 49152 - 256 - 2
_PILLOW_FILTERS = {"bilinear": 2, "bicubic": 3}


def convert_openclip(
    checkpoint: str | Path, folder: str | Path, *, architecture: str, tokenizer: str | None = None
) -> Architecture:
    """Write the OpenCLIP file `checkpoint` as a CLIP that transformers reads; returns what it is.

    `folder` must not exist yet or be empty. Weights are written in float32.

    Args:
        architecture: a name of OpenCLIP, or its model configuration as a JSON file.
        tokenizer: see `read_tokenizer`; None leaves it out.

    Raises:
        CheckpointError: the file is damaged or foreign, its tensors do not fit the architecture, CLIP's
            layout cannot carry that, or the tokenizer is missing or does not fit.

    Examples:
        >>> import clipvip
        >>> kind = clipvip.convert_openclip(
        ...     "open_clip_model.safetensors", "openclip", architecture="open_clip_config.json"
        ... )
        >>> clipvip.ClipVip.from_clip("openclip").config.projection_dim == kind.embed_dim
        True
    """
    with whole_folder(folder) as partial:
        kind = Architecture.read(architecture)
        words = None if tokenizer is None else read_tokenizer(tokenizer, kind.text)
        state, is_openai = read_openclip(Path(checkpoint))
        # OpenCLIP itself computes quick GELU for these, whatever the architecture's name says.
        kind = replace(kind, quick_gelu=kind.quick_gelu or is_openai)
        config: Any = clip_config(kind)
        if words is not None:
            check_tokenizer(words, config.text_config)
        tensors = dict(_renamed(state))
        _require_tensors(str(checkpoint), config, tensors)
        partial.mkdir(parents=True)
        config.save_pretrained(partial)
        save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
        (partial / "preprocessor_config.json").write_text(json.dumps(_preprocessing(kind), indent=2) + "\n")
        if words is not None:
            words.save_pretrained(partial)
    return kind


def read_openclip(path: Path) -> tuple[dict[str, Tensor], bool]:
    """The tensors of a file of OpenCLIP by its names, and whether it is OpenAI's own; else CheckpointError.

    A training run's file has them in its entry `state_dict`; a model with a text tower of its own names that
    `text.`.
    """
    content = read_checkpoint(path)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise CheckpointError(f"{path}: is no checkpoint of OpenCLIP, which holds named tensors")
    state = {_WRAPPERS.sub("", name, count=1): value for name, value in content.items()}
    is_openai = set(state) >= _OF_OPENAI
    state = {name.removeprefix("text."): value for name, value in state.items() if name not in _OF_OPENAI}
    if others := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        raise CheckpointError(f"{path}: is no checkpoint of OpenCLIP, its entry {min(others)} is no tensor")
    if "visual.conv1.weight" not in state or "positional_embedding" not in state:
        found = ", ".join(sorted(state)[:3]) or "no tensors"
        raise CheckpointError(
            f"{path}: is no CLIP with an image transformer in OpenCLIP's layout, which has "
            f"visual.conv1.weight and positional_embedding (found {found})"
        )
    return state, is_openai


def clip_config(kind: Architecture) -> CLIPConfig:
    """The architecture as transformers' configuration."""
    by_end = kind.text.pool_type == "eos"
    return CLIPConfig(
        text_config={
            **_tower(kind.text, kind.text_activation, kind),
            "num_attention_heads": kind.text.heads,
            "vocab_size": kind.text.vocab_size,
            "max_position_embeddings": kind.text.context_length,
            # With end token 2 a text's feature is at its highest token, which is OpenCLIP's rule.
            "eos_token_id": kind.text.eos_id if by_end else END_IS_HIGHEST,
            "bos_token_id": 0,
            "pad_token_id": 1,
        },
        vision_config={
            **_tower(kind.vision, kind.vision_activation, kind),
            "num_attention_heads": kind.vision.width // kind.vision.head_width,
            "patch_size": kind.vision.patch_size,
            "image_size": kind.vision.image_size,
        },
        projection_dim=kind.embed_dim,
        architectures=["CLIPModel"],
    )


def _tower(tower: VisionSettings | TextSettings, activation: str, kind: Architecture) -> dict[str, Any]:
    return {
        "hidden_size": tower.width,
        "intermediate_size": int(tower.width * tower.mlp_ratio),
        "num_hidden_layers": tower.layers,
        "layer_norm_eps": tower.norm_eps,
        "hidden_act": "quick_gelu" if kind.quick_gelu else activation,
        "projection_dim": kind.embed_dim,
    }


def _renamed(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The tensors under transformers' names, in float32; a name that OpenCLIP does not have stays."""
    for name, tensor in state.items():
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        if name in _TRANSPOSED and tensor.ndim == 2:
            tensor = tensor.T
        if name == "logit_scale":
            tensor = tensor.squeeze()
        if (match := _BLOCK.fullmatch(name)) is None:
            yield _WHOLE.get(name, name), tensor.contiguous()
            continue
        visual, layer, inner = match.groups()
        prefix = f"{'vision' if visual else 'text'}_model.encoder.layers.{layer}."
        part, _, kind = inner.rpartition(".")
        if inner in ("attn.in_proj_weight", "attn.in_proj_bias"):
            suffix = inner.rpartition("_")[2]
            for ours, piece in zip(_QUERIES_KEYS_VALUES, tensor.chunk(3), strict=False):
                yield f"{prefix}self_attn.{ours}.{suffix}", piece.clone()
        else:
            yield f"{prefix}{_IN_BLOCK.get(part, part)}.{kind}", tensor.contiguous()


def _require_tensors(name: str, config: CLIPConfig, tensors: Mapping[str, Tensor]) -> None:
    """CheckpointError where the tensors are not those of the configuration, or are not finite."""
    with torch.device("meta"):
        needed = CLIPModel(config).state_dict()
    require_fit(
        f"{name}: tensors do not fit the architecture",
        {
            "missing": set(needed) - set(tensors),
            "unexpected": set(tensors) - set(needed),
            "of another shape": [
                f"{key} {tuple(tensor.shape)} instead of {tuple(needed[key].shape)}"
                for key, tensor in tensors.items()
                if key in needed and needed[key].shape != tensor.shape
            ],
        },
    )
    for key, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{name}: holds weights that are not finite numbers (such as {key})")


def _preprocessing(kind: Architecture) -> dict[str, Any]:
    """What transformers' image processor is configured by: OpenCLIP's usual transform for evaluation."""
    size = kind.vision.image_size
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": _PILLOW_FILTERS.get(kind.interpolation, _PILLOW_FILTERS["bicubic"]),
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_convert_rgb": True,
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": list(kind.image_mean),
        "image_std": list(kind.image_std),
    }


def read_tokenizer(source: str, text: TextSettings) -> Any:
    """The tokenizer of a CLIP folder or a name on the hub, or of OpenCLIP's file of merges (.txt, .txt.gz).

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    path = Path(source)
    if path.is_file() or path.name.endswith((".txt", ".gz")):
        tokenizer = _of_merges(path)
    else:
        tokenizer = load_tokenizer(source, required=True)
    tokenizer.model_max_length = text.context_length
    return tokenizer


def _of_merges(path: Path) -> CLIPTokenizer:
    """CLIP's tokenizer of its file of merges: a heading, then one pair of symbols in each line."""
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8") as file
        ):
            merges = [tuple(line.split()) for line in islice(file, 1, 1 + _NUM_MERGES)]
    except (OSError, EOFError, ValueError) as error:
        reason = getattr(error, "strerror", None) or one_line(error, most=100)
        raise CheckpointError(f"{path}: cannot be read as CLIP's vocabulary ({reason})") from error
    if len(merges) < _NUM_MERGES or any(len(pair) != 2 for pair in merges):
        raise CheckpointError(
            f"{path}: is not CLIP's vocabulary, which has a heading and {_NUM_MERGES} pairs of symbols; give "
            "OpenCLIP's bpe_simple_vocab_16e6.txt.gz, or a CLIP folder"
        )
    tokens = [
        *_symbols(),
        *(symbol + "</w>" for symbol in _symbols()),
        *map("".join, merges),
    ]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    parts: Any = {"vocab": {token: index for index, token in enumerate(tokens)}, "merges": merges}
    return CLIPTokenizer(**parts)


def _symbols() -> list[str]:
    """A printable character for each byte, in the order of CLIP's ids: those that are printable first."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    return [chr(code) for code in printable] + [chr(256 + n) for n in range(256 - len(printable))]
