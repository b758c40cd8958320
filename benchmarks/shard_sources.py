"""Sources for the benchmarks of `clipvip-data shard`: made up here, since videos of others cannot be passed
on.

Each is 720p H.264 High at 30 frames a second with sound, as sites hand videos out: scenes of a few seconds,
in each a camera that pans over a textured surface with grain; B-frames, keyframes up to 250 frames apart.
"""

import json
import multiprocessing
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

WIDTH, HEIGHT, FPS = 1280, 720, 30
CLIP_SECONDS = 13.0
_SCENE_FRAMES = 137
_MARGIN = 512
_SOUND_RATE = 48_000


def make_sources(folder: Path, *, count: int, seconds: float, processes: int) -> list[Path]:
    """Write `count` videos of `seconds` to `folder`, unless they are there.

    Equal arguments give equal pictures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"source{number:02d}.mp4" for number in range(count)]
    jobs = [(path, number, seconds) for number, path in enumerate(paths) if not path.exists()]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        pool.starmap(_make_source, jobs, chunksize=1)
    return paths


def write_clips(
    path: Path, videos: Sequence[tuple[str, float]], *, clip_seconds: float = CLIP_SECONDS
) -> int:
    """Write metadata that cuts each (video id, length in seconds) into clips end to end.

    The number of clips.
    """
    lines, num_clips = [], 0
    for video_id, seconds in videos:
        starts = [n * clip_seconds for n in range(max(1, int(seconds // clip_seconds)))]
        ends = [*(start + clip_seconds for start in starts[:-1]), min(seconds, starts[-1] + clip_seconds)]
        clips = [
            {"clip_id": f"{video_id}.{n}.mp4", "span": span}
            for n, span in enumerate(zip(starts, ends, strict=True))
        ]
        lines.append(json.dumps({"video_id": video_id, "clip": clips}) + "\n")
        num_clips += len(clips)
    path.write_text("".join(lines))
    return num_clips


def _make_source(path: Path, seed: int, seconds: float) -> None:
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    random = np.random.default_rng(seed)
    grain = [random.normal(0, 3, (HEIGHT, WIDTH)).astype(np.int16) for _ in range(7)]
    with av.open(str(temporary), "w") as container:
        options = {"preset": "fast", "profile": "high", "crf": "23", "threads": "1"}
        stream: Any = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sound: Any = container.add_stream("aac", rate=_SOUND_RATE)
        num_sounds = 0
        for number in range(round(seconds * FPS)):
            if number % _SCENE_FRAMES == 0:
                surface, speed = _surface(random), random.uniform(-3.5, 3.5, 2)
            picture = _picture(surface, speed * (number % _SCENE_FRAMES), grain[number % len(grain)])
            frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
            while num_sounds * 1024 / _SOUND_RATE < number / FPS:
                container.mux(sound.encode(_sound(random, num_sounds * 1024)))
                num_sounds += 1
        container.mux(stream.encode(None))
        container.mux(sound.encode(None))
    os.replace(temporary, path)


def _surface(random: np.random.Generator) -> list[np.ndarray]:
    """Luma and two chroma planes, larger than the picture: noise in octaves, strong where it is coarse."""
    planes = []
    for part, strength in ((1, 52.0), (2, 20.0), (2, 20.0)):
        shape = (HEIGHT + 2 * _MARGIN) // part, (WIDTH + 2 * _MARGIN) // part
        plane = np.full(shape, 128.0)
        for octave in range(1, 8):
            cell = 2**octave // part or 1
            coarse = random.normal(0, strength * cell / 64, (shape[0] // cell + 1, shape[1] // cell + 1))
            plane += coarse.repeat(cell, 0).repeat(cell, 1)[: shape[0], : shape[1]]
        planes.append(plane.clip(16, 235).astype(np.uint8))
    return planes


def _picture(surface: list[np.ndarray], offset: np.ndarray, grain: np.ndarray) -> np.ndarray:
    """The part of the surface that the camera sees, as I420."""
    top, left = (2 * round((_MARGIN + move) / 2) for move in offset)
    luma = surface[0][top : top + HEIGHT, left : left + WIDTH]
    planes = [(luma + grain).clip(0, 255).astype(np.uint8)]
    planes += [
        plane[top // 2 : (top + HEIGHT) // 2, left // 2 : (left + WIDTH) // 2] for plane in surface[1:]
    ]
    return np.concatenate([plane.reshape(-1) for plane in planes]).reshape(-1, WIDTH)


def _sound(random: np.random.Generator, start: int) -> Any:
    frame = av.AudioFrame.from_ndarray(
        random.normal(0, 0.05, (1, 1024)).astype(np.float32), format="fltp", layout="mono"
    )
    frame.sample_rate, frame.pts = _SOUND_RATE, start
    return frame
