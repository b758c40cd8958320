"""Videos of which a test knows each picture and its time, since it wrote them: picture n shows the number n.

A number is burnt in as black and white squares, each bit a second time inverted, so that a picture that is
damaged, mixed of two, or of another video is not taken for a number.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

_BITS_PER_ROW, _ROWS = 6, 4  # of which the last two rows are the first two, inverted
_BLACK, _WHITE = 16, 235
_LEAST_CONTRAST = 30
SOUND_WARMS_UP_SECONDS = 1024 / 48_000  # AAC: where no edit list hides it, the file begins with it

Shown = list[tuple[float, int]]
"""(time in seconds, number) of each picture, in order of time."""


def burnt_in(number: int, width: int, height: int) -> np.ndarray:
    """uint8 (height, width, 3)."""
    bits = np.array([number >> bit & 1 for bit in range(2 * _BITS_PER_ROW)]).reshape(2, _BITS_PER_ROW)
    cells = np.concatenate([bits, 1 - bits]) * (_WHITE - _BLACK) + _BLACK
    column_of, row_of = np.arange(width) * _BITS_PER_ROW // width, np.arange(height) * _ROWS // height
    return np.repeat(cells[np.ix_(row_of, column_of)].astype(np.uint8)[:, :, None], 3, axis=2)


def shown_number(picture: np.ndarray) -> int:
    """The number that a picture of any size shows; -1 if it shows none clearly."""
    height, width = picture.shape[:2]
    grey = picture.astype(float).mean(2)
    cells = np.empty((_ROWS, _BITS_PER_ROW))
    for row, column in np.ndindex(cells.shape):
        rows = slice(int((row + 0.3) * height / _ROWS), int((row + 0.7) * height / _ROWS) + 1)
        columns = slice(
            int((column + 0.3) * width / _BITS_PER_ROW), int((column + 0.7) * width / _BITS_PER_ROW) + 1
        )
        cells[row, column] = grey[rows, columns].mean() - 128
    bits = cells > 0
    if (np.abs(cells) < _LEAST_CONTRAST).any() or (bits[:2] == bits[2:]).any():
        return -1
    return sum(1 << place for place, bit in enumerate(bits[:2].reshape(-1)) if bit)


@dataclass(frozen=True)
class Known:
    """How a video is written. `times` are in seconds, by default those of an even rate.

    `clock_seconds` is added to all times behind the encoder, `hidden` is how many pictures an edit list
    hides, `parts` into how many files the pictures are divided that are then joined as bytes, each with a
    clock of its own if `restarts`.
    """

    codec: str = "libx264"
    rate: int | Fraction = 25
    num_frames: int = 110
    times: Sequence[Fraction] = ()
    options: dict[str, str] = field(default_factory=dict)
    even_clock: bool = False  # the encoder's clock ticks once a frame, as some need it
    pixels: str = "yuv420p"
    size: tuple[int, int] = (160, 96)
    container: str | None = None
    container_options: dict[str, str] = field(default_factory=dict)
    sound_seconds: float = 0.0
    clock_seconds: Fraction = Fraction(0)
    hidden: int = 0
    parts: int = 1
    restarts: bool = False

    @property
    def written(self) -> list[Fraction]:
        return list(self.times) or [n / Fraction(self.rate) for n in range(self.num_frames)]

    @property
    def shown(self) -> Shown:
        """What is to be seen, in seconds from the first picture that is not hidden."""
        zero = self.written[self.hidden]
        return [(float(t - zero), n) for n, t in enumerate(self.written) if n >= self.hidden]


def write_known(path: Path, known: Known) -> Path:
    if known.parts == 1:
        _write(path, known, range(len(known.written)))
        return path
    size = math.ceil(len(known.written) / known.parts)
    data = b""
    for start in range(0, len(known.written), size):
        part = path.with_name(f"part-{path.name}")
        _write(part, known, range(start, min(start + size, len(known.written))))
        data += part.read_bytes()
    path.write_bytes(data)
    return path


def _write(path: Path, known: Known, numbers: range) -> None:
    with av.open(str(path), "w", format=known.container, container_options=known.container_options) as file:
        options = {"threads": "1", **known.options}
        stream: Any = file.add_stream(known.codec, rate=known.rate, options=options)
        (stream.width, stream.height), stream.pix_fmt = known.size, known.pixels
        tick = 1 / Fraction(known.rate) if known.even_clock else Fraction(1, 90_000)
        stream.codec_context.time_base = tick
        sound: Any = file.add_stream("aac", rate=48_000) if known.sound_seconds else None
        zero = known.written[numbers.start] if known.restarts else Fraction(0)

        def mux(packets: list[Any]) -> None:
            for packet in packets:
                seconds = known.clock_seconds - (known.written[known.hidden] if known.hidden else 0)
                packet.pts += round(seconds / packet.time_base)
                packet.dts += round(seconds / packet.time_base)
                file.mux(packet)

        for number in numbers:
            picture = av.VideoFrame.from_ndarray(burnt_in(number, *known.size), format="rgb24")
            picture.pts, picture.time_base = round((known.written[number] - zero) / tick), tick
            mux(stream.encode(picture))
        mux(stream.encode(None))
        if sound is not None:
            _add_silence(file, sound, known.sound_seconds)


def _add_silence(file: Any, sound: Any, seconds: float) -> None:
    for start in range(0, int(seconds * 48_000), 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 48_000, start
        file.mux(sound.encode(frame))
    file.mux(sound.encode(None))


def expected_frames(shown: Shown, span: tuple[float, float], fps: float) -> Shown:
    """What docs/format.md has a clip of `span` hold, of a video that shows that."""
    start, end = span
    inside = [(t, n) for t, n in shown if start - 1e-6 <= t < end - 1e-6]
    chosen: dict[int, tuple[float, int]] = {}
    for seconds, number in inside:
        chosen.setdefault(math.floor((seconds - start + 1e-3) * fps), (seconds, number))
    earlier = [number for t, number in shown if t < start - 1e-6]
    if earlier and (not inside or (inside[0][0] - start > 0.5 and 0 not in chosen)):
        chosen[0] = (start, earlier[-1])
    return [chosen[slot] for slot in sorted(chosen)]
