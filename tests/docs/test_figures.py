"""docs/figures: the figures of docs/method.md are what docs/figures.py draws, and pages link to no others."""

import base64
import io
import itertools
import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from doc_blocks import ROOT, pages

SCRIPT = runpy.run_path(str(ROOT / "docs" / "figures.py"))
NUMBER = re.compile(r"-?\d+\.\d+")
PICTURE = re.compile(r"data:image/png;base64,([^\"]+)")


def parts(text: str) -> tuple[str, np.ndarray, list[np.ndarray]]:
    """Its text without numbers, these, and the pixels of its pictures: rounding may differ."""
    pixels = [np.array(Image.open(io.BytesIO(base64.b64decode(one)))) for one in PICTURE.findall(text)]
    text = PICTURE.sub("", text)
    return NUMBER.sub("0.0", text), np.array([float(one) for one in NUMBER.findall(text)]), pixels


@pytest.mark.parametrize("name", SCRIPT["FIGURES"])
def test_the_figure_is_what_the_script_draws(name: str) -> None:
    draw: Any = SCRIPT["FIGURES"][name]
    stored = parts((ROOT / "docs" / "figures" / f"{name}.svg").read_text())
    drawn = parts(SCRIPT["svg"](draw()))
    assert stored[0] == drawn[0], "run: python docs/figures.py"
    np.testing.assert_allclose(stored[1], drawn[1], atol=1e-3)
    assert len(stored[2]) == len(drawn[2])
    for one, other in zip(stored[2], drawn[2], strict=True):
        np.testing.assert_array_equal(one, other)


def test_pictures_of_pages_are_files_beside_them() -> None:
    """So that they show where a page is read without the site, too."""
    shown = [
        (page, found)
        for page in (ROOT / "README.md", *pages())
        for found in re.findall(r"!\[[^\]]*\]\(([^)\s]+)", page.read_text())
    ]
    assert len(shown) >= 6
    missing = [(page.name, found) for page, found in shown if not (Path(page).parent / found).is_file()]
    assert missing == []


@pytest.mark.parametrize("path", sorted((ROOT / "docs").rglob("*.svg")), ids=lambda path: path.stem)
def test_texts_of_drawings_can_be_read_on_a_phone(path: Path) -> None:
    """Where a page 400 pixels wide makes them 368 wide."""
    text = path.read_text()
    width = float(re.findall(r'viewBox="0 0 ([\d.]+) ', text)[0])
    sizes = [float(size) for size in re.findall(r'font(?:-size)?[:="]+ ?([\d.]+)', text)]
    assert sizes and min(sizes) * min(368 / width, 1) >= 10


def test_texts_of_the_front_picture_can_be_read_on_a_phone() -> None:
    frames = np.zeros((4, 9, 12, 3), np.uint8)
    rows = [("a medium magenta diamond is moving downwards " * 2, frames, "a medium magenta diamond " * 4),
            ("a ring", frames, "a ring")]  # fmt: skip
    figure = runpy.run_path(str(ROOT / "docs" / "front_picture.py"))["draw_rows"](rows)
    width, height = figure.canvas.get_width_height()
    boxes = [text.get_window_extent() for text in figure.texts]
    assert len(boxes) >= 6
    assert all(box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height for box in boxes)
    assert all(text.get_fontsize() * figure.dpi / 72 * 368 / width >= 10.5 for text in figure.texts)
    boxes += [axes.get_window_extent() for axes in figure.axes]
    assert not [one for one, other in itertools.combinations(boxes, 2) if one.overlaps(other)]
