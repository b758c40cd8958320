"""The sound of a video as samples, in pieces that each say where on the file's clock they begin.

What hears it must give times that fit the pictures. Sound may begin later than they do, and have gaps where
packets were lost: players leave these silent, and a reader that joins what is there gets ahead of them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from clipvip.media.clock import MOST_SECONDS_BACK, MOST_SECONDS_ON, origin_seconds
from clipvip.media.container import UnreadableVideo, open_container

# Less is the jitter of clocks, or a decoder that warms up.
_LEAST_GAP_SECONDS = 0.1
# A longer gap is no silence within a piece, but between two.
_MOST_SILENCE_SECONDS = 10.0
# A piece ends at its quietest moment among so many last seconds.
_QUIET_WITHIN_SECONDS = 20.0
_QUIET_SECONDS = 0.1


class UnreadableSound(UnreadableVideo):
    """No sound of a file can be had; `reason` is `no_sound` or `undecodable_sound`."""


@dataclass(frozen=True, slots=True)
class Sound:
    """A piece of mono sound: float32 samples from -1 to 1, the first of them `start_seconds` from zero."""

    start_seconds: float
    samples: np.ndarray


@dataclass
class Damage:
    """How many packets of sound did not decode; they are left silent."""

    num_packets: int = 0


def read_sound(
    path: Path | str,
    *,
    rate: int,
    piece_seconds: float,
    damage: Damage | None = None,
    heartbeat: Callable[[], None] = lambda: None,
) -> Iterator[Sound]:
    """Yield the first stream of sound at `rate` samples a second, in pieces of at most about `piece_seconds`.

    Times count from where those of pictures do. In memory are two pieces at most. `heartbeat` is called for
    each packet, `damage` counts those that do not decode.

    Raises UnreadableVideo as `open_container`; UnreadableSound where there is no sound, or none decodes.
    """
    container, pictures = open_container(str(Path(path).absolute()))
    damage = Damage() if damage is None else damage
    with container:
        if not container.streams.audio:
            raise UnreadableSound("no_sound", "has no stream of sound")
        stream = container.streams.audio[0]
        if stream.codec_context is None:
            raise UnreadableSound("undecodable_sound", "no decoder for the codec of its sound")
        cutter = _Cutter(rate, piece_seconds)
        origin = origin_seconds(container, pictures)
        has_some = False
        for seconds, samples in _decoded(container, stream, rate, origin, damage, heartbeat):
            has_some = True
            yield from cutter.add(seconds, samples)
        if not has_some:
            raise UnreadableSound("undecodable_sound", f"none of {damage.num_packets} packets decodes")
        yield from cutter.rest()


def _decoded(
    container: Any, stream: Any, rate: int, origin: Fraction, damage: Damage, heartbeat: Callable[[], None]
) -> Iterator[tuple[float | None, np.ndarray]]:
    """Time, where a frame has one, and samples of each frame."""
    resampler: Any = None
    form: tuple[object, ...] = ()
    for frame in _frames(container, stream, damage, heartbeat):
        seconds = None if frame.pts is None else float(frame.pts * frame.time_base - origin)
        if form != (form := (frame.format.name, frame.layout.name, frame.sample_rate)):
            resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
        frame.pts = None  # times are kept here, the resampler is strict about them
        try:
            samples = [part.to_ndarray()[0] for part in resampler.resample(frame)]
        except (av.FFmpegError, ValueError):  # damage may make frames of a form that no sound has
            damage.num_packets, form = damage.num_packets + 1, ()
            continue
        yield seconds, _joined(samples)
    if form:
        yield None, _joined([part.to_ndarray()[0] for part in resampler.resample(None)])


def _joined(samples: Sequence[np.ndarray]) -> np.ndarray:
    """One array of finite samples, which damaged ones need not be."""
    joined = np.concatenate(samples) if samples else np.zeros(0, np.float32)
    return np.clip(np.nan_to_num(joined), -1, 1)


def _frames(container: Any, stream: Any, damage: Damage, heartbeat: Callable[[], None]) -> Iterator[Any]:
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.FFmpegError, ValueError):  # the file is damaged from here on
            damage.num_packets += 1
            return
        heartbeat()
        try:
            yield from packet.decode()
        except (av.FFmpegError, ValueError):
            damage.num_packets += 1


class _Cutter:
    """Puts samples to their times: gaps become silence, and long ones and long pieces make new pieces."""

    def __init__(self, rate: int, piece_seconds: float) -> None:
        self._rate = rate
        self._most = round(piece_seconds * rate)
        self._parts: list[np.ndarray] = []
        self._size = 0
        self._start = 0  # of the piece, in samples from zero
        self._shift = 0  # of what comes after a joint

    def add(self, seconds: float | None, samples: np.ndarray) -> Iterator[Sound]:
        """Take the samples from that time on, or those that follow; yields pieces that are complete."""
        now = self._start + self._size
        if seconds is not None:
            ahead = round(seconds * self._rate) + self._shift - now
            goes_on = -MOST_SECONDS_BACK * self._rate < ahead < MOST_SECONDS_ON * self._rate
            if self._size and not goes_on:  # recordings were joined: the sound goes on
                self._shift -= ahead
            elif ahead >= _LEAST_GAP_SECONDS * self._rate:
                yield from self._leave_out(ahead)
            elif ahead <= -_LEAST_GAP_SECONDS * self._rate or not now:
                samples = samples[max(0, -ahead) :]  # before zero, or twice there
        self._append(samples)
        while self._size >= self._most:
            yield self._cut(self._quiet_place())

    def rest(self) -> Iterator[Sound]:
        """The piece that was not full."""
        if self._size:
            yield self._cut(self._size)

    def _leave_out(self, count: int) -> Iterator[Sound]:
        if count <= _MOST_SILENCE_SECONDS * self._rate:
            self._append(np.zeros(count, np.float32))
            return
        yield from self.rest()
        self._start += count

    def _append(self, samples: np.ndarray) -> None:
        self._parts.append(samples)
        self._size += len(samples)

    def _cut(self, place: int) -> Sound:
        samples = np.concatenate(self._parts)
        piece = Sound(self._start / self._rate, samples[:place])
        self._start, self._size, self._parts = self._start + place, self._size - place, [samples[place:]]
        return piece

    def _quiet_place(self) -> int:
        """Where to cut a full piece: in the middle of the quietest tenth of a second near its end."""
        samples = np.concatenate(self._parts)
        self._parts = [samples]
        step = round(_QUIET_SECONDS * self._rate)
        first = max(0, self._most - round(_QUIET_WITHIN_SECONDS * self._rate), self._most // 2)
        steps = samples[first : first + (self._most - first) // step * step].reshape(-1, step)
        return first + step * int(np.square(steps).sum(1).argmin()) + step // 2
