"""When pictures are shown, in seconds from a file's zero: what packets and frames say, and what they do not.

Most files say it of each packet. Others say only when packets are decoded (AVI), say it of some packets (MPEG
program streams), begin anew where recordings were joined (transport streams), or their clock runs over: 33
bits of 1/90,000 s last 26.5 hours. The decoder yields frames in the order in which they are shown, and each
is shown for as long as it says: from that follows what a file does not tell.
"""

import heapq
import math
from fractions import Fraction
from typing import Any

import av

_MOST_FRAMES_PER_SECOND = 300
_MAY_BE_JOINED = {"mpegts", "mpeg"}
# Recordings that were joined: the clock goes back, or far on, as FFmpeg makes of one that goes back far. Less
# will do where packets' numbers break off and a keyframe comes: elsewhere pictures may stand still for long,
# and muxers be wrong by some frames.
MOST_SECONDS_BACK, MOST_SECONDS_ON = 0.5, 3600.0
_MOST_SECONDS_ON_AT_A_MARK = 10.0
# A recording begins with a keyframe. What other packets of another time there are is left over: FFmpeg keeps
# the last packet of an id that is not used any more to the end of the file.
_MOST_PACKETS_ASTRAY = 300


def frames_per_second(stream: Any) -> float:
    """The source's mean rate; 0 where the file gives none or the rate of its clock (1000 in Matroska)."""
    rates = (stream.average_rate, stream.guessed_rate)
    return next((float(rate) for rate in rates if rate and rate <= _MOST_FRAMES_PER_SECOND), 0.0)


