"""Where the texts of a drawing stand, as a browser with a wide font sets them."""

import itertools
from typing import NamedTuple
from xml.etree import ElementTree

import matplotlib
from PIL import ImageFont

SVG = "{http://www.w3.org/2000/svg}"


class Box(NamedTuple):
    """A text with the ends of its box, in the units of the drawing."""

    text: str
    left: float
    right: float
    top: float
    bottom: float


def text_boxes(svg: bytes) -> list[Box]:
    """The box of each text, in DejaVu Sans; a part in bold makes all of it bold."""
    drawn = ElementTree.fromstring(svg)
    (group,) = drawn.iter(SVG + "g")
    size = float(group.attrib["font-size"])
    boxes = []
    for node in drawn.iter(SVG + "text"):
        own = float(node.get("font-size", size))
        is_bold = any(part.get("font-weight") == "700" for part in node.iter())
        text = "".join(node.itertext())
        width = _font(own, is_bold=is_bold).getlength(text)
        left = (
            float(node.attrib["x"]) - {"end": 1.0, "middle": 0.5}.get(node.get("text-anchor", ""), 0) * width
        )
        base = float(node.attrib["y"])
        boxes.append(Box(text, left, left + width, base - 0.75 * own, base + 0.2 * own))
    return boxes


def _font(size: float, *, is_bold: bool) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold" if is_bold else "DejaVuSans"
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/{name}.ttf", size)


def assert_readable(svg: bytes) -> None:
    """No text is cut off at the drawing's edge or stands on another, and at 368 pixels all are 10 high."""
    drawn = ElementTree.fromstring(svg)
    _, _, width, height = map(float, drawn.attrib["viewBox"].split())
    boxes = text_boxes(svg)
    for box in boxes:
        assert box.left >= 0 and box.right <= width, box
        assert box.top >= 0 and box.bottom <= height, box
    for one, other in itertools.combinations(boxes, 2):
        is_beside = one.right <= other.left or other.right <= one.left
        assert is_beside or one.bottom <= other.top or other.bottom <= one.top, (one, other)
    sizes = [float(node.get("font-size", "99")) for node in drawn.iter()]
    assert min(sizes) * 368 / width >= 10
