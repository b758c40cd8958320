"""How much moves in a clip, without optical flow."""

import numpy as np
import simplejpeg
from PIL import Image

from clipvip.shards.errors import DatasetError
from clipvip.shards.format.clip import FRAMES_EXTENSION
from clipvip.shards.tar.reader import Sample

_MOST_PAIRS = 12
_SIDE = 64
# Of red, green and blue, as JPEG has it.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def motion_of(sample: Sample) -> float:
    """The mean difference in luma, 0 to 255, of a frame from the next: 0 where nothing moves.

    The median over 12 pairs of neighbours all over the clip, so that a cut or two count little; frames are
    made 64 x 64 by area, so that noise counts little. 0 for one frame.

    Raises:
        DatasetError: the frames do not decode.
    """
    if sample.num_frames < 2:
        return 0.0
    num_pairs = sample.num_frames - 1
    firsts = np.unique(np.linspace(0, num_pairs - 1, min(num_pairs, _MOST_PAIRS)).round().astype(int))
    wanted = sorted({int(index) for first in firsts for index in (first, first + 1)})
    small = dict(zip(wanted, _small_frames(sample, wanted), strict=True))
    changes = [np.abs(small[first + 1] - small[first]).mean() for first in firsts.tolist()]
    return round(float(np.median(changes)), 4)


def _small_frames(sample: Sample, indices: list[int]) -> list[np.ndarray]:
    """Luma of frames, float32 (64, 64)."""
    if sample.extension != FRAMES_EXTENSION:
        frames = sample.decode(indices)
        return [_reduced((frame @ _LUMA).round().astype(np.uint8)) for frame in frames]
    return [_reduced(_luma(sample, index)) for index in indices]


def _luma(sample: Sample, index: int) -> np.ndarray:
    """A frame's luma, uint8 (height, width), by libjpeg in an eighth of the size or more: cheap."""
    data = sample.checked_jpeg(index)
    try:
        shrunk = {"min_height": _SIDE, "min_width": _SIDE, "min_factor": 1}
        luma: np.ndarray = simplejpeg.decode_jpeg(data, colorspace="GRAY", **shrunk)
    except ValueError as error:
        raise DatasetError(f"sample {sample.key}: frame {index} is not a readable JPEG ({error})") from error
    return luma[..., 0]


def _reduced(luma: np.ndarray) -> np.ndarray:
    image = Image.fromarray(luma).resize((_SIDE, _SIDE), Image.Resampling.BOX)
    return np.asarray(image, np.float32)
