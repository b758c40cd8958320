"""What every captioner is: images in, one text each out, so many at once on one device."""

import string
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from clipvip.model.ofa.images import resize_images
from clipvip.model.precision import half_dtype

CPU_BATCH_SIZE = 4
# What is shown of bytes that are no text.
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
Inputs = TypeVar("Inputs")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class BatchCaptioner(ABC, Generic[Inputs]):
    """A model that is loaded once and captions batch after batch; a text depends on its image alone.

    Attributes:
        batch_size: the most images that `caption_pixels` takes.
        image_size: side in pixels of what `preprocess` gives; 0 where each image decides.
        dtype: number format of the weights.
        in_pieces: whether what `preprocess` gives of parts of a batch are tensors that can be joined.
    """

    device: torch.device
    dtype: torch.dtype
    batch_size: int
    image_size: int
    in_pieces: ClassVar[bool] = False

    @abstractmethod
    def preprocess(self, images: Sequence[np.ndarray]) -> Inputs:
        """What `caption_pixels` takes, on the processor. Safe in any thread."""

    @abstractmethod
    def caption_pixels(self, pixels: Inputs) -> list[str]:
        """Captions of what `preprocess` gave, for `batch_size` images at most."""

    def caption(self, images: Sequence[np.ndarray]) -> list[str]:
        """Captions of uint8 (height, width, 3) RGB images of any size, in their order."""
        captions = []
        for first in range(0, len(images), self.batch_size):
            captions += self.caption_pixels(self.preprocess(images[first : first + self.batch_size]))
        return captions


class ImageCaptioner(BatchCaptioner[Tensor]):
    """A captioner of square images of one size."""

    in_pieces = True

    def preprocess(self, images: Sequence[np.ndarray]) -> Tensor:
        """What `caption_pixels` takes: uint8 (n, image_size, image_size, 3). Safe in any thread."""
        return resize_images(images, self.image_size)


@dataclass(frozen=True, slots=True)
class Decoding:
    """What a model is asked, how widely it searches and how long a caption gets, in tokens.

    The defaults are OFA's.
    """

    prompt: str = " what does the image describe?"
    num_beams: int = 5
    max_length: int = 16


class CaptionerKind(Protocol):
    """What `CAPTIONERS` holds: a class, or a function, that loads a captioner.

    `image_size` None stands for the model's own. An option that a model does not have is passed over.

    Raises:
        CheckpointError: the folder holds no such model, or one that does not do what is asked.
    """

    def __call__(
        self,
        folder_or_name: str,
        /,
        *,
        device: torch.device,
        dtype: torch.dtype,
        batch_size: int,
        prompt: str,
        num_beams: int,
        max_length: int,
        image_size: int | None,
    ) -> BatchCaptioner[Any]: ...


def default_dtype(device: torch.device) -> torch.dtype:
    """Half precision on a GPU, in the format that it has, else float32."""
    return half_dtype() if device.type == "cuda" else torch.float32


def default_batch_size(device: torch.device) -> int:
    """Images at once on a device, by the memory that a GPU has."""
    if device.type != "cuda":
        return CPU_BATCH_SIZE
    return gpu_batch_size(torch.cuda.get_device_properties(device).total_memory)


def gpu_batch_size(memory_bytes: int) -> int:
    """Images at once on a GPU of so much memory.

    Large batches fill a GPU better, and a caption of OFA large takes 0.1 GiB: 256 take 24 GiB and leave room
    on a GPU of 40.
    """
    gib = memory_bytes / 2**30
    return 256 if gib >= 36 else 64 if gib >= 14 else 32


def one_space(text: str) -> str:
    """A text on one line, with one space where there is white space, and none around it."""
    return " ".join(text.split())


def clean_caption(text: str) -> str:
    """Drop ASCII punctuation and outer white space, as in the evaluation of OFA's authors."""
    return text.translate(_NO_PUNCTUATION).strip()
