"""Which of a clip's frames a model sees: evenly spread, the same with jitter, or middles."""

import numpy as np


def uniform_indices(num_total: int, num_frames: int) -> np.ndarray:
    """Indices spread evenly from the first frame to the last, as the released code takes them in test mode.

    `linspace(0, num_total - 1, num_frames)` in float64, cut to whole numbers: for 64 frames this is now and
    then one below the exact quotient, and one frame alone is the first, not the middle. A clip shorter than
    `num_frames` gives repeats.

    Returns int64 (num_frames,), ascending, each in [0, num_total). Raises ValueError for numbers below 1.

    Examples:
        >>> from clipvip.shards import uniform_indices
        >>> uniform_indices(9, 3).tolist()
        [0, 4, 8]
    """
    _require_positive(num_total, num_frames)
    return np.linspace(0, num_total - 1, num_frames).astype(np.int64)


def jittered_indices(num_total: int, num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Evenly spread indices between a random start and a random end, as in training.

    Start and end each move by up to one spacing, `num_total // (num_frames - 1)`. The released code runs
    past the clip or backwards for two or three frames and fails for one; here the two ends never cross (each
    stays in its half of the clip) and a single frame is drawn from the whole clip. For four frames and more
    the distribution is the released code's. Returns and raises as `uniform_indices`.

    Examples:
        >>> import numpy as np
        >>> from clipvip.shards import jittered_indices
        >>> len(jittered_indices(9, 3, np.random.default_rng(0)))
        3
    """
    _require_positive(num_total, num_frames)
    if num_frames == 1:
        return rng.integers(0, num_total, size=1)
    spacing = min(num_total // (num_frames - 1), (num_total - 1) // 2)
    start = rng.integers(0, spacing, endpoint=True)
    end = num_total - 1 - rng.integers(0, spacing, endpoint=True)
    return np.linspace(start, end, num_frames).astype(np.int64)


def middle_index(num_total: int) -> int:
    """The middle frame of a clip: `num_total // 2`, as in the released code. ValueError if there are none.

    Examples:
        >>> from clipvip.shards import middle_index
        >>> middle_index(9)
        4
    """
    _require_positive(num_total, 1)
    return num_total // 2


def random_subsets(total: int, kept: int, num: int, rng: np.random.Generator) -> np.ndarray:
    """`num` independent subsets of `kept` of the numbers below `total`, each ascending: int16 (num, kept)."""
    drawn = rng.random((num, total)).argsort(axis=1)[:, :kept]
    return np.sort(drawn, axis=1).astype(np.int16)


def middles_of_parts(num_total: int, parts: int) -> list[int]:
    """The middle of each of `parts` equal parts of a clip, ascending; of a shorter clip each frame once.

    Part j is [j, j + 1) * num_total / parts, so its middle is frame `(2 j + 1) * num_total // (2 * parts)`:
    of 10 frames 5, or 2 and 7, or 1, 5 and 8. One part has `middle_index`, and so has the middle one of an
    odd number. ValueError for numbers below 1.
    """
    _require_positive(num_total, parts)
    return list(dict.fromkeys((2 * part + 1) * num_total // (2 * parts) for part in range(parts)))


def _require_positive(num_total: int, num_frames: int) -> None:
    if num_total < 1:
        raise ValueError(f"a clip of {num_total} frames has none to sample")
    if num_frames < 1:
        raise ValueError(f"{num_frames = }: ask for 1 frame or more")
