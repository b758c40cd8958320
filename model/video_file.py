"""Read evenly spaced frames of a whole video file, for embedding it. Shards have their own, faster reader."""

from pathlib import Path

import numpy as np


def read_frames(path: str | Path, num_frames: int) -> np.ndarray:
    """Decode `num_frames` frames from first to last, as the reference does in its test mode.

    Returns:
        uint8 (num_frames, height, width, 3) RGB; a video with fewer frames repeats some.

    Raises:
        ValueError: naming the file, where it is missing, holds no video, or does not decode.
    """
    import decord  # only files need it

    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such video file")
    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        indices = np.linspace(0, len(reader) - 1, num_frames).astype(int)
        frames: np.ndarray = reader.get_batch(indices).asnumpy()
    except (decord.DECORDError, RuntimeError, IndexError) as error:
        raise ValueError(
            f"{path}: does not decode as video ({str(error).strip().splitlines()[-1]})"
        ) from error
    return frames
