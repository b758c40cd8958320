"""Read evenly spaced frames of a whole video file, for embedding it. Shards have their own, faster reader.

A file is opened by PyAV first, which is told what it may open: a playlist or script that is named like a video must not
make FFmpeg read other files or hosts, and decord cannot be told.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

# As in `shards/video.py`; a test holds the two together, since neither package may import the other.
OPEN_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,matroska,webm,avi,flv,mpegts,mpeg,mpegvideo,asf,ogg,mxf,rm,wtv,dv,h264,hevc",
}


def read_frames(path: str | Path, num_frames: int) -> np.ndarray:
    """Decode `num_frames` frames from first to last, as the reference does in its test mode.

    Returns:
        uint8 (num_frames, height, width, 3) RGB, upright; a video with fewer frames repeats some.

    Raises:
        ValueError: naming the file, where it is missing, holds no video, or does not decode.
    """
    import av  # only files need it

    # An absolute path cannot be taken for the name of a protocol.
    file = Path(path).absolute()
    if not os.path.isfile(file):
        raise ValueError(f"{path}: no such video file")
    try:
        return _read(file, num_frames)
    except (av.FFmpegError, OSError, ValueError, KeyError, IndexError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: does not decode as video ({reason})") from error


def _read(path: Path, num_frames: int) -> np.ndarray:
    import decord

    _open(path).close()
    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        frames: np.ndarray = reader.get_batch(_evenly(len(reader), num_frames)).asnumpy()
    except (decord.DECORDError, RuntimeError, IndexError):
        return _read_from_front_to_back(path, num_frames)
    return frames


def _open(path: Path) -> Any:
    import av

    container = av.open(str(path), options=OPEN_OPTIONS)
    if not container.streams.video:
        container.close()
        raise ValueError("no stream of pictures")
    return container


def _read_from_front_to_back(path: Path, num_frames: int) -> np.ndarray:
    """What decord refuses, such as AV1 and files that do not say how long they are: decoded whole, first to count."""
    indices = _evenly(sum(1 for _ in _frames(path)), num_frames)
    wanted = set(indices.tolist())
    pictures = {
        index: np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4)
        for index, frame in enumerate(_frames(path))
        if index in wanted
    }
    return np.stack([pictures[index] for index in indices.tolist()])


def _frames(path: Path) -> Iterator[Any]:
    with _open(path) as container:
        yield from container.decode(video=0)


def _evenly(num_total: int, num_frames: int) -> np.ndarray:
    if not num_total:
        raise ValueError("no frame in it")
    return np.linspace(0, num_total - 1, num_frames).astype(int)
