"""Read evenly spaced frames of a whole video file, for embedding it: the same that `decode` gives for shards.

Where a file can be sought in, decord goes to the frames. It cannot be told which files it may open, so PyAV
opens each file first. And it seeks to wrong places of transport streams, open groups of pictures (the usual
HEVC) and intra refresh, counts fields and VP9's hidden frames, and ends the process on some damaged files. So
it reads MP4 of 8-bit SDR H.264 in which each keyframe is an IDR, and PyAV all else.
"""

import os
from contextlib import suppress
from pathlib import Path

import av
import numpy as np

from clipvip.media.container import describe
from clipvip.media.decode import Video, open_video
from clipvip.media.errors import MediaError
from clipvip.media.hdr import transfer_of
from clipvip.media.sampling import uniform_indices


def read_frames(path: str | Path, num_frames: int) -> np.ndarray:
    """Decode `num_frames` frames from first to last, as the reference does in its test mode.

    Returns uint8 (num_frames, height, width, 3) RGB, upright; pixels that are not square stay so. A video
    with fewer frames repeats some. Raises ValueError where the file is missing, no video, or damaged.
    """
    file = Path(path).absolute()
    if not os.path.isfile(file):
        raise ValueError(f"{path}: no such video file")
    try:
        with open_video(file) as video:
            return _read(video, file, num_frames)
    except (av.FFmpegError, OSError, ValueError, IndexError, MemoryError) as error:
        raise ValueError(f"{path}: does not decode as video ({describe(error)})") from error


def _read(video: Video, path: Path, num_frames: int) -> np.ndarray:
    times, can_seek = _index_of(video)
    if times:
        indices = uniform_indices(len(times), num_frames)
        frames = _read_by_decord(path, indices, len(times)) if can_seek else None
        if frames is not None:
            return frames
        # Where the index misleads after all, reading from front to back tells what is wrong.
        with suppress(MediaError):
            return video.pictures_at([times[index] for index in indices])
    video.rewind()
    times = [seconds for seconds, _ in video.frames()]
    if video.damage or not times:
        raise MediaError(f"readable to {video.end_seconds:.2f} s: {video.damage or 'no frame in it'}")
    indices = uniform_indices(len(times), num_frames)
    return video.pictures_at([times[index] for index in indices], leave_out=False)


def _read_by_decord(path: Path, indices: np.ndarray, num_total: int) -> np.ndarray | None:
    """None where decord is not installed or refuses the file."""
    try:
        import decord
    except ImportError:  # it has wheels for x86-64 alone
        return None
    with suppress(decord.DECORDError, RuntimeError, IndexError):
        reader = decord.VideoReader(str(path), num_threads=1)
        if len(reader) == num_total:
            return reader.get_batch(indices).asnumpy()
    return None


def _index_of(video: Video) -> tuple[list[float], bool]:
    """Each frame's time, of MP4 whose packets are frames, none of others; and whether decord can seek."""
    container, stream = video.container, video.stream
    if len(container.streams.video) != 1 or "mp4" not in container.format.name.split(","):
        return [], False
    packets = video.packets()
    if stream.codec_context.name not in ("h264", "hevc") or not packets or len(packets) != stream.frames:
        return [], False
    can_seek = stream.codec_context.name == "h264" and not any(is_open for _, is_open in packets)
    is_usual = stream.codec_context.pix_fmt in ("yuv420p", "yuvj420p") and not transfer_of(
        stream.codec_context
    )
    return sorted(seconds for seconds, _ in packets), can_seek and is_usual
