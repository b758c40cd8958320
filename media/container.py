"""Open a video that others made: which formats and protocols are allowed, and what its header says."""

import io
from typing import Any

import av

from clipvip.media.errors import MediaError, one_line

# A playlist or script that is named like a video must not make FFmpeg open other files or hosts.
_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,matroska,webm,avi,flv,mpegts,mpeg,mpegvideo,asf,ogg,mxf,rm,wtv,dv,h264,hevc",
    # Where a transport stream goes on under other packet ids, as recordings that were joined, it is the same.
    "merge_pmt_versions": "1",
}
# Tags may have other encodings than UTF-8; nobody reads them here. PyAV 19 takes all of them as they are.
ANY_TAGS: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


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
        container = av.open(file, format=form, options=_OPTIONS, **ANY_TAGS)
    except av.ArgumentError as error:  # what FFmpeg says is "Invalid argument"
        raise UnreadableVideo("undecodable_video", "a playlist or another format that is not read") from error
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
