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
