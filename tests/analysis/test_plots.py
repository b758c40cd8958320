"""Heat maps and bars: real pictures, the same bytes every time, and no surprises in the names."""

import io

import numpy as np
import pytest
from PIL import Image

from clipvip.analysis.plots import heat_map, interval_bars


def picture(values: np.ndarray, **options: object) -> np.ndarray:
    rows = [f"row {n}" for n in range(values.shape[0])]
    columns = [f"column {n}" for n in range(values.shape[1])]
    png = heat_map(values, rows=rows, columns=columns, **options)  # type: ignore[arg-type]
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_equal_arguments_give_equal_bytes() -> None:
    values = np.array([[0.1, 0.9], [0.4, 0.2]])
    draw = [heat_map(values, rows=["a", "b"], columns=["x", "y"], title="NMI") for _ in range(2)]
    assert draw[0] == draw[1]
    assert Image.open(io.BytesIO(draw[0])).info.keys() <= {"dpi"}


def test_the_colours_follow_the_values() -> None:
    low, high = (picture(np.full((2, 2), value), value_range=(0, 1)) for value in (0.0, 1.0))
    assert low.shape == high.shape
    where = (low != high).any(axis=2)
    assert where.mean() > 0.15  # the cells and the numbers, not the frame
    yellow = (high[..., 0] > 200) & (high[..., 1] > 200) & (high[..., 2] < 100)
    assert yellow[where].mean() > 0.8


def test_names_with_signs_of_formulas_are_drawn_as_they_are() -> None:
    assert heat_map(np.ones((1, 1)), rows=["a$b^"], columns=["$\\frac"], title="$_$").startswith(b"\x89PNG")


def test_names_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="does not fit 1 rows and 2 columns"):
        heat_map(np.ones((2, 2)), rows=["a"], columns=["x", "y"])


def bar_lengths(means: list[float], deviations: list[float]) -> list[int]:
    """Of each bar in pixels, from top to bottom."""
    names = [f"source {n}" for n in range(len(means))]
    png = interval_bars(names, means, deviations, title="NMI", label="$NMI")
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    of_bars = (abs(pixels - (0x2A, 0x9D, 0x8F)) < 12).all(axis=2).sum(axis=1)
    starts = np.flatnonzero((of_bars[1:] > 0) & (of_bars[:-1] == 0)) + 1
    return [int(of_bars[start + 2]) for start in starts]


@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_bars_are_as_long_as_their_values(scale: float) -> None:
    """Small values fill the picture as large ones do."""
    first, second = bar_lengths([0.4 * scale, 0.1 * scale], [0.0, 0.0])
    assert first == pytest.approx(4 * second, abs=8) and first > 500


def test_bars_of_nothing_but_zeros_are_drawn() -> None:
    assert bar_lengths([0.0], [0.0]) in ([], [0], [1])


def test_bars_without_as_many_values_are_refused() -> None:
    with pytest.raises(ValueError, match="2 names, 1 means"):
        interval_bars(["a", "b"], [0.1], [0.1], title="", label="")
