"""Single pictures that others made, of any usual kind, as arrays."""

import io
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from clipvip.media.errors import MediaError, one_line

# The most that a JPEG can have; resizing longer lines takes gigabytes.
_LONGEST_SIDE = 65_535
# Of Pillow's formats those that stay in the process and have no scripts.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
# A JPEG spends a bit at the least on each block of 8 x 8 pixels; this is what a byte can hold then.
_MOST_PIXELS_PER_JPEG_BYTE = 512


def holds_pixels(jpeg: bytes, num_pixels: int) -> bool:
    """Whether a JPEG of so few bytes can have so many pixels; where it cannot, it is damaged or a trap."""
    return num_pixels <= _MOST_PIXELS_PER_JPEG_BYTE * len(jpeg)


def decode_image(data: bytes, max_pixels: int, **fast: Any) -> np.ndarray:
    """A picture as uint8 (height, width, 3), RGB; `fast` are options of simplejpeg for usual JPEG.

    Raises MediaError: it is damaged, of no usual kind, or claims more than `max_pixels`.
    """
    try:
        return _decode(data, max_pixels, fast)
    # Pillow's decoders raise whatever they stumble over.
    except Exception as error:
        raise MediaError(one_line(error)) from error


def image_size(data: bytes, max_pixels: int) -> tuple[int, int]:
    """(width, height) as its header claims them. Raises as `decode_image`."""
    try:
        if data[:2] == b"\xff\xd8":
            height, width, *_ = simplejpeg.decode_jpeg_header(data)
            _require(width, height, max_pixels, data)
            return width, height
        with _opened(data, max_pixels) as image:
            return image.size
    except Exception as error:
        raise MediaError(one_line(error)) from error


def _decode(data: bytes, max_pixels: int, fast: dict[str, Any]) -> np.ndarray:
    if data[:2] == b"\xff\xd8":
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        _require(width, height, max_pixels, data)
        if colours in {"YCbCr", "Gray", "RGB"}:
            return simplejpeg.decode_jpeg(data, **fast)
    with _opened(data, max_pixels) as image:
        return np.array(image.convert("RGB"))


def _require(width: int, height: int, max_pixels: int, jpeg: bytes) -> None:
    if height * width > max_pixels or not holds_pixels(jpeg, height * width):
        raise MediaError(f"claims {width} x {height} pixels in {len(jpeg):,} bytes")


def _opened(data: bytes, max_pixels: int) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError:  # its message has an address in memory, another one each time
        raise MediaError(f"no image in one of the formats {', '.join(_FORMATS)}") from None
    if image.width * image.height > max_pixels or max(image.size) > _LONGEST_SIDE:
        image.close()
        raise MediaError(f"claims {image.width} x {image.height} pixels")
    return image
