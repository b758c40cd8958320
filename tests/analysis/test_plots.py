"""The heat map: a real picture, the same bytes every time, and no surprises in the names."""

import io

import numpy as np
import pytest
from PIL import Image

from clipvip.analysis.plots import heat_map


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
