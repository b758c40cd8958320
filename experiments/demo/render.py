"""Pictures of the world: a scene and a time -> RGB frames. Knows neither words nor files."""

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from clipvip.experiments.demo.world import COLOURS, REVERSED, SIZES, Scene

WIDTH, HEIGHT = 128, 96
_OVERSAMPLING = 4

_GROUND = {
    "field": (70, 150, 60),
    "sea": (60, 140, 200),
    "desert": (222, 190, 130),
    "night": (22, 24, 66),
    "snow": (226, 234, 240),
    "wall": (150, 84, 66),
}


def render_clip(scene: Scene, *, num_frames: int) -> np.ndarray:
    """The frames of a clip, evenly spaced in time: uint8 (num_frames, HEIGHT, WIDTH, 3)."""
    times = [n / num_frames for n in range(num_frames)]
    if scene.backwards:
        scene = replace(scene, motion=REVERSED[scene.motion], backwards=False)
        times.reverse()
    return np.stack([render_frame(scene, time) for time in times])


def render_frame(scene: Scene, time: float) -> np.ndarray:
    """The picture at `time`, 0 for the clip's start to 1 for its end: uint8 (HEIGHT, WIDTH, 3)."""
    x, y, radius = _position(scene, time)
    chance = np.random.default_rng(scene.seed)
    picture = Image.fromarray(_ground(scene.place, scene.seed))
    tilt = 0.0 if scene.shape in {"circle", "ring"} else float(chance.uniform(-0.25, 0.25))
    stamp = _stamp(scene.shape, scene.colour, round(radius * HEIGHT, 1), round(tilt, 2))
    corner = (round(x * WIDTH - stamp.width / 2), round(y * HEIGHT - stamp.height / 2))
    picture.paste(stamp, corner, stamp)
    return np.asarray(picture)


def _position(scene: Scene, time: float) -> tuple[float, float, float]:
    """Centre in parts of width and height, and radius in parts of the height."""
    chance = np.random.default_rng(scene.seed + 1)
    reach = float(chance.uniform(0.24, 0.34))
    phase = float(chance.uniform(0, 2 * math.pi))
    x, y = scene.centre
    radius = SIZES[scene.size]
    way = 2 * time - 1  # -1 at the start, 0 half way, 1 at the end
    match scene.motion:
        case "left" | "right":
            x += reach * way * (1 if scene.motion == "right" else -1)
        case "up" | "down":
            y += reach * way * (1 if scene.motion == "down" else -1)
        case "circle":
            angle = 2 * math.pi * time + phase
            x += 0.2 / (WIDTH / HEIGHT) * math.cos(angle)
            y += 0.2 * math.sin(angle)
        case "grow" | "shrink":
            radius *= 1 + 0.55 * way * (1 if scene.motion == "grow" else -1)
    return x, y, radius


@lru_cache(maxsize=64)
def _ground(place: str, seed: int) -> np.ndarray:
    """The place without the shape, with its own grain: uint8 (HEIGHT, WIDTH, 3)."""
    chance = np.random.default_rng([seed, 7])
    tone = np.array(_GROUND[place], np.float32) + chance.uniform(-8, 8)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    light = np.zeros((HEIGHT, WIDTH), np.float32)
    offset = float(chance.uniform(0, 2 * math.pi))
    if place == "field":
        light += 14 * np.sin(columns / 2.3 + offset) * np.sin(rows / 3.1)
    elif place == "sea":
        light += 18 * np.sin(rows / 2.6 + 1.5 * np.sin(columns / 9 + offset))
    elif place == "desert":
        light += 14 * np.sin((rows + columns / 2) / 9 + offset)
    elif place == "wall":
        course = (rows // 8).astype(int)
        joint = (rows % 8 < 1.5) | ((columns + 8 * (course % 2)) % 16 < 1.5)
        light += np.where(joint, 46.0, 0.0)
    light += chance.normal(0, 3, light.shape).astype(np.float32)
    picture = tone + light[:, :, None]
    if place == "night":
        picture[chance.random((HEIGHT, WIDTH)) < 0.008] = 225
    return picture.clip(0, 255).astype(np.uint8)


@lru_cache(maxsize=512)
def _stamp(shape: str, colour: str, radius: float, tilt: float) -> Image.Image:
    """The shape alone, with a thin rim that sets it off from any ground, smooth at the edges: RGBA."""
    half = math.ceil(radius) + 3
    size = 2 * half * _OVERSAMPLING
    rgb = COLOURS[colour]
    rim = (15, 15, 15) if sum(rgb) > 300 else (225, 225, 225)
    layers = []
    for grow in (1.4, 0.0):
        mask = Image.new("L", (size, size))
        _draw_shape(ImageDraw.Draw(mask), shape, size / 2, radius, tilt, grow)
        layers.append(mask.resize((2 * half, 2 * half), Image.Resampling.BOX))
    stamp = Image.new("RGBA", (2 * half, 2 * half), (*rim, 0))
    stamp.putalpha(layers[0])
    inside = Image.new("RGBA", stamp.size, (*rgb, 255))
    body = Image.composite(inside, stamp, layers[1])
    body.putalpha(Image.fromarray(np.maximum(np.asarray(layers[0]), np.asarray(layers[1]))))
    return body


def _draw_shape(
    draw: ImageDraw.ImageDraw, shape: str, centre: float, radius: float, tilt: float, grow: float
) -> None:
    """Fill the shape white, `grow` pixels beyond its edge."""
    outer = (radius + grow) * _OVERSAMPLING
    if shape in {"circle", "ring"}:
        draw.ellipse((centre - outer, centre - outer, centre + outer, centre + outer), fill=255)
        if shape == "ring":
            inner = (0.55 * radius - grow) * _OVERSAMPLING
            draw.ellipse((centre - inner, centre - inner, centre + inner, centre + inner), fill=0)
        return
    cos, sin = math.cos(tilt), math.sin(tilt)
    points = [
        (centre + outer * (x * cos - y * sin), centre + outer * (x * sin + y * cos))
        for x, y in _outline(shape)
    ]
    draw.polygon(points, fill=255)


def _outline(shape: str) -> list[tuple[float, float]]:
    """Corners of a shape of radius about 1, x to the right and y down."""
    if shape == "square":
        return [(-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)]
    if shape == "triangle":
        return [(0, -1.05), (1.05, 0.85), (-1.05, 0.85)]
    if shape == "cross":
        arm = 0.34
        return [
            (-arm, -1), (arm, -1), (arm, -arm), (1, -arm), (1, arm), (arm, arm),
            (arm, 1), (-arm, 1), (-arm, arm), (-1, arm), (-1, -arm), (-arm, -arm),
        ]  # fmt: skip
    if shape == "star":
        polar = ((1.15 if n % 2 == 0 else 0.48, math.pi * n / 5 - math.pi / 2) for n in range(10))
        return [(length * math.cos(angle), length * math.sin(angle)) for length, angle in polar]
    raise ValueError(f"no outline of a {shape}")
