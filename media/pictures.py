"""A decoded frame as a picture: upright and scaled as planar YUV for storing, or as RGB for a model."""

import itertools
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from clipvip.media.errors import MediaError
from clipvip.media.hdr import to_sdr, transfer_of

_INTERPOLATION = Interpolation.BICUBIC | Interpolation.ACCURATE_RND
# Shapes of pixels outside these limits are damage, not intent.
_LEAST_PIXEL_ASPECT, _MOST_PIXEL_ASPECT = Fraction(1, 4), Fraction(4)


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes in pixels as shown (upright, square pixels): of the source, and after scaling."""

    source_width: int
    source_height: int
    width: int
    height: int
    quarter_turns: int  # counterclockwise, from the decoded picture to the one shown


def quarter_turns(frame: Any) -> int:
    """By how many quarters a decoded picture is to be turned counterclockwise to stand upright."""
    return round(frame.rotation / 90) % 4


def upright_rgb(frame: Any) -> np.ndarray:
    """uint8 (height, width, 3), RGB, of the decoded size: pixels that are not square stay as they are.

    HDR is tone-mapped, here as in `scale`.
    """
    if transfer_of(frame):
        picture = to_sdr(frame, frame.width, frame.height, _INTERPOLATION, VideoReformatter())
    else:
        picture = frame.to_ndarray(format="rgb24")
    return np.rot90(picture, quarter_turns(frame))


def require_pixels(picture: Any, max_pixels: int | None) -> None:
    """MediaError: a frame, or a decoder's frames, has more pixels than that."""
    if max_pixels is not None and picture.width * picture.height > max_pixels:
        raise MediaError(f"is {picture.width}x{picture.height}, more than {max_pixels:,} pixels")


def geometry_of(frame: Any, pixel_aspect: Fraction | None, size: int) -> Geometry:
    """The sizes of a video with such frames, for a short side of `size` pixels; never enlarged."""
    aspect = Fraction(pixel_aspect or 1)
    width, height = Fraction(frame.width), Fraction(frame.height)
    if _LEAST_PIXEL_ASPECT <= aspect <= _MOST_PIXEL_ASPECT:
        width *= aspect
    turns = quarter_turns(frame)
    if turns % 2 == 1:
        width, height = height, width
    factor = min(Fraction(1), Fraction(size) / min(width, height))
    scaled = _scaled_length(width, factor), _scaled_length(height, factor)
    return Geometry(round(width), round(height), *scaled, quarter_turns=turns)


def _scaled_length(length: Fraction, factor: Fraction) -> int:
    """The nearest even number of pixels, as 4:2:0 needs, but never more than the source has (or 2)."""
    return max(2, min(2 * round(length * factor / 2), int(length) // 2 * 2))


def scale(frame: Any, shape: Geometry, reformatter: VideoReformatter) -> np.ndarray:
    """The picture as stored: uint8 (height * 3 // 2, width), planar YUV 4:2:0 (I420), upright.

    Full range with the coefficients of BT.601, as JPEG has it; no RGB in between, which costs twice the time
    and is off by 1 to 2 levels. A video's `reformatter` keeps what is prepared for its size.
    """
    turned = shape.quarter_turns % 2 == 1
    width, height = (shape.height, shape.width) if turned else (shape.width, shape.height)
    source, scaler = frame, reformatter
    if transfer_of(frame):
        sdr = to_sdr(frame, width, height, _INTERPOLATION, reformatter)
        source, scaler = VideoFrame.from_ndarray(sdr, format="rgb24"), VideoReformatter()
    picture: np.ndarray = scaler.reformat(
        source,
        width=width,
        height=height,
        format="yuvj420p",
        dst_colorspace=Colorspace.ITU601,
        dst_color_range=ColorRange.JPEG,
        interpolation=_INTERPOLATION,
        threads=1,
    ).to_ndarray()
    if not shape.quarter_turns:
        return picture
    planes = [np.rot90(plane, shape.quarter_turns) for plane in split_planes(picture, width, height)]
    return np.concatenate([plane.reshape(-1) for plane in planes]).reshape(-1, planes[0].shape[1])


def split_planes(picture: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Views of the planes of an I420 picture: luma (height, width), two chroma (height / 2, width / 2)."""
    flat = picture.reshape(-1)
    luma, chroma = width * height, width * height // 4
    bounds = itertools.pairwise((0, luma, luma + chroma, luma + 2 * chroma))
    y, u, v = (flat[start:end] for start, end in bounds)
    half = (height // 2, width // 2)
    return y.reshape(height, width), u.reshape(half), v.reshape(half)
