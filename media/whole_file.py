"""Read evenly spaced frames of a whole video file, for embedding it. Shards have their own, faster reader.

A file is opened by PyAV first, which is told what it may open: a playlist or script that is named like a video must not
make FFmpeg read other files or hosts, and decord cannot be told. decord then seeks to the frames where it can be trusted to.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

# As in `media/decode.py`; a test holds the two together, since neither package may import the other.
OPEN_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,matroska,webm,avi,flv,mpegts,mpeg,mpegvideo,asf,ogg,mxf,rm,wtv,dv,h264,hevc",
}

_SEEKABLE_CODECS = ("h264", "hevc")


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
    with _open(path) as container:
        counted = _frames_by_index(container)
    if counted:
        import decord

        # What decord refuses is read from front to back, which tells what is wrong.
        with suppress(decord.DECORDError, RuntimeError, IndexError):
            reader = decord.VideoReader(str(path), num_threads=1)
            if len(reader) == counted:
                frames: np.ndarray = reader.get_batch(_evenly(counted, num_frames)).asnumpy()
                return frames
    return _read_from_front_to_back(path, num_frames)


def _open(path: Path) -> Any:
    import av

    # Tags in other encodings than UTF-8 are nobody's business here.
    container = av.open(str(path), options=OPEN_OPTIONS, metadata_errors="replace")
    if not container.streams.video:
        container.close()
        raise ValueError("no stream of pictures")
    return container


def _frames_by_index(container: Any) -> int:
    """How many frames a file has in which decord can be trusted to find each by its number; 0 for others.

    decord seeks to the wrong places of transport streams, counts the fields of interlaced pictures and VP9's hidden frames,
    and ends the process on some damaged files of old codecs: it reads what cameras and encoders of today write, MP4 with an
    index of H.264 or HEVC of 8 bits, all packets of which are there.
    """
    stream = container.streams.best("video")
    if len(container.streams.video) != 1 or "mp4" not in container.format.name.split(","):
        return 0
    context = stream.codec_context
    if context.name not in _SEEKABLE_CODECS or context.pix_fmt not in ("yuv420p", "yuvj420p"):
        return 0
    packets = [packet for packet in container.demux(stream) if packet.size]
    whole = stream.frames and len(packets) == stream.frames and not any(p.is_corrupt for p in packets)
    return len(packets) if whole else 0


def _read_from_front_to_back(path: Path, num_frames: int) -> np.ndarray:
    """Every other file: decoded whole, first to count."""
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
        yield from container.decode(container.streams.best("video"))


def _evenly(num_total: int, num_frames: int) -> np.ndarray:
    if not num_total:
        raise ValueError("no frame in it")
    return np.linspace(0, num_total - 1, num_frames).astype(int)
