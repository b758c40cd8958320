"""The frames of one clip as an MP4 file in memory, for shards made with `--store video`: encode, and decode again."""

import io
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from clipvip.media.errors import MediaError

DEFAULT_CRF = 23

# veryfast: on real video it gives the bytes of slower presets at half the time, 0.5 dB below "fast".
# One thread and no encoder name or date in the file, so that equal frames give equal bytes. A keyframe at
# least every 12 frames (4 s at 3 fps), so that taking a few frames does not decode all of them.
_CODEC_OPTIONS = {"preset": "veryfast", "threads": "1", "g": "12", "flags": "+bitexact"}
_CONTAINER_OPTIONS = {"fflags": "+bitexact"}
_TIME_BASE = Fraction(1, 90_000)


class Mp4Encoder:
    """Takes pictures one at a time and keeps only their compressed form: `add` each, then `finish`."""

    def __init__(self, width: int, height: int, *, fps: float, crf: int) -> None:
        self._file = io.BytesIO()
        self._container = av.open(self._file, "w", format="mp4", container_options=_CONTAINER_OPTIONS)
        rate = Fraction(fps).limit_denominator(1000)
        self._stream = self._container.add_stream(
            "libx264", rate=rate, options={**_CODEC_OPTIONS, "crf": str(crf)}
        )
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = _TIME_BASE

    def add(self, picture: np.ndarray, seconds: float) -> None:
        """Add a full-range I420 picture, uint8 (height * 3 // 2, width), shown `seconds` into the clip."""
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="yuvj420p")
        frame = frame.reformat(
            format="yuv420p",
            src_colorspace=Colorspace.ITU601,
            dst_colorspace=Colorspace.ITU601,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )
        frame.pts, frame.time_base = round(seconds / _TIME_BASE), _TIME_BASE
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> bytes:
        """The whole file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._file.getvalue()


def decode_mp4(data: bytes, indices: list[int], *, max_pixels: int) -> np.ndarray:
    """Decode the frames at `indices` of an MP4 file in memory, counted in the order in which they are shown.

    Of the pictures between keyframes only those runs are decoded in which one is wanted.

    Returns:
        uint8 array (len(indices), height, width, 3), RGB.

    Raises:
        MediaError: it is no MP4 file, is damaged where it is wanted, has fewer frames, or frames of more than
            `max_pixels` pixels.
    """
    try:
        with av.open(io.BytesIO(data), format="mp4", metadata_errors="replace") as container:
            if not container.streams.video:
                raise MediaError("holds no pictures")
            return _decode_frames(container, indices, max_pixels)
    except (av.FFmpegError, ValueError, IndexError) as error:
        if isinstance(error, MediaError):
            raise
        raise MediaError(" ".join(str(error).split())[:200] or type(error).__name__) from error


def _decode_frames(container: Any, indices: list[int], max_pixels: int) -> np.ndarray:
    stream = container.streams.video[0]
    context = stream.codec_context
    if context is None:
        raise MediaError("no decoder for its codec")
    context.thread_type, context.thread_count = "NONE", 1
    _require_pixels(context, max_pixels)
    packets = [packet for packet in container.demux(stream) if packet.size]
    times = sorted(packet.pts for packet in packets if packet.pts is not None)
    if max(indices) >= len(times) or len(set(times)) != len(packets):
        raise MediaError(f"holds {len(times)} frames that have a time, frame {max(indices)} is wanted")
    wanted = {times[index] for index in indices}
    found = {}
    for run in _runs(packets):
        left = {packet.pts for packet in run} & wanted
        for frame in _frames_of(context, run) if left else ():
            if frame.pts in left:
                _require_pixels(frame, max_pixels)
                found[frame.pts] = frame.to_ndarray(format="rgb24")
                left.discard(frame.pts)
            if not left:
                break
    if found.keys() != wanted:
        raise MediaError("a wanted frame does not decode")
    return np.stack([found[times[index]] for index in indices])


def _require_pixels(picture: Any, max_pixels: int) -> None:
    if picture.width * picture.height > max_pixels:
        raise MediaError(f"is {picture.width}x{picture.height}, more than {max_pixels:,} pixels")


def _runs(packets: list[Any]) -> Iterator[list[Any]]:
    """Packets from one keyframe to before the next: none of ours is built on pictures of another run."""
    run: list[Any] = []
    for packet in packets:
        if packet.is_keyframe and run:
            yield run
            run = []
        run.append(packet)
    yield run


def _frames_of(context: Any, run: list[Any]) -> Iterator[Any]:
    context.flush_buffers()
    for packet in [*run, None]:
        for frame in context.decode(packet):
            if frame.is_corrupt:
                raise MediaError("a damaged frame")
            yield frame
