"""The frames of one clip as an MP4 file in memory, for shards made with `--store video`."""

import io
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from clipvip.media.decode import Video, open_video
from clipvip.media.errors import MediaError, one_line
from clipvip.media.hdr import Transfer
from clipvip.media.pictures import quarter_turns, require_pixels, split_planes

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
        # x264 reads rows 64 bytes at a time, also past their end, and what it finds there changes what it
        # codes: equal pictures gave other files. So it gets whole rows, of 324 pixels 384, and is told to
        # have 60 cut off.
        self._padding = (-height % 16, -width % 64)
        options = {**_CODEC_OPTIONS, "crf": str(crf)}
        if any(self._padding):
            options["x264-params"] = f"crop-rect=0,0,{self._padding[1]},{self._padding[0]}"
        self._stream = self._container.add_stream("libx264", rate=rate, options=options)
        self._stream.width, self._stream.height = width + self._padding[1], height + self._padding[0]
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = _TIME_BASE

    def add(self, picture: np.ndarray, seconds: float) -> None:
        """Add a full-range I420 picture, uint8 (height * 3 // 2, width), shown `seconds` into the clip."""
        frame = av.VideoFrame.from_ndarray(self._whole_rows(picture), format="yuvj420p")
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

    def _whole_rows(self, picture: np.ndarray) -> np.ndarray:
        """The picture, each of its planes filled up by its last row and column as `_padding` says."""
        if not any(self._padding):
            return np.ascontiguousarray(picture)
        height, width = len(picture) * 2 // 3, picture.shape[1]
        filled = [
            np.pad(plane, [(0, missing * len(plane) // height) for missing in self._padding], mode="edge")
            for plane in split_planes(picture, width, height)
        ]
        return np.concatenate([plane.reshape(-1) for plane in filled]).reshape(-1, width + self._padding[1])

    def finish(self) -> bytes:
        """The whole file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._file.getvalue()


def decode_mp4(data: bytes, indices: list[int], *, max_pixels: int) -> np.ndarray:
    """The frames at `indices`, as shown, of an MP4 file: uint8 (len(indices), height, width, 3), RGB.

    Only those runs between keyframes are decoded in which one is wanted. By PyAV: decord is as fast, but
    gives wrong pictures of damaged files without a word. Raises MediaError where it is no MP4 file, is
    damaged where it is wanted, has fewer frames, or larger ones than `max_pixels`.
    """
    with open_video(io.BytesIO(data)) as video:
        require_pixels(video.stream.codec_context, max_pixels)
        times, leave_out = _times_of(video)
        if max(indices) >= len(times):
            raise MediaError(f"holds {len(times)} frames that have a time, frame {max(indices)} is wanted")
        try:
            wanted = [times[index] for index in indices]
            return video.pictures_at(wanted, leave_out=leave_out, max_pixels=max_pixels)
        except MediaError:
            raise
        except MemoryError as error:
            raise MediaError("its frames do not fit in memory") from error
        except ValueError as error:  # numpy's
            raise MediaError(f"its frames are of several sizes ({one_line(error)})") from error


@dataclass(frozen=True, slots=True)
class Mp4Facts:
    """What a whole MP4 file is: the time of each frame and of its end, and the size of frames as shown.

    `transfer` is of HDR, whose pictures come tone-mapped.
    """

    frame_seconds: list[float]
    end_seconds: float
    width: int
    height: int
    fps: float
    transfer: Transfer | None


def describe_mp4(data: bytes, *, max_pixels: int) -> Mp4Facts:
    """The facts of an MP4 file that others made, of which one frame at least is decoded.

    Raises MediaError where it is no MP4 file, damaged or without frames, or they have more than `max_pixels`.
    """
    with open_video(io.BytesIO(data)) as video:
        require_pixels(video.stream.codec_context, max_pixels)
        times, _ = _times_of(video)
        video.rewind()
        first = next(video.frames(), None)
        if first is None or not times:
            raise MediaError(video.damage or "no frame of it decodes")
        frame = first[1]
        width, height = (frame.width, frame.height)[:: -1 if quarter_turns(frame) % 2 else 1]
        lengths = [later - earlier for earlier, later in pairwise(times)]
        length = 1 / video.fps if video.fps else max(lengths, default=0.0)
        return Mp4Facts(times, times[-1] + length, width, height, video.fps, video.transfer)


def _times_of(video: Video) -> tuple[list[float], bool]:
    """The time of each frame, in order, and whether each packet is one frame, so that some can be left out.

    Files of others may hold packets that are not to be shown; of these all frames are decoded.
    """
    packets = video.packets()
    if packets is not None:
        return sorted(seconds for seconds, _ in packets), True
    video.rewind()
    times = [seconds for seconds, _ in video.frames()]
    if video.damage:
        raise MediaError(video.damage)
    return times, False
