"""Pixels and tokens as the reference's transform makes them. Opens no files but the tokenizer's."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from torch import Tensor
from transformers import AutoTokenizer, CLIPTextConfig, SiglipTextConfig

from clipvip.hub_errors import hub_problem
from clipvip.media.errors import one_line
from clipvip.model.config import CLIP_NORMALIZATION, END_IS_HIGHEST, MAX_TEXT_TOKENS, Normalization
from clipvip.model.errors import CheckpointError

_TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"),
    *("vocab.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
)
# No text, some text, and more than fits.
_PROBES = ("", "a dog runs", "a " * 40)
_PROBE_TOKENS = 16


def preprocess_frames(
    frames: Tensor | np.ndarray,
    image_size: int,
    *,
    antialias: bool = True,
    normalization: Normalization = CLIP_NORMALIZATION,
) -> Tensor:
    """Resize frames to a square, as the reference does without keeping the aspect ratio, and normalise them.

    Args:
        frames: (..., height, width, 3) uint8 RGB.
        antialias: as torchvision since 0.17 does with the reference's transform, and before did not.
        normalization: the model's, `config.normalization`; without it CLIP's.

    Returns:
        (..., 3, image_size, image_size) float32.

    Raises:
        RuntimeError, ValueError: frames without pixels, or of another number of colours; of torch.
    """
    frames = torch.as_tensor(frames)
    planes = frames.reshape(-1, *frames.shape[-3:]).movedim(-1, 1)
    mean, std = (_per_colour(part, planes.device) for part in (normalization.mean, normalization.std))
    pixels = torch.empty(len(planes), 3, image_size, image_size, device=planes.device)
    # On a CPU one by one: a frame in floating point fits into its cache.
    at_once = 1 if planes.is_cpu else max(len(planes), 1)
    for some, into in zip(planes.split(at_once), pixels.split(at_once), strict=True):
        resized = some.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
        if resized.shape[-2:] != (image_size, image_size):
            resized = F.interpolate(
                resized, (image_size, image_size), mode="bicubic", align_corners=False, antialias=antialias
            )
        torch.sub(resized, mean, out=into).div_(std)
    return pixels.reshape(*frames.shape[:-3], 3, image_size, image_size)


def _per_colour(values: tuple[float, ...], device: torch.device) -> Tensor:
    """(3, 1, 1), filled where it is needed: what is copied to a GPU would be waited for."""
    return torch.stack([torch.full((1, 1), value, device=device) for value in values])


def tokenize(tokenizer: Any, texts: Sequence[str], *, max_tokens: int = MAX_TEXT_TOKENS) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask`, int64 (len(texts), max_tokens): cut and padded at the end."""
    # Half of a surrogate pair, which JSON may hold, is no character.
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    encoded = tokenizer(
        texts,
        padding="max_length",
        # CLIP's positions count from the text's first token, whatever the tokenizer's own files say.
        padding_side="right",
        truncation=True,
        max_length=max_tokens,
        return_tensors="pt",
    )
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}


def load_tokenizer(folder_or_name: str, *, required: bool = False, **where: Any) -> Any:
    """The tokenizer of a model folder or a name on the hub, or None; `where` may have HUB_OPTIONS.

    Raises:
        CheckpointError: it is damaged, or there is none and it is `required`.
    """
    if Path(folder_or_name).is_dir() and not _has_tokenizer_files(folder_or_name, where):
        # Of a folder without one the library makes a tokenizer of three tokens, by the model's type.
        if required:
            raise CheckpointError(
                f"{folder_or_name}: has no tokenizer that loads (no {' and no '.join(_TOKENIZER_FILES[:2])})"
            )
        return None
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder_or_name, **where)
    # The tokenizers library raises nothing more specific than Exception.
    except Exception as error:
        if required or _has_tokenizer_files(folder_or_name, where):
            problem = "" if Path(folder_or_name).exists() else hub_problem(folder_or_name, error)
            reason = f"{folder_or_name}: has no tokenizer that loads ({one_line(error, most=200)})"
            raise CheckpointError(problem or reason) from error
        if not isinstance(error, (OSError, ValueError, KeyError)):
            raise
        return None
    # Texts are cut at their end, as in training; where nothing pads, CLIP's own choice does: the end token.
    tokenizer.truncation_side = tokenizer.padding_side = "right"
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _has_tokenizer_files(folder_or_name: str, where: Mapping[str, Any]) -> bool:
    """Whether there is something of a tokenizer, in a folder or in the cache of the hub."""
    inside = where.get("subfolder") or ""
    if Path(folder_or_name).is_dir():
        return any((Path(folder_or_name) / inside / name).is_file() for name in _TOKENIZER_FILES)
    cache = {name: where[name] for name in ("cache_dir", "revision") if where.get(name)}
    names = [str(PurePosixPath(inside, name)) for name in _TOKENIZER_FILES]
    try:
        return any(isinstance(try_to_load_from_cache(folder_or_name, name, **cache), str) for name in names)
    except HFValidationError:  # no name that the hub can have
        return False


def check_tokenizer(tokenizer: Any, text_config: CLIPTextConfig | SiglipTextConfig) -> None:
    """CheckpointError unless the model has all tokens in its table, and finds a text's end, or padding."""
    name = getattr(tokenizer, "name_or_path", "") or "the tokenizer"
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if highest < 0:
        raise CheckpointError(f"{name}: its tokenizer has no tokens; its files are incomplete")
    if highest >= text_config.vocab_size:
        raise CheckpointError(
            f"{name}: its tokenizer has {highest + 1} tokens, the model's table {text_config.vocab_size}; "
            "put the tokenizer there that the model was trained with"
        )
    if tokenizer.pad_token_id is None:
        raise CheckpointError(f"{name}: its tokenizer has neither a padding nor an end token; CLIP needs one")
    if isinstance(text_config, SiglipTextConfig):
        if tokenizer.pad_token_id != text_config.pad_token_id:
            raise CheckpointError(
                f"{name}: its tokenizer pads with token {tokenizer.pad_token_id}, the model with "
                f"{text_config.pad_token_id} (pad_token_id in config.json), which changes embeddings; put "
                "the tokenizer there that the model was trained with"
            )
        return
    end = highest if text_config.eos_token_id == END_IS_HIGHEST else text_config.eos_token_id
    for text in _PROBES:
        tokens = tokenize(
            tokenizer, [text], max_tokens=min(_PROBE_TOKENS, text_config.max_position_embeddings)
        )
        ids = tokens["input_ids"][0][tokens["attention_mask"][0] == 1].tolist()
        # transformers' CLIP takes the feature at the first such token.
        if end not in ids or ids.index(end) != len(ids) - 1:
            raise CheckpointError(
                f"{name}: its tokenizer ends a text with token {ids[-1] if ids else 'none'}, the model takes "
                f"a text's feature at token {end} (eos_token_id in config.json); put the tokenizer there"
                " that the model was trained with"
            )
