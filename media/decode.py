"""Decode a video from front to back: frames with their times. All pictures of videos come from here.

PyAV decodes here rather than decord: of 28 real files that can be read, decord 0.6 refused two (AV1, no
duration in the header), gave a third eight frames too many (VP9), and gave two times that start at the first
frame instead of at the file's zero, 0.8 s off the subtitles; at equal CPU time.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from clipvip.media.clock import Clock, frames_per_second
from clipvip.media.container import describe, is_idr, open_container
from clipvip.media.errors import MediaError
from clipvip.media.hdr import Transfer, transfer_of
from clipvip.media.losses import Losses
from clipvip.media.packets import Step, plan_steps
from clipvip.media.pictures import Geometry, geometry_of, require_pixels, scale, upright_rgb

_NOT_SCALED = 1 << 40
# Fewer than these behind the start of an unknown stream, and the pictures go on in that.
_PICTURES_GO_ON_SECONDS = 1.0
# (time of the frame before, its own time, time of the next frame) -> whether a frame is of use
Needed = Callable[[float, float, float], bool]


class _Damage(Exception):
    """Frames from here on cannot be trusted."""


class _NotAKeyframe(Exception):
    """Frames are missing after packets were left out, which a keyframe should have made good."""


class Video:
    """An open video file; `open_video` makes one.

    After `frames` has ended, `end_seconds` is where the last frame ends, and `damage` says what stopped it;
    it is empty at a proper end. All needed frames before `passed_seconds` have been yielded, or are lost:
    `follows_loss` says that some are missing before the frame that was yielded last, or before the end.
    """

    def __init__(self, file: str | io.BytesIO, *, size: int = _NOT_SCALED) -> None:
        self._file = file
        self._size = size
        self._reformatter = VideoReformatter()
        self.geometry: Geometry | None = None  # known from the first frame on, as is `transfer`
        self.transfer: Transfer | None = None  # of HDR, whose pictures come tone-mapped
        self._open()
        self.fps = frames_per_second(self.stream)

    def _open(self) -> None:
        self.container, self.stream = open_container(self._file)
        self._clock = Clock(self.container, self.stream)
        self._losses = Losses()
        self.follows_loss = False
        self.end_seconds = self.passed_seconds = 0.0
        self.damage = ""
        self._sound_end_seconds = 0.0

    def rewind(self) -> None:
        """Back to the start of the file, as if nothing had been read."""
        self.close()
        self._open()

    def close(self) -> None:
        self.container.close()

    def packets(self) -> list[tuple[float, bool]] | None:
        """(presentation time in seconds, `is_open`) of each packet, in the order of the file.

        `is_open` is a keyframe of H.264 at which decoding cannot begin, as on all keyframes of other codecs.
        None where packets may not be one frame each: times are missing or equal, or something is damaged or
        not to be shown. Reads the file to its end: `rewind` before reading on.
        """
        found: list[tuple[float, bool]] = []
        try:
            for packet in self._packets():
                if not packet.size:
                    continue
                if packet.pts is None or packet.is_corrupt or packet.is_discard:
                    return None
                is_open = (packet.is_keyframe or not found) and not is_idr(packet)
                found.append((self._clock.seconds(packet.pts), is_open))
        except (_Damage, av.FFmpegError, ValueError):
            return None
        is_told = self._clock.tells_all and len({seconds for seconds, _ in found}) == len(found)
        return found if is_told else None

    def frames(self, needed: Needed = lambda *times: True) -> Iterator[tuple[float, Any]]:
        """Yield (presentation time in seconds, still unscaled frame) with strictly rising times.

        Where `needed(time of the frame before, its time, time of the next)` is false the frame may be
        missing, which saves its decoding where no needed frame is built on it: a third of the work in usual
        H.264, and all that lies between clips. The first frame always comes. Ends at the first damage: what
        follows is guesswork.
        """
        last_seconds = -1.0

        def is_needed(previous: float, seconds: float, following: float) -> bool:
            is_asked = needed(previous, seconds, following)
            return is_asked or self.geometry is None or not self._clock.tells_all

        for seconds, frame in self._undamaged_frames(is_needed):
            if seconds <= last_seconds:
                continue
            last_seconds = seconds
            if not self._clock.tells_all:
                self.end_seconds = max(self.end_seconds, seconds + self._clock.length_seconds(frame))
            self._note_losses()
            if self.geometry is None:
                self.geometry = geometry_of(frame, self.stream.sample_aspect_ratio, self._size)
                self.transfer = transfer_of(frame)
            yield seconds, frame
        self._note_losses()
        if not self.damage:
            self.damage = self._missing_end()

    def _note_losses(self) -> None:
        self.follows_loss, self._losses.have_been = self._losses.have_been, False

    def pictures_at(
        self, times: Sequence[float], *, leave_out: bool = True, max_pixels: int | None = None
    ) -> np.ndarray:
        """The pictures at exactly these times, in any order: uint8 (len(times), height, width, 3), RGB.

        With `leave_out` what none of them is built on is hardly decoded; each packet must then be a frame.
        Raises MediaError where one of them does not decode, or has more than `max_pixels` pixels.
        """
        self.rewind()
        wanted, found = set(times), dict[float, np.ndarray]()
        for seconds, frame in self.frames(lambda before, seconds, after: seconds in wanted or not leave_out):
            if seconds in wanted:
                require_pixels(frame, max_pixels)
                found[seconds] = upright_rgb(frame)
            if len(found) == len(wanted):
                return np.stack([found[seconds] for seconds in times])
        raise MediaError(self.damage or "a wanted frame does not decode")

    def _undamaged_frames(self, needed: Needed) -> Iterator[tuple[float, Any]]:
        try:
            try:
                yield from self._decode(needed, may_leave_out=True)
            except _NotAKeyframe:
                self.rewind()
                yield from self._decode(needed, may_leave_out=False)
        except _Damage as damage:
            self.damage = str(damage)
        except (av.FFmpegError, ValueError) as error:
            self.damage = describe(error)

    def _decode(self, needed: Needed, *, may_leave_out: bool) -> Iterator[tuple[float, Any]]:
        """Decode what is needed; after packets that were left out, only from a true keyframe on.

        Raises _Damage, av.FFmpegError or ValueError where the file is damaged, _NotAKeyframe where decoding
        cannot begin at what the file calls a keyframe.
        """
        context = self.stream.codec_context
        check = _FrameCheck(self._clock.seconds)
        left_out_seconds = 0.0
        for step in plan_steps(self._packets(), needed, self._clock.packet_seconds, may_leave_out):
            packet = step.packet
            if not step.is_decoded:
                left_out_seconds = max(left_out_seconds, step.seconds or 0.0)
                self._note_end(packet)
                continue
            if step.begins_anew:
                yield from self._usable(context.decode(None), check)
                yield from check.usable(self._losses.rest())
                self._losses.begin_anew(packet.pts)
                check.require_nothing_awaited()
                context.flush_buffers()
                self.passed_seconds, check.awaited_seconds = left_out_seconds, step.seconds
            is_needed = step.is_needed or step.begins_anew or step.is_incomplete
            context.skip_frame = "DEFAULT" if is_needed else "NONREF"
            yield from self._usable(self._decoded(step), check)
            if packet.is_corrupt and not self._clock.may_be_joined and check.num_clean:
                raise _Damage("an incomplete packet")
            self._note_end(packet)
        yield from check.usable(self._losses.rest())
        check.require_nothing_awaited()
        self.passed_seconds = left_out_seconds

    def _decoded(self, step: Step) -> list[Any]:
        """The frames that come out of the decoder when it is given this packet."""
        self._clock.sends(step.packet)
        if self._clock.may_be_joined:
            self._losses.sends(step, has_fields=self._clock.has_fields)
        try:
            return step.packet.decode()
        except av.InvalidDataError:
            if not self._losses.are_watched:
                raise
            return []

    def _usable(self, frames: list[Any], check: "_FrameCheck") -> Iterator[tuple[float, Any]]:
        for frame in frames:
            seconds = self._clock.frame_seconds(frame)
            yield from check.usable(self._losses.passes(seconds, frame))

    def _packets(self) -> Iterator[Any]:
        """The packets of the pictures; where these have no length of their own, the end of sound is noted."""
        sound = () if self.stream.duration is not None else self.container.streams.audio
        last, last_known, is_read = None, None, False
        while not is_read:
            try:
                for packet in self.container.demux(self.stream, sound):
                    if packet.stream.index == self.stream.index:
                        if not self._clock.follow(packet):
                            continue
                        yield packet
                        last = packet if packet.size else last
                    elif packet.pts is not None:
                        end = (packet.pts + (packet.duration or 0)) * packet.time_base
                        end_seconds = float(end - self._clock.origin_seconds)
                        self._sound_end_seconds = max(self._sound_end_seconds, end_seconds)
                is_read = True
            except IndexError:  # a stream of which PyAV does not know; without it, it reads on
                last_known = last_known or last
        if last_known is not None:
            end, known_end = (self._clock.packet_end_seconds(packet) or 0.0 for packet in (last, last_known))
            if end < known_end + _PICTURES_GO_ON_SECONDS:
                raise _Damage("a stream that begins in the middle of the file")

    def _note_end(self, packet: Any) -> None:
        """The video lasts at least to the end of this packet's frame."""
        seconds = self._clock.packet_end_seconds(packet) if packet.size else None
        self.end_seconds = max(self.end_seconds, seconds or 0.0)

    def _missing_end(self) -> str:
        """What a file that just stops short of its header's length is missing."""
        found_seconds = self.end_seconds
        if self._clock.is_joined:
            return ""
        if self.stream.duration is not None:
            # These two say where the file ends on its own clock, not for how long it lasts.
            is_end = self.container.format.name in ("asf", "wtv")
            start = 0 if is_end else self.stream.start_time or 0
            header_end = (start + self.stream.duration) * self.stream.time_base
        elif self.container.duration is not None:
            # Of the whole file, whose sound may be longer than its pictures.
            header_end = Fraction(self.container.duration, av.time_base)
            found_seconds = max(found_seconds, self._sound_end_seconds)
        else:
            return ""
        header_seconds = float(header_end - self._clock.origin_seconds)
        if header_seconds <= found_seconds + 1:
            return ""
        return f"the pictures end at {self.end_seconds:.2f} s of {header_seconds:.2f} s"

    def scale(self, frame: Any) -> np.ndarray:
        """A frame that `frames` has yielded, as it is stored. As `pictures.scale`."""
        assert self.geometry is not None, "scale() is for frames that frames() has yielded"
        return scale(frame, self.geometry, self._reformatter)


