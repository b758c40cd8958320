"""Small real videos whose every frame shows its own number, so that tests can tell frames apart."""

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

WIDTH, HEIGHT = 160, 96
_COLUMNS, _ROWS = 8, 2  # one bit a cell


def numbered_picture(number: int, *, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """uint8 (height, width, 3): the bits of `number` as black and white cells."""
    bits = np.array([(number >> bit) & 1 for bit in range(_COLUMNS * _ROWS)], np.uint8).reshape(
        _ROWS, _COLUMNS
    )
    cells = bits.repeat(height // _ROWS, 0).repeat(width // _COLUMNS, 1) * 255
    return np.repeat(cells[:, :, None], 3, axis=2)


def read_number(picture: np.ndarray) -> int:
    """The number that a picture (any size) shows."""
    height, width = picture.shape[:2]
    rows = [(2 * row + 1) * height // (2 * _ROWS) for row in range(_ROWS)]
    columns = [(2 * column + 1) * width // (2 * _COLUMNS) for column in range(_COLUMNS)]
    bits = picture[np.ix_(rows, columns)].mean(2).reshape(-1) > 127
    return sum(1 << bit for bit, value in enumerate(bits) if value)


def make_video(
    path: Path,
    *,
    num_frames: int = 60,
    fps: int = 30,
    times: Sequence[float] | None = None,
    keyframe_every: int = 12,
    codec: str = "libx264",
    width: int = WIDTH,
    height: int = HEIGHT,
    pixel_aspect: Fraction = Fraction(1),
    with_sound_seconds: float = 0.0,
    codec_options: dict[str, str] | None = None,
    time_base: Fraction = Fraction(1, 90_000),
    **container_options: str,
) -> Path:
    """Write frames 0, 1, ... to `path`, shown at `times` seconds (default: evenly), with B-frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", container_options=container_options) as container:
        stream: Any = container.add_stream(
            codec,
            rate=fps,
            options={
                "g": str(keyframe_every),
                "bf": "2",
                "threads": "1",
                "preset": "veryfast",
                **(codec_options or {}),
            },
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = time_base
        stream.codec_context.sample_aspect_ratio = pixel_aspect
        sound: Any = container.add_stream("aac", rate=48_000) if with_sound_seconds else None
        for number, seconds in enumerate(
            times if times is not None else [n / fps for n in range(num_frames)]
        ):
            frame = av.VideoFrame.from_ndarray(
                numbered_picture(number, width=width, height=height), format="rgb24"
            )
            frame.pts, frame.time_base = round(seconds / time_base), time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            _add_silence(container, sound, with_sound_seconds)
    return path


def _add_silence(container: Any, sound: Any, seconds: float) -> None:
    for start in range(0, int(seconds * 48_000), 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 48_000, start
        container.mux(sound.encode(frame))
    container.mux(sound.encode(None))


def write_metadata(path: Path, clips: dict[str, Sequence[tuple[Any, Any]]]) -> Path:
    """HD-VILA metadata: video id -> its clips' spans, numbered from 0."""
    lines = [
        {
            "video_id": video_id,
            "url": f"https://videos.example/{video_id}",
            "clip": [{"clip_id": f"{video_id}.{n}.mp4", "span": list(span)} for n, span in enumerate(spans)],
        }
        for video_id, spans in clips.items()
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def make_edited_video(path: Path) -> Path:
    """60 frames of which an edit list hides the first 12, as a cut without re-encoding leaves them."""
    whole = make_video(path.with_name(f"whole-{path.name}"), num_frames=60, keyframe_every=30)
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None and packet.pts is not None:
                packet.pts -= round(Fraction(12, 30) / packet.time_base)
                packet.dts -= round(Fraction(12, 30) / packet.time_base)
                packet.stream = stream
                target.mux(packet)
    return path
