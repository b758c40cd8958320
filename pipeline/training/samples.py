"""One sample: from its bytes in a shard to the frames and texts that the model is given.

Runs in loading processes. What cannot be used is a Skip here and nowhere else; what takes its place is
decided in batches.py.
"""

import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import IO

import numpy as np
import simplejpeg
import torch
from PIL import Image

from clipvip.pipeline.training.shard_index import Entry, read_member
from clipvip.pipeline.training.shard_set import IMAGE_EXTENSIONS, PIXEL_EXTENSIONS, ShardReader, ShardSet
from clipvip.shards.captions import captions_path, read_captions
from clipvip.shards.errors import DatasetError
from clipvip.shards.reader import Sample
from clipvip.shards.sample import FRAMES_EXTENSION
from clipvip.shards.sampling import jittered_indices, middle_index, uniform_indices
from clipvip.shards.skips import Skip

_CAPTION_FILES_KEPT = 64
# Pillow's own bound against images that are small files and huge in memory.
_MAX_IMAGE_PIXELS = 178_956_970
_IMAGE_ERRORS = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """What is wanted of a sample."""

    num_frames: int
    jitter: bool
    fast_decode: bool
    needs_subtitle: bool
    needs_caption: bool
    needs_frame: bool
    captions: str | None = None


@dataclass(frozen=True)
class Example:
    """One sample as the model sees it.

    `video` is uint8 (frames, height, width, 3), one frame for an image; `frame`, the middle one, is a video
    of one frame, only where it is wanted. `text` is the subtitle, or an image's own text.
    """

    key: str
    video: torch.Tensor
    frame: torch.Tensor | None
    text: str
    caption: str | None


class SampleLoader:
    """Reads and decodes the samples of one source, for a model that takes `image_size` pixels a side.

    Frames come in that size, or with `resizes=False` in the size in which they are stored.
    """

    def __init__(
        self, shards: ShardSet, settings: SampleSettings, *, image_size: int, resizes: bool = True
    ) -> None:
        self._shards = shards
        self._resizes = resizes
        self._buffers = _Buffers()
        self._image_size = image_size
        self._settings = settings
        self._reader = ShardReader(shards)
        self._captions = lru_cache(maxsize=_CAPTION_FILES_KEPT)(self._read_captions)

    def load(self, shard: int, index: int, rng: np.random.Generator) -> Example | Skip:
        """Sample `index` of a shard, or why it cannot be used; `rng` draws which frames are taken."""
        found = self._reader.entry(shard, index)
        if isinstance(found, Skip):
            return found
        entry, file = found
        if self._shards.kind == "images":
            return self._load_image(entry, file)
        return self._load_clip(entry, file, self._reader.stem(shard), rng)

    def reuse_memory(self) -> None:
        """Say that the frames of examples so far are no longer needed: their memory is written again."""
        self._buffers.give_back()

    def _load_clip(
        self, entry: Entry, file: IO[bytes], stem: str, rng: np.random.Generator
    ) -> Example | Skip:
        wanted = self._settings
        extension = entry.first_of(PIXEL_EXTENSIONS)
        assert extension is not None
        caption = self._captions(stem).get(entry.key) if wanted.needs_caption else None
        if wanted.needs_caption and not wanted.needs_subtitle and not caption:
            return Skip("missing_caption", entry.key)
        try:
            meta = json.loads(_read(file, entry, "json"))
            if not isinstance(meta, dict):
                raise DatasetError(f"metadata is a {type(meta).__name__}")
            sample = Sample(entry.key, meta, extension, _read(file, entry, extension))
            if wanted.needs_subtitle and not sample.subtitle.strip():
                return Skip("empty_subtitle", entry.key)
            indices = self._choose(sample.num_frames, rng)
            middle = [middle_index(sample.num_frames)] if wanted.needs_frame else []
            video, frame = self._decode(sample, indices, middle)
        except (DatasetError, ValueError) as error:
            return Skip("damaged_sample", entry.key, " ".join(str(error).split()))
        return Example(entry.key, video, frame if middle else None, sample.subtitle, caption or None)

    def _choose(self, num_total: int, rng: np.random.Generator) -> list[int]:
        if self._settings.jitter:
            return jittered_indices(num_total, self._settings.num_frames, rng).tolist()
        return uniform_indices(num_total, self._settings.num_frames).tolist()

    def _load_image(self, entry: Entry, file: IO[bytes]) -> Example | Skip:
        extension = entry.first_of(IMAGE_EXTENSIONS)
        assert extension is not None
        text = _read(file, entry, "txt").decode("utf-8", "replace").strip()
        if not text:
            return Skip("empty_text", entry.key)
        try:
            pixels = _decode_image(_read(file, entry, extension), self._decoder_options())
        except _IMAGE_ERRORS as error:
            return Skip("damaged_image", entry.key, " ".join(str(error).split()))
        return Example(entry.key, self._to_tensor(pixels[None]), None, text, None)

    def _decode(self, sample: Sample, *choices: list[int]) -> list[torch.Tensor]:
        """The frames of each choice of indices; each distinct frame is decoded and resized once."""
        distinct = list(dict.fromkeys(index for indices in choices for index in indices))
        if sample.extension == FRAMES_EXTENSION:
            # What is resized here is needed for a moment only, and the allocator gives the same memory again.
            allocate = np.empty if self._resizes else self._buffers.take
            jpegs = [sample.jpeg(index) for index in distinct]
            pixels = _decode_jpegs(jpegs, self._decoder_options(), allocate)
        else:
            pixels = sample.decode(distinct)
        frames = self._to_tensor(pixels)
        row = {index: number for number, index in enumerate(distinct)}
        return [_take(frames, [row[index] for index in indices]) for indices in choices]

    def _to_tensor(self, frames: np.ndarray) -> torch.Tensor:
        return resize(frames, self._image_size) if self._resizes else torch.from_numpy(frames)

    def _decoder_options(self) -> dict[str, float | bool]:
        """What `fast_decode` changes: cheaper chroma, and a half or less of the size where that is enough."""
        if not self._settings.fast_decode:
            return {}
        return {
            "fastupsample": True,
            "min_height": self._image_size,
            "min_width": self._image_size,
            "min_factor": 2,
        }

    def _read_captions(self, stem: str) -> dict[str, str]:
        assert self._settings.captions is not None
        if not captions_path(self._settings.captions, stem).is_file():
            return {}  # its samples are then counted as without caption
        return read_captions(self._settings.captions, stem)


