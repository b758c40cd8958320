"""Pixels as OFA's captioner was trained on them."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def preprocess_images(images: Sequence[np.ndarray], image_size: int) -> Tensor:
    """Resize images to a square by Pillow's bicubic filter, aspect ratio not kept, and scale to [-1, 1].

    Uint8 arrays (height, width, 3), RGB, give float32 (len(images), 3, image_size, image_size).
    """
    return scale_pixels(resize_images(images, image_size))


def resize_images(images: Sequence[np.ndarray], image_size: int) -> Tensor:
    """The first half of `preprocess_images`: (len(images), image_size, image_size, 3) uint8."""
    size = (image_size, image_size)
    resized = [Image.fromarray(image).resize(size, Image.Resampling.BICUBIC) for image in images]
    return torch.from_numpy(np.stack([np.asarray(image) for image in resized]))


def scale_pixels(pixels: Tensor) -> Tensor:
    """The second half, wherever `pixels` are: uint8 (n, size, size, 3) to float32 (n, 3, size, size)."""
    planes = pixels.permute(0, 3, 1, 2).float()
    return ((planes / 255) - 0.5) / 0.5
