"""JPEG encoding of frames: the one place that fixes how stored frames are compressed."""

import numpy as np
import simplejpeg

# Chosen on real video: see "Shards" in docs/benchmarks.md.
DEFAULT_JPEG_QUALITY = 85


def encode_jpeg(frame: np.ndarray, *, quality: int = DEFAULT_JPEG_QUALITY) -> bytes:
    """Encode one frame, uint8 (height, width, 3) RGB, as a JPEG with 4:2:0 chroma.

    `quality` is libjpeg's, 1 to 100. Equal frames give equal bytes.
    """
    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(frame), quality=quality, colorspace="RGB", colorsubsampling="420"
    )


def encode_jpeg_planes(
    luma: np.ndarray, blue: np.ndarray, red: np.ndarray, *, quality: int = DEFAULT_JPEG_QUALITY
) -> bytes:
    """As `encode_jpeg`, of a frame that is planar YUV already, as decoders give it: half the work.

    `luma` is uint8 (height, width), `blue` and `red` (chroma) are uint8 (height / 2, width / 2); full range,
    coefficients of BT.601, as JPEG is defined.
    """
    planes = (np.ascontiguousarray(plane) for plane in (luma, blue, red))
    return simplejpeg.encode_jpeg_yuv_planes(*planes, quality=quality)
