"""What `encode_video` is given, in all its forms, as pixels for the model. Decoding files is `video_file`'s work."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clipvip.model.preprocess import preprocess_frames
from clipvip.model.video_file import read_frames

Video = str | Path | np.ndarray | Tensor
_FORMS = "give the path of a file, or frames as an array or tensor"


def list_videos(videos: Video | Sequence[Video]) -> list[Video]:
    """A list of videos: of one file, one array of frames, a batch of them, or of a list of these."""
    if isinstance(videos, str | Path):
        return [videos]
    if isinstance(videos, np.ndarray | Tensor):
        if videos.ndim == 4:
            return [videos]
        if videos.ndim == 5:
            return list(videos)
        raise ValueError(_explain(videos))
    try:
        return list(videos)
    except TypeError as error:
        raise ValueError(f"a {type(videos).__name__} is no video: {_FORMS}") from error


def to_pixels(video: Video, *, image_size: int, num_frames: int) -> Tensor:
    """One video as the model takes it: float32 (frames, 3, image_size, image_size).

    Of a file `num_frames` evenly spaced frames are read; of an array all frames are taken: uint8 RGB
    (frames, height, width, 3) or (frames, 3, height, width), or floating point and normalised already,
    (frames, 3, image_size, image_size).

    Raises:
        ValueError: a file that does not decode, or an array of another shape or type.
    """
    if isinstance(video, str | Path):
        return preprocess_frames(read_frames(video, num_frames), image_size)
    frames = _as_tensor(video)
    if frames.ndim != 4 or not len(frames):
        raise ValueError(_explain(frames))
    if frames.is_floating_point():
        if tuple(frames.shape[1:]) != (3, image_size, image_size):
            raise ValueError(
                f"{_explain(frames)}; of floating point they must be normalised and of the model's size, "
                f"(frames, 3, {image_size}, {image_size})"
            )
        return frames.float()
    if frames.dtype != torch.uint8 or 3 not in (frames.shape[-1], frames.shape[1]):
        raise ValueError(_explain(frames))
    if frames.shape[-1] != 3:
        frames = frames.movedim(1, -1)
    return preprocess_frames(frames, image_size)


def _as_tensor(video: np.ndarray | Tensor) -> Tensor:
    if isinstance(video, Tensor):
        return video
    array = np.asarray(video)
    # Frames turned from BGR to RGB by `[..., ::-1]` run backwards in memory, others may not be written to: torch
    # wants neither.
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()
    try:
        return torch.from_numpy(array)
    except TypeError as error:
        raise ValueError(f"a {type(video).__name__} is no video: {_FORMS}") from error


def _explain(frames: np.ndarray | Tensor) -> str:
    return (
        f"a video of shape {tuple(frames.shape)} and type {frames.dtype}: expected (frames, height, width, 3) or "
        "(frames, 3, height, width) of uint8"
    )
