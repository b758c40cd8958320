"""Videos with sound that tells where it is: a tone in some spans, silence elsewhere."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from make_videos import numbered_picture

RATE = 16_000
_FPS = 5
_FRAME = 800  # samples


def make_talk(
    path: Path,
    *,
    seconds: float = 6.0,
    tones: Sequence[tuple[float, float]] = ((0.0, 6.0),),
    sound_from: float = 0.0,
    lost: tuple[float, float] = (0.0, 0.0),
    rate: int = RATE,
    layout: str = "mono",
    codec: str = "pcm_s16le",
    clock_from: float = 0.0,
) -> Path:
    """A video whose sound has a tone in the spans `tones`, in seconds from the first picture.

    Its sound begins at `sound_from`, and is `lost` within a span. The file's clock begins at `clock_from`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as container:
        pictures: Any = container.add_stream("mpeg4", rate=_FPS)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        pictures.codec_context.time_base = Fraction(1, _FPS)
        sound: Any = container.add_stream(codec, rate=rate, layout=layout)
        sound.codec_context.time_base = Fraction(1, rate)
        for number in range(round(seconds * _FPS)):
            picture = av.VideoFrame.from_ndarray(
                numbered_picture(number, width=64, height=48), format="rgb24"
            )
            picture.pts, picture.time_base = number + round(clock_from * _FPS), Fraction(1, _FPS)
            container.mux(pictures.encode(picture))
        container.mux(pictures.encode(None))
        for first in range(round(sound_from * rate), round(seconds * rate), _FRAME):
            times = (first + np.arange(_FRAME)) / rate
            if lost[0] <= times[0] < lost[1]:
                continue
            is_on = np.any([(start <= times) & (times < end) for start, end in tones], axis=0)
            wave = np.round(8000 * np.sin(2 * np.pi * 440 * times) * is_on).astype(np.int16)
            is_planar = sound.codec_context.format.is_planar
            samples = np.repeat(wave[None], len(layout_of(layout)), axis=0)
            frame = av.AudioFrame.from_ndarray(
                samples if is_planar else samples.T.reshape(1, -1),
                format="s16p" if is_planar else "s16",
                layout=layout,
            )
            frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
            frame.pts = first + round(clock_from * rate)
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    return path


def layout_of(name: str) -> tuple[Any, ...]:
    return av.AudioLayout(name).channels


def damage_middle(path: Path) -> None:
    """Put noise into a quarter of an MP4 file's packets."""
    data = bytearray(path.read_bytes())
    first, end = data.index(b"mdat"), data.index(b"moov")
    size = (end - first) // 4
    data[(first + end) // 2 : (first + end) // 2 + size] = np.random.default_rng(0).bytes(size)
    path.write_bytes(data)