def _read(file: IO[bytes], entry: Entry, extension: str) -> bytes:
    return read_member(file, entry.members[extension])


def _take(frames: torch.Tensor, rows: list[int]) -> torch.Tensor:
    """`frames[rows]`, without a copy where the rows follow one another."""
    first = rows[0] if rows else 0
    if rows == list(range(first, first + len(rows))):
        return frames[first : first + len(rows)]
    return frames[torch.tensor(rows)]


def resize(frames: np.ndarray, image_size: int) -> torch.Tensor:
    """uint8 (n, height, width, 3) -> uint8 (n, image_size, image_size, 3), bicubic with antialiasing.

    The aspect ratio is not kept, as in the reference. Torch's kernel for bytes rounds its weights: it is
    within 2 of 255 of the same resize in floating point (but beside black and white, where the latter
    overshoots and bytes cannot), and several times faster.
    """
    planes = torch.from_numpy(frames).permute(0, 3, 1, 2)
    if planes.shape[-2:] != (image_size, image_size):
        planes = torch.nn.functional.interpolate(
            planes, size=(image_size, image_size), mode="bicubic", antialias=True, align_corners=False
        )
    return planes.permute(0, 2, 3, 1)


class _Buffers:
    """Memory for decoded frames, used again: that of a clip is new to the process as a rule, and the page
    faults take a good part of the time of decoding."""

    def __init__(self) -> None:
        self._free: list[np.ndarray] = []
        self._lent: list[np.ndarray] = []

    def take(self, shape: tuple[int, ...], dtype: type[np.uint8]) -> np.ndarray:
        size = math.prod(shape)
        buffer = self._free.pop() if self._free else np.empty(size, dtype)
        if buffer.size < size:
            buffer = np.empty(size, dtype)
        self._lent.append(buffer)
        return buffer[:size].reshape(shape)

    def give_back(self) -> None:
        self._free, self._lent = self._free + self._lent, []


def _decode_jpegs(
    jpegs: list[bytes], options: dict[str, float | bool], allocate: Callable[..., np.ndarray]
) -> np.ndarray:
    """Decode JPEGs of one size into one array, without a copy of each."""
    first = simplejpeg.decode_jpeg(jpegs[0], **options)
    frames = allocate((len(jpegs), *first.shape), np.uint8)
    frames[0] = first
    for row, jpeg in zip(frames[1:], jpegs[1:], strict=True):
        decoded = simplejpeg.decode_jpeg(jpeg, buffer=row, **options)
        if decoded.shape != first.shape:
            raise DatasetError(f"frames of different sizes, {first.shape[:2]} and {decoded.shape[:2]}")
    return frames


def _decode_image(data: bytes, options: dict[str, float | bool]) -> np.ndarray:
    """An image file of any usual kind as uint8 (height, width, 3), RGB."""
    if data[:2] == b"\xff\xd8":
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if height * width > _MAX_IMAGE_PIXELS:
            raise ValueError(f"{width} x {height} pixels")
        if colours in {"YCbCr", "Gray", "RGB"}:
            return simplejpeg.decode_jpeg(data, **options)
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"))
