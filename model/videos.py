"""What `encode_video` is given, in all its forms, as pixels for the model. `clipvip.media` decodes files."""

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from clipvip.model.config import Normalization
from clipvip.model.preprocess import preprocess_frames

Frame = Image | np.ndarray | Tensor
Video = str | Path | np.ndarray | Tensor | Image | Sequence[Frame]
_FORMS = "give the path of a file, frames as an array or tensor, a PIL image, or a list of frames"
# Normalised pixels lie in -1.8 to 2.2, and where resizing overshoots edges not far outside.
_MOST_NORMALISED = 10.0


def iterate_videos(videos: Video | Iterable[Video]) -> Iterator[Video]:
    """The videos one by one, lazily: of a file, picture, array of frames, batch of arrays, or any iterable.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(videos, str | os.PathLike | Image):
        return iter([videos])
    if isinstance(videos, np.ndarray | Tensor):
        if videos.ndim == 4:
            return iter([videos])
        if videos.ndim == 5:
            return iter(videos)
        raise ValueError(_explain(videos))
    if isinstance(videos, Iterable) and not isinstance(videos, dict | set | bytes):
        return iter(videos)
    raise ValueError(f"a {type(videos).__name__} is no video: {_FORMS}")


@dataclass(frozen=True)
class PixelFormat:
    """How a model takes pixels: squares of `size`, normalised."""

    size: int
    normalization: Normalization


def to_pixels(video: Video, *, pixels: PixelFormat, num_frames: int) -> Tensor:
    """One video as the model takes it: float32 (frames, 3, size, size).

    Of a file `num_frames` evenly spaced frames are read; all else (see `encode_video`) is taken whole.

    Raises:
        ValueError: a file that does not decode, an array of another shape, type or range, or something else.
    """
    if isinstance(video, str | os.PathLike):
        from clipvip.media.whole_file import read_frames  # only files need PyAV

        return _preprocessed(read_frames(video, num_frames), pixels)
    if isinstance(video, Image):
        return _frame_pixels(video, pixels)
    if isinstance(video, list | tuple | Iterator):
        rows = [_frame_pixels(frame, pixels) for frame in video]
        if not rows:
            raise ValueError("a list without frames is no video")
        return torch.cat(rows)
    frames = _as_tensor(video)
    if frames.ndim == 3:
        raise ValueError(f"{_explain(frames)}; a list of the frames of one video is itself put in a list")
    return _array_pixels(frames, pixels)


def _frame_pixels(frame: Frame, pixels: PixelFormat) -> Tensor:
    """(1, 3, size, size)."""
    if isinstance(frame, Image):
        if frame.mode.startswith(("I", "F")):
            raise ValueError(f"a PIL image of mode {frame.mode}: give one of 8 bits a colour, such as RGB")
        try:
            picture = np.array(frame.convert("RGB"))
        except (OSError, SyntaxError) as error:  # Pillow decodes a file when it is asked for pixels
            raise ValueError(f"a PIL image that does not decode ({error})") from error
        return _array_pixels(torch.from_numpy(picture)[None], pixels)
    tensor = _as_tensor(frame)
    if tensor.ndim != 3:
        raise ValueError(
            f"a frame of shape {tuple(tensor.shape)}: expected (height, width, 3) or (3, height, width)"
        )
    return _array_pixels(tensor[None], pixels)


def _array_pixels(frames: Tensor, pixels: PixelFormat) -> Tensor:
    if frames.ndim != 4 or 0 in frames.shape:
        raise ValueError(_explain(frames))
    if frames.is_floating_point():
        if tuple(frames.shape[1:]) != (3, pixels.size, pixels.size):
            raise ValueError(
                f"{_explain(frames)}; of floating point they must be normalised and of the model's size, "
                f"(frames, 3, {pixels.size}, {pixels.size})"
            )
        frames = frames.float()
        _require_normalised(frames)
        return frames
    if frames.dtype != torch.uint8 or 3 not in (frames.shape[-1], frames.shape[1]):
        raise ValueError(_explain(frames))
    if frames.shape[-1] != 3:
        frames = frames.movedim(1, -1)
    return _preprocessed(frames, pixels)


def _preprocessed(frames: Tensor | np.ndarray, pixels: PixelFormat) -> Tensor:
    return preprocess_frames(frames, pixels.size, normalization=pixels.normalization)


def _require_normalised(frames: Tensor) -> None:
    least, most = frames.min().item(), frames.max().item()
    # NaN compares false.
    if not (least >= -_MOST_NORMALISED and most <= _MOST_NORMALISED):
        raise ValueError(
            f"floating-point frames with values from {least:g} to {most:g} are not normalised by CLIP's mean "
            "and deviation; give 0 to 255 as uint8"
        )
    if least >= 0 and most <= 1 and least < most:
        warnings.warn(
            "floating-point frames are taken for normalised ones, and these lie all in 0 to 1; if they are "
            "not normalised, give uint8 of 0 to 255",
            stacklevel=4,
        )


def _as_tensor(video: object) -> Tensor:
    if isinstance(video, Tensor):
        return video
    array = np.asarray(video)
    # Frames turned from BGR to RGB by `[..., ::-1]` run backwards in memory, others may not be written to:
    # torch wants neither.
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()
    try:
        return torch.from_numpy(array)
    except TypeError as error:
        raise ValueError(f"a {type(video).__name__} is no video: {_FORMS}") from error


def _explain(frames: np.ndarray | Tensor) -> str:
    return (
        f"a video of shape {tuple(frames.shape)} and type {frames.dtype}: "
        "expected (frames, height, width, 3) or (frames, 3, height, width) of uint8"
    )
