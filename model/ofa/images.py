"""Pixels as OFA's captioner was trained on them."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def preprocess_images(images: Sequence[np.ndarray], image_size: int) -> Tensor:
    """Resize images to a square by Pillow's bicubic filter, aspect ratio not kept, and scale to [-1, 1].

    Uint8 arrays (height, width, 3), RGB, give float32 (len(images), 3, image_size, image_size).

    Examples:
        >>> import numpy as np
        >>> from clipvip.model.ofa import preprocess_images
        >>> preprocess_images([np.zeros((32, 48, 3), np.uint8)], 64).shape
        torch.Size([1, 3, 64, 64])
    """
    return scale_pixels(resize_images(images, image_size))


def resize_images(images: Sequence[np.ndarray], image_size: int) -> Tensor:
    """The first half of `preprocess_images`: (len(images), image_size, image_size, 3) uint8."""
    pixels = torch.empty(len(images), image_size, image_size, 3, dtype=torch.uint8)
    for row, image in zip(pixels.numpy(), images, strict=True):
        row[:] = np.asarray(Image.fromarray(image).resize((image_size, image_size), Image.Resampling.BICUBIC))
    return pixels


def scale_pixels(pixels: Tensor) -> Tensor:
    """The second half, wherever `pixels` are: uint8 (n, size, size, 3) to float32 (n, 3, size, size)."""
    # Channels stay last in memory.
    return pixels.permute(0, 3, 1, 2).float().div_(255).sub_(0.5).div_(0.5)
