"""Open a video that others made: which formats and protocols are allowed, and what its header says."""

import io
from fractions import Fraction
from typing import Any

import av

from clipvip.media.errors import MediaError, one_line

# A playlist or script that is named like a video must not make FFmpeg open other files or hosts.
_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,matroska,webm,avi,flv,mpegts,mpeg,mpegvideo,asf,ogg,mxf,rm,wtv,dv,h264,hevc",
}
_MOST_FRAMES_PER_SECOND = 300


class UnreadableVideo(MediaError):
    """No frame of a file can be had; `reason` is `undecodable_video` or `no_video_stream`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def open_container(file: str | io.BytesIO) -> tuple[Any, Any]:
    """The container and its stream of pictures, of a file's absolute path or of an MP4 file in memory.

    Raises UnreadableVideo where it is no video, damaged from the start, or without a stream of pictures.
    """
    if isinstance(file, io.BytesIO):
        file.seek(0)
    form = None if isinstance(file, str) else "mp4"
    try:
        # Tags may have other encodings than UTF-8; nobody reads them here.
        container = av.open(file, format=form, options=_OPTIONS, metadata_errors="replace")
    except (av.FFmpegError, ValueError) as error:
        raise UnreadableVideo("undecodable_video", describe(error)) from error
    attached = av.stream.Disposition.attached_pic  # cover art of a sound file
    candidates = [container.streams.best("video"), *container.streams.video]
    stream = next((s for s in candidates if s is not None and not s.disposition & attached), None)
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


def frames_per_second(stream: Any) -> float:
    """The source's mean rate; 0 where the file gives none or the rate of its clock (1000 in Matroska)."""
    rates = (stream.average_rate, stream.guessed_rate)
    return next((float(rate) for rate in rates if rate and rate <= _MOST_FRAMES_PER_SECOND), 0.0)


def lacks_times(container: Any, stream: Any) -> bool:
    """Whether packets tell only the order of decoding: H.264 and HEVC in AVI or in no container."""
    of_order = {"avi", "h264", "hevc"}.intersection(container.format.name.split(","))
    return bool(of_order) and stream.codec_context.name in ("h264", "hevc")


def has_fields(stream: Any, packet: Any, fps: float) -> bool:
    """Whether packets are single fields, two to a frame: of an interlaced stream, half as long as a frame."""
    is_interlaced = stream.codec_context.field_order > 1  # 0 is unknown, 1 progressive
    return bool(is_interlaced and packet.duration and packet.duration * stream.time_base * fps < 0.75)


def origin_seconds(container: Any, stream: Any) -> Fraction:
    """The file's zero on its own clock: players and subtitles count from there, not from the picture."""
    origin = max(Fraction(0), Fraction(container.start_time or 0, av.time_base))
    # The container's start is in whole microseconds: a picture at 1.4333 s would be shown before zero.
    start = origin if stream.start_time is None else stream.start_time * Fraction(stream.time_base)
    return start if 0 < origin - start <= Fraction(1, av.time_base) else origin


def is_idr(packet: Any) -> bool:
    """Whether decoding H.264 in MP4 can begin here, with no later picture built on an earlier one.

    Other keyframes, those of open groups of pictures and of periodic intra refresh, look alike in the index.
    """
    data, place = bytes(packet), 0
    while place + 4 < len(data):
        kind = data[place + 4] & 31
        if kind in (1, 5):  # pictures: 5 is IDR; before them come parameters and messages
            return kind == 5
        place += 4 + int.from_bytes(data[place : place + 4], "big")
    return False


def describe(error: Exception) -> str:
    """What went wrong, in one line."""
    return (getattr(error, "strerror", None) or one_line(error))[:200]
