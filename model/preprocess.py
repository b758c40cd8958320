"""Pixels and tokens as the reference's transform makes them. Opens no files but the tokenizer's."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoTokenizer

from clipvip.model.errors import CheckpointError

# Of CLIP's training images: openai/CLIP and every checkpoint derived from it.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
# Post-pretraining pads and cuts texts to this many tokens (section 5.1 of the paper; CLIP itself has 77).
MAX_TEXT_TOKENS = 70


def preprocess_frames(frames: Tensor | np.ndarray, image_size: int, *, antialias: bool = True) -> Tensor:
    """Resize frames directly to a square and normalise them.

    The aspect ratio is not kept and nothing is cropped, in training as in testing, as in the reference.

    Args:
        frames: (..., height, width, 3) uint8 RGB.
        antialias: what today's torchvision does with the reference's transform; torchvision before 0.17
            did not.

    Returns:
        (..., 3, image_size, image_size) float32.
    """
    frames = torch.as_tensor(frames)
    planes = frames.reshape(-1, *frames.shape[-3:]).movedim(-1, 1).float().div(255)
    if planes.shape[-2:] != (image_size, image_size):
        planes = F.interpolate(
            planes, size=(image_size, image_size), mode="bicubic", align_corners=False, antialias=antialias
        )
    return _normalize(planes).reshape(*frames.shape[:-3], 3, image_size, image_size)


def _normalize(planes: Tensor) -> Tensor:
    mean = torch.tensor(CLIP_MEAN, device=planes.device)[:, None, None]
    std = torch.tensor(CLIP_STD, device=planes.device)[:, None, None]
    return (planes - mean) / std


def tokenize(tokenizer: Any, texts: Sequence[str], *, max_tokens: int = MAX_TEXT_TOKENS) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask`, int64 (len(texts), max_tokens): cut and padded to one length."""
    encoded = tokenizer(
        list(texts), padding="max_length", truncation=True, max_length=max_tokens, return_tensors="pt"
    )
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}


def load_tokenizer(folder_or_name: str, *, required: bool = False, **where: Any) -> Any:
    """The tokenizer of a model folder or a name on the hub; None where there is none.

    `where` may say the revision and the like, as in `from_pretrained`.

    Raises:
        CheckpointError: there is none, and it is `required`.
    """
    try:
        return AutoTokenizer.from_pretrained(folder_or_name, **where)
    except (OSError, ValueError, KeyError) as error:
        if required:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(f"{folder_or_name}: has no tokenizer that loads ({reason})") from error
        return None