class Clock:
    """The time of each packet and frame of one reading of a stream, from front to back.

    `origin_seconds` is the file's zero on its own clock: players and subtitles count from there, not from the
    first picture. `may_be_joined` is of formats of which files are joined as bytes, `is_joined` says whether
    the clock has begun anew, and `has_fields` whether packets are single fields.
    """

    def __init__(self, container: Any, stream: Any) -> None:
        self._stream = stream
        self._time_base = Fraction(stream.time_base)
        self._tick_seconds = float(self._time_base)
        fps = frames_per_second(stream)
        self._frame_seconds = 1 / fps if fps else 0.0
        formats = set(container.format.name.split(","))
        is_new = stream.codec_context.name in ("h264", "hevc")
        self._counts = bool(
            (formats & {"avi", "asf"} and (is_new or stream.codec_context.has_b_frames))
            or (formats & {"mxf"} and is_new)
            or formats & {"h264", "hevc", "mpegvideo"}
        )
        self._counts_shown = "mxf" in formats  # some tell when packets are shown, some when they are decoded
        self._is_program_stream = "mpeg" in formats
        self.may_be_joined = bool(formats & _MAY_BE_JOINED)
        self.origin_seconds = origin_seconds(container, stream)
        common = math.lcm(self._time_base.denominator, self.origin_seconds.denominator)
        self._ticks = (int(self._time_base * common), int(self.origin_seconds * common), common)
        self.is_joined = False
        self._shift = 0  # in ticks, of what comes after a joint
        self._next_dts: int | None = None
        self._num_astray = 0
        self._num_since_mark = 3
        self._lacks_some = False
        self.has_fields = False
        self._last_seconds: float | None = None
        self._counted: list[float] = []  # a heap: times of the packets whose frames are still to come

    @property
    def tells_all(self) -> bool:
        """Whether each packet so far says when its frame is shown, so that others can be left out."""
        return not (self._counts or self._is_program_stream or self._lacks_some or self.has_fields)

    def follow(self, packet: Any) -> bool:
        """Note the next packet of the file; where the clock began anew, move its times on.

        False for a packet that is astray: of another time, and none with which a recording can begin.
        """
        if packet.pts is None:
            self._lacks_some = self._lacks_some or bool(packet.size)
        # Single fields, two to a frame: which two make one, the decoder knows.
        if self._stream.codec_context.field_order > 1 and packet.duration:  # 0 is unknown, 1 progressive
            is_half = packet.duration * self._tick_seconds < 0.75 * self._frame_seconds
            self.has_fields = self.has_fields or is_half
        if not self.may_be_joined or packet.dts is None:
            return True
        if self._next_dts is not None:
            most_back, most_on = MOST_SECONDS_BACK, MOST_SECONDS_ON
            if packet.is_keyframe and self._num_since_mark <= 2:
                most_back, most_on = 0.9 * self._frame_seconds, _MOST_SECONDS_ON_AT_A_MARK
            step = (packet.dts + self._shift - self._next_dts) * self._tick_seconds
            if not -most_back <= step < most_on:
                self._num_astray += 1
                if not packet.is_keyframe and self._num_astray <= _MOST_PACKETS_ASTRAY:
                    return False
                self._shift, self.is_joined = self._next_dts - packet.dts, True
        self._num_astray = 0
        self._num_since_mark = 1 if packet.is_corrupt else self._num_since_mark + 1
        if self._shift:
            packet.dts += self._shift
            if packet.pts is not None:
                packet.pts += self._shift
        self._next_dts = packet.dts + round(self.length_seconds(packet) / self._tick_seconds)
        return True

    def sends(self, packet: Any) -> None:
        """Note a packet that the decoder is given now."""
        ticks = packet.pts if self._counts_shown else packet.dts
        if self._counts and packet.size and ticks is not None:
            heapq.heappush(self._counted, self.seconds(ticks))

    def seconds(self, pts: int) -> float:
        """Of a time in ticks of the stream."""
        scale, origin, common = self._ticks  # integers: `Fraction` here would cost 5% of the whole stage
        return (pts * scale - origin) / common

    def packet_seconds(self, packet: Any) -> float | None:
        """When a packet's frame is shown; None where the packet does not tell."""
        return None if packet.pts is None or self._counts else self.seconds(packet.pts)

    def packet_end_seconds(self, packet: Any) -> float | None:
        """Where the frame of a packet ends, that of a counted packet at its place in the file."""
        ticks = packet.dts if self._counts else None if packet.is_discard else packet.pts
        if ticks is None:
            return None
        return self.seconds(ticks) + self.length_seconds(packet)

    def frame_seconds(self, frame: Any) -> float:
        """When a frame is shown, the one that the decoder yields next.

        In AVI packets carry times in the order of decoding, and FFmpeg makes of 0 1 2 3 4 of the packets
        1 2 4 3 6 of the frames. These come out in the order of showing: the first has the first time. In
        program streams FFmpeg makes up what is not there, now and then smaller times than it gave before.
        """
        seconds = None if frame.pts is None else self.seconds(frame.pts)
        if self._counts and self._counted:
            seconds = heapq.heappop(self._counted)
        last = self._last_seconds
        if seconds is None or (self._is_program_stream and last is not None and seconds <= last):
            seconds = 0.0 if last is None else last + self.length_seconds(frame)
        self._last_seconds = seconds
        return seconds

    def length_seconds(self, picture: Any) -> float:
        """How long a packet's picture, or a frame, is shown; 0 where nothing tells."""
        return picture.duration * self._tick_seconds if picture.duration else self._frame_seconds


def origin_seconds(container: Any, stream: Any) -> Fraction:
    """The file's zero on its own clock; `stream` is that of its pictures."""
    origin = Fraction(container.start_time or 0, av.time_base)
    # Where a clock runs over in the first hours, FFmpeg has it begin below zero. Elsewhere sound that begins
    # there warms up its decoder, and is not heard.
    if not _MAY_BE_JOINED.intersection(container.format.name.split(",")):
        origin = max(Fraction(0), origin)
    # The container's start is in whole microseconds: a picture at 1.4333 s would be shown before zero.
    start = origin if stream.start_time is None else stream.start_time * Fraction(stream.time_base)
    return start if 0 < origin - start <= Fraction(1, av.time_base) else origin
