"""Decode a video file from front to back: frames with their presentation times, upright and scaled.

Which frames are wanted is `cutting`'s business, which packets these take `packets`'; this file never seeks.

PyAV decodes here rather than decord: of 28 real files that can be read, decord 0.6 refused two (AV1, no duration
in the header), gave a third eight frames too many (VP9), and gave two times that start at the first frame instead of
at the file's zero, 0.8 s off the subtitles; at equal CPU time.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from clipvip.media.errors import MediaError
from clipvip.media.packets import plan_steps

# A playlist or script that is named like a video must not make FFmpeg open other files or hosts.
_OPEN_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,matroska,webm,avi,flv,mpegts,mpeg,mpegvideo,asf,ogg,mxf,rm,wtv,dv,h264,hevc",
}
_INTERPOLATION = Interpolation.BICUBIC | Interpolation.ACCURATE_RND
# Shapes of pixels outside these limits are damage, not intent.
_LEAST_PIXEL_ASPECT, _MOST_PIXEL_ASPECT = Fraction(1, 4), Fraction(4)

_MOST_FRAMES_PER_SECOND = 300


class UnreadableVideo(MediaError):
    """No frame of a file can be had; `reason` is `undecodable_video` or `no_video_stream`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class _Damage(Exception):
    """Frames from here on cannot be trusted."""


class _NotAKeyframe(Exception):
    """Frames are missing after packets were left out, which a keyframe should have made good."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes in pixels as shown (upright, square pixels): of the source, and after scaling."""

    source_width: int
    source_height: int
    width: int
    height: int
    quarter_turns: int  # counterclockwise, from the decoded picture to the one shown


