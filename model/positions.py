"""Positions of patches for images of another size: the table of a start, interpolated."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPVisionConfig

from clipvip.model.config import ClipVipConfig

# The table of positions in CLIP's image tower; its first rows are of tokens before the patches.
POSITIONS = "vision_model.embeddings.position_embedding.weight"


def interpolate_positions(table: Tensor, num_patches: int) -> Tensor:
    """The table (tokens + patches, width) for `num_patches`, a square number as that which it has.

    Bicubic with antialiasing, as OpenCLIP and timm do; what stands before the patches is kept, and a table
    of that size as it is.
    """
    old, new = int(len(table) ** 0.5), int(num_patches**0.5)
    before, patches = table.split([len(table) - old * old, old * old])
    if old == new:
        return table
    grid = patches.float().T.unflatten(1, (old, old))[None]
    resized = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False, antialias=True)
    return torch.cat([before, resized[0].flatten(1).T.to(table.dtype)])


def resized_vision(vision: CLIPVisionConfig, image_size: int) -> CLIPVisionConfig:
    """The tower for images of `image_size` pixels a side; ValueError unless these are whole patches."""
    patch_size: Any = vision.patch_size
    if not isinstance(image_size, int) or image_size < 1 or image_size % patch_size:
        raise ValueError(f"{image_size = } must be a multiple of the patches' {patch_size} pixels")
    return type(vision)(**(vision.to_dict() | {"image_size": image_size}))


def fit_positions(state: dict[str, Tensor], config: ClipVipConfig) -> None:
    """Interpolate the table in the tensors of a start to the images of `config`, in place."""
    vision: Any = config.vision_config
    if POSITIONS in state:
        side = vision.image_size // vision.patch_size
        state[POSITIONS] = interpolate_positions(state[POSITIONS], side * side)