class _FrameCheck:
    """Which of the frames that come out of the decoder can be used."""

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self._seconds = seconds
        self.num_clean = 0
        self.awaited_seconds: float | None = None  # of the keyframe at which decoding began anew

    def usable(self, timed: Iterable[tuple[float, Any]]) -> Iterator[tuple[float, Any]]:
        """Raises _Damage, _NotAKeyframe."""
        return ((seconds, frame) for seconds, frame in timed if self._is_usable(frame))

    def _is_usable(self, frame: Any) -> bool:
        if self.awaited_seconds is not None:
            seconds = self.awaited_seconds if frame.pts is None else self._seconds(frame.pts)
            if seconds < self.awaited_seconds:
                return False
            if seconds > self.awaited_seconds or not frame.key_frame or frame.is_corrupt:
                raise _NotAKeyframe
            self.awaited_seconds = None
        # A file cut without re-encoding may begin with frames whose references were cut away.
        if frame.is_corrupt and self.num_clean:
            raise _Damage("a damaged frame")
        self.num_clean += not frame.is_corrupt
        return not frame.is_corrupt

    def require_nothing_awaited(self) -> None:
        """Raises _NotAKeyframe: the keyframe's picture has not come."""
        if self.awaited_seconds is not None:
            raise _NotAKeyframe


@contextmanager
def open_video(file: Path | str | io.BytesIO, *, size: int = _NOT_SCALED) -> Iterator[Video]:
    """Open a file, or an MP4 file in memory, for decoding. Raises as `open_container`.

    `Video.scale` scales its pictures to a short side of `size` pixels, never up.
    """
    # An absolute path cannot be taken for the name of a protocol.
    video = Video(file if isinstance(file, io.BytesIO) else str(Path(file).absolute()), size=size)
    try:
        yield video
    finally:
        video.close()