class Video:
    """An open video file; `open_video` makes one.

    After `frames` has ended, `end_seconds` is where the last frame ends, and `damage` says what kept it from
    going on, or is empty at a proper end. All needed frames before `passed_seconds` have been yielded.
    """

    def __init__(self, path: str, *, size: int) -> None:
        self._path = path
        self._size = size
        self._container, self._stream = container, stream = _open(path)
        self._reformatter = VideoReformatter()
        self._time_base = Fraction(stream.time_base)
        # Players, and so the subtitles, count from the start of the file, not of the picture.
        self._origin_seconds = max(Fraction(0), Fraction(container.start_time or 0, av.time_base))
        common = math.lcm(self._time_base.denominator, self._origin_seconds.denominator)
        self._ticks = (int(self._time_base * common), int(self._origin_seconds * common), common)
        self.fps = _frames_per_second(stream)
        self.end_seconds = self.passed_seconds = 0.0
        self.damage = ""
        self.geometry: Geometry | None = None  # known from the first frame on

    def close(self) -> None:
        self._container.close()

    def frames(
        self, needed: Callable[[float, float], bool] = lambda previous, seconds: True
    ) -> Iterator[tuple[float, Any]]:
        """Yield (presentation time in seconds, still unscaled frame) with strictly rising times.

        Where `needed(time of the frame before, time)` is false the frame may be missing, which saves its
        decoding where no needed frame is built on it: a third of the work in usual H.264, and all that lies
        between clips. The first frame always comes.

        Ends at the first damage: what a decoder makes of the pictures after it is guesswork.
        """
        last_seconds = -1.0
        for frame in self._undamaged_frames(lambda *times: needed(*times) or self.geometry is None):
            seconds = self.end_seconds if frame.pts is None else self._seconds(frame.pts)
            if seconds <= last_seconds:
                continue
            last_seconds = seconds
            if self.geometry is None:
                self.geometry = _geometry(frame, self._stream, self._size)
            yield seconds, frame
        if not self.damage:
            self.damage = self._missing_end()

    def _undamaged_frames(self, needed: Callable[[float, float], bool]) -> Iterator[Any]:
        try:
            try:
                yield from self._decode(needed, may_leave_out=True)
            except _NotAKeyframe:
                self.close()
                self._container, self._stream = _open(self._path)
                self.end_seconds = self.passed_seconds = 0.0
                yield from self._decode(needed, may_leave_out=False)
        except _Damage as damage:
            self.damage = str(damage)
        except (av.FFmpegError, ValueError) as error:
            self.damage = _describe(error)

    def _decode(self, needed: Callable[[float, float], bool], *, may_leave_out: bool) -> Iterator[Any]:
        """Decode what is needed, from the start; after packets that were left out, only from a true keyframe on.

        Raises:
            _Damage, av.FFmpegError, ValueError: the file is damaged here.
            _NotAKeyframe: what the file gave out as a keyframe cannot be begun at.
        """
        context = self._stream.codec_context
        num_clean, left_out_seconds = 0, 0.0
        awaited_seconds: float | None = None

        def usable(frame: Any) -> bool:
            nonlocal num_clean, awaited_seconds
            if awaited_seconds is not None:
                seconds = awaited_seconds if frame.pts is None else self._seconds(frame.pts)
                if seconds < awaited_seconds:
                    return False
                if seconds > awaited_seconds or not frame.key_frame or frame.is_corrupt:
                    raise _NotAKeyframe
                awaited_seconds = None
            # A file cut without re-encoding may begin with frames whose references were cut away.
            if frame.is_corrupt and num_clean:
                raise _Damage("a damaged frame")
            num_clean += not frame.is_corrupt
            return not frame.is_corrupt

        packets = self._packets()
        for step in plan_steps(packets, needed, seconds_of=self._packet_seconds, may_leave_out=may_leave_out):
            packet = step.packet
            if not step.is_decoded:
                left_out_seconds = max(left_out_seconds, step.seconds or 0.0)
                self._note_end(packet)
                continue
            if step.begins_anew:
                yield from filter(usable, context.decode(None))
                if awaited_seconds is not None:
                    raise _NotAKeyframe
                context.flush_buffers()
                self.passed_seconds, awaited_seconds = left_out_seconds, step.seconds
            context.skip_frame = "DEFAULT" if step.is_needed or step.begins_anew else "NONREF"
            yield from filter(usable, packet.decode())
            if packet.is_corrupt and num_clean:
                raise _Damage("an incomplete packet")
            self._note_end(packet)
        if awaited_seconds is not None:
            raise _NotAKeyframe
        self.passed_seconds = left_out_seconds

    def _packets(self) -> Iterator[Any]:
        try:
            yield from self._container.demux(self._stream)
        except IndexError as error:  # PyAV's list of streams is made once
            raise _Damage("a stream that begins in the middle of the file") from error

    def _packet_seconds(self, packet: Any) -> float | None:
        return None if packet.pts is None else self._seconds(packet.pts)

    def _seconds(self, pts: int) -> float:
        scale, origin, common = self._ticks  # integers: `Fraction` here would cost 5% of the whole stage
        return (pts * scale - origin) / common

    def _note_end(self, packet: Any) -> None:
        """The video lasts at least to the end of this packet's frame."""
        if packet.pts is not None and not packet.is_discard:
            duration = (
                packet.duration * self._time_base if packet.duration else 1 / self.fps if self.fps else 0
            )
            self.end_seconds = max(self.end_seconds, self._seconds(packet.pts) + float(duration))

    def _missing_end(self) -> str:
        """What a file that just stops short of its header's length is missing."""
        if self._stream.duration is not None:
            stream_seconds = (self._stream.start_time or 0) + self._stream.duration
            header_seconds = float(stream_seconds * self._time_base - self._origin_seconds)
        elif self._container.duration is not None:
            header_seconds = self._container.duration / av.time_base
        else:
            return ""
        if header_seconds <= self.end_seconds + 1:
            return ""
        return f"the pictures end at {self.end_seconds:.2f} s of {header_seconds:.2f} s"

    def scale(self, frame: Any) -> np.ndarray:
        """The picture as stored: uint8 (height * 3 // 2, width), planar YUV 4:2:0 (I420), upright.

        Full range with the coefficients of BT.601, as JPEG has it; no RGB in between, which costs twice the
        time and is off by 1 to 2 levels in libswscale.
        """
        shape = self.geometry
        assert shape is not None, "scale() is for frames that frames() has yielded"
        turned = shape.quarter_turns % 2 == 1
        width, height = (shape.height, shape.width) if turned else (shape.width, shape.height)
        scaled = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="yuvj420p",
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=ColorRange.JPEG,
            interpolation=_INTERPOLATION,
            threads=1,
        )
        picture: np.ndarray = scaled.to_ndarray()
        return _turn_planes(picture, width, height, shape.quarter_turns) if shape.quarter_turns else picture


