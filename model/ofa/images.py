"""Pixels as OFA's captioner was trained on them."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def preprocess_images(images: Sequence[np.ndarray], image_size: int) -> Tensor:
    """Resize images to a square by Pillow's bicubic filter, aspect ratio not kept, and scale to [-1, 1].

    Args:
        images: uint8 arrays (height, width, 3), RGB.

    Returns:
        (len(images), 3, image_size, image_size) float32.
    """
    resized = np.stack(
        [
            np.asarray(Image.fromarray(image).resize((image_size, image_size), Image.Resampling.BICUBIC))
            for image in images
        ]
    )
    planes = torch.from_numpy(resized).permute(0, 3, 1, 2).float()
    return ((planes / 255) - 0.5) / 0.5