@contextmanager
def open_video(path: Path | str, *, size: int) -> Iterator[Video]:
    """Open a file for decoding; pictures are scaled to a short side of `size` pixels, never up.

    Raises:
        UnreadableVideo: not a video, damaged from the start, or without a video stream.
    """
    # An absolute path cannot be taken for the name of a protocol.
    video = Video(str(Path(path).absolute()), size=size)
    try:
        yield video
    finally:
        video.close()


def _open(path: str) -> tuple[Any, Any]:
    """The file's container and its stream of pictures. Raises as `open_video`."""
    try:
        container = av.open(path, options=_OPEN_OPTIONS, metadata_errors="replace")
    except (av.FFmpegError, ValueError) as error:
        raise UnreadableVideo("undecodable_video", _describe(error)) from error
    stream = _best_stream(container)
    if stream is None:
        kinds = sorted({stream.type for stream in container.streams})
        container.close()
        reason = "no_video_stream" if kinds else "undecodable_video"
        raise UnreadableVideo(reason, f"streams: {', '.join(kinds) or 'none'}")
    if stream.codec_context is None:
        container.close()
        raise UnreadableVideo("undecodable_video", "no decoder for its codec, or a damaged name of it")
    # One thread: the cores are shared out by whole videos, which wastes none of them.
    stream.codec_context.thread_type = "NONE"
    stream.codec_context.thread_count = 1
    return container, stream


def _best_stream(container: Any) -> Any | None:
    best = container.streams.best("video")
    candidates = [best, *container.streams.video]
    attached = av.stream.Disposition.attached_pic  # cover art of a sound file
    return next((s for s in candidates if s is not None and not s.disposition & attached), None)


def _frames_per_second(stream: Any) -> float:
    """The source's mean rate; 0 where the file gives none or the rate of its clock (1000 in Matroska)."""
    rates = (stream.average_rate, stream.guessed_rate)
    return next((float(rate) for rate in rates if rate and rate <= _MOST_FRAMES_PER_SECOND), 0.0)


def _describe(error: Exception) -> str:
    return (getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__)[:200]


def _geometry(frame: Any, stream: Any, size: int) -> Geometry:
    aspect = Fraction(stream.sample_aspect_ratio or 1)
    width, height = Fraction(frame.width), Fraction(frame.height)
    if _LEAST_PIXEL_ASPECT <= aspect <= _MOST_PIXEL_ASPECT:
        width *= aspect
    quarter_turns = round(frame.rotation / 90) % 4
    if quarter_turns % 2 == 1:
        width, height = height, width
    scale = min(Fraction(1), Fraction(size) / min(width, height))
    return Geometry(
        source_width=round(width),
        source_height=round(height),
        width=_scaled_length(width, scale),
        height=_scaled_length(height, scale),
        quarter_turns=quarter_turns,
    )


def _scaled_length(length: Fraction, scale: Fraction) -> int:
    """The nearest even number of pixels, as 4:2:0 needs, but never more than the source has (or 2)."""
    return max(2, min(2 * round(length * scale / 2), int(length) // 2 * 2))


def _turn_planes(picture: np.ndarray, width: int, height: int, quarter_turns: int) -> np.ndarray:
    planes = [np.rot90(plane, quarter_turns) for plane in split_planes(picture, width, height)]
    turned_width = planes[0].shape[1]
    return np.concatenate([plane.reshape(-1) for plane in planes]).reshape(-1, turned_width)


def split_planes(picture: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Views of the planes of an I420 picture: luma (height, width), two chroma (height / 2, width / 2)."""
    flat = picture.reshape(-1)
    luma, chroma = width * height, width * height // 4
    bounds = itertools.pairwise((0, luma, luma + chroma, luma + 2 * chroma))
    y, u, v = (flat[start:end] for start, end in bounds)
    half = (height // 2, width // 2)
    return y.reshape(height, width), u.reshape(half), v.reshape(half)
