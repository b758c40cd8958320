"""Small plots: all inside their figure, upright, and with round numbers at the axes."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipvip.pipeline.pages.plots import (
    Bar,
    BarChart,
    Difference,
    DifferenceChart,
    Plot,
    Point,
    line_plot,
    svg_file,
)
from svg_texts import assert_readable

SVG = "{http://www.w3.org/2000/svg}"
NUMBERS = st.floats(-1e6, 1e6)


def places(text: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in text.split())]


@given(points=st.lists(st.tuples(NUMBERS, NUMBERS, st.floats(0, 1e3)), min_size=1, max_size=30))
def test_lines_and_bands_stay_inside_the_area(points: list[tuple[float, float, float]]) -> None:
    line = [Point(x, y, y - half, y + half) for x, y, half in points]
    svg = ElementTree.fromstring(
        svg_file(line_plot({"a": line, "b": line}, title="t", x_label="", y_label=""))
    )
    drawn = [place for shape in ("polyline", "polygon") for found in svg.iter(SVG + shape)
             for place in places(found.attrib["points"])]  # fmt: skip
    assert len(drawn) == 2 * 3 * len(points)
    assert all(Plot.left <= x <= Plot.right and Plot.top <= y <= Plot.bottom for x, y in drawn)


def test_more_is_higher_and_the_ends_are_the_areas() -> None:
    plot = line_plot({"": [Point(1, 3.0), Point(2, 1.0), Point(3, 2.0)]}, title="", x_label="", y_label="")
    (line,) = ElementTree.fromstring(svg_file(plot)).iter(SVG + "polyline")
    middle = (Plot.left + Plot.right) / 2, (Plot.top + Plot.bottom) / 2
    assert places(line.attrib["points"]) == [
        (Plot.left, Plot.top), (middle[0], Plot.bottom), (Plot.right, middle[1]),
    ]  # fmt: skip


def test_bars_stand_on_the_axis_as_high_as_they_count() -> None:
    svg = svg_file(Plot("", "", (0, 4), (0, 4), bars=[1, 4, 0, 2])).decode()
    boxes = [tuple(map(float, found)) for found in re.findall(
        r'<rect x="([\d.]+)" width="([\d.]+)"\s+y="([\d.]+)" height="([\d.]+)"', svg)]  # fmt: skip
    height = Plot.bottom - Plot.top
    assert [box[3] for box in boxes] == [height / 4, height, 0, height / 2]
    assert all(y + high == Plot.bottom for _, _, y, high in boxes)
    assert Plot.left <= boxes[0][0] and boxes[-1][0] + boxes[-1][1] <= Plot.right


def test_bars_beside_each_other_are_as_long_as_their_values() -> None:
    bars = [Bar("a", 50, 40, 60, is_main=True), Bar("b", 0), Bar("c", 100, 90, 120)]
    chart = BarChart("t", bars, most=100, limits={"half": 50})
    drawn = ElementTree.fromstring(svg_file(chart))
    widths = [float(rect.attrib["width"]) for rect in drawn.iter(SVG + "rect")]
    whole = chart.right - chart.left
    assert widths == [whole / 2, 0, whole]
    assert [text.text for text in drawn.iter(SVG + "text")] == [
        "t", "half", "a", "50.0", "b", "0.0", "c", "100.0",
    ]  # fmt: skip
    whiskers = [path for path in drawn.iter(SVG + "path") if path.get("class") == "whisker"]
    assert len(whiskers) == 2 and f"H{float(chart.right)}" in whiskers[1].attrib["d"]
    fills = [rect.attrib["fill"] for rect in drawn.iter(SVG + "rect")]
    assert fills[0] != fills[1] == fills[2]


def test_nothing_but_zeros_is_a_chart_too() -> None:
    drawn = ElementTree.fromstring(svg_file(BarChart("", [Bar("a", 0, 0, 0)], most=0)))
    assert [rect.attrib["width"] for rect in drawn.iter(SVG + "rect")] == ["0.0"]


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ((0.13, 0.83), [0.2, 0.4, 0.6, 0.8]),
        ((0, 5), [0, 1, 2, 3, 4, 5]),
        ((-1, 99), [0, 20, 40, 60, 80]),
        ((7, 7), [7]),
    ],
)
def test_ticks_are_round_numbers(ends: tuple[float, float], expected: list[float]) -> None:
    assert Plot.ticks(*ends) == pytest.approx(expected)


@given(low=NUMBERS, span=st.floats(1e-3, 1e6))
def test_there_are_few_ticks_and_all_lie_between(low: float, span: float) -> None:
    found = Plot.ticks(low, low + span)
    assert 1 <= len(found) <= 6
    assert all(low - 1e-6 * span <= value <= low + span * (1 + 1e-6) for value in found)


@given(values=st.lists(st.floats(0, 100), min_size=1, max_size=6), limit=st.floats(0, 100))
def test_labels_of_bars_keep_clear_of_each_other_wherever_bars_end(values: list[float], limit: float) -> None:
    bars = [Bar("a name as long as those of the demo are", value, value, 100) for value in values]
    chart = BarChart("the title", bars, most=100, limits={"this is the limit": limit, "another": limit})
    assert_readable(svg_file(chart))
    lines = [path.attrib["d"] for path in ElementTree.fromstring(svg_file(chart)).iter(SVG + "path")
             if path.get("stroke-dasharray")]  # fmt: skip
    # They cross bars, and no line of text.
    tops = [float(line.split(" ")[1].split("v")[0]) for line in lines]
    names = [chart.top + chart.row * number + 13 for number in range(len(bars))]
    assert len(lines) == 2 * len(bars) and all(
        top >= name + 3 for top, name in zip(tops[::2], names, strict=True)
    )


@pytest.mark.parametrize("num_verdicts", range(5))
def test_labels_of_differences_keep_clear_of_each_other(num_verdicts: int) -> None:
    legend = {
        name: "comes out, intervals overlap" for name in ("apart", "ahead", "open", "behind")[:num_verdicts]
    }
    rows = [Difference("a claim about one thing and another", "", value, value - 9, value + 9, "open",
                       " (paper +28.9)") for value in (-30, 0, 30)]  # fmt: skip
    assert_readable(svg_file(DifferenceChart("the title", rows, "difference in points", legend)))


@pytest.mark.parametrize(
    "plot",
    [
        Plot("the title", "the last bar counts all larger values", (-0.5, 3.5), (0, 1234), bars=[1, 1234]),
        Plot("one value", "", (7.5, 8.5), (0, 1), bars=[1], is_whole=True),
        line_plot({"one": [Point(0, 1), Point(9, 2)], "two": [Point(3, 1e6)]}, title="the title",
                  x_label="steps", y_label="loss"),
    ],
)  # fmt: skip
def test_labels_of_plots_keep_clear_of_each_other(plot: Plot) -> None:
    assert_readable(svg_file(plot))


def test_counts_and_whole_numbers_have_no_fractions_at_the_axes() -> None:
    plot = Plot("", "", (7.5, 8.5), (0, 2), bars=[2], is_whole=True)
    assert plot.x_ticks == [8] and plot.y_ticks == [0, 1, 2]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.25, "0.25"), (50_000, "50,000"), (200_000, "200k"), (-1_500_000, "-1.5M"), (2e10, "20G")],
)
def test_large_numbers_are_short(value: float, text: str) -> None:
    assert Plot.number(value) == text


def test_a_file_has_the_colours_of_the_dark_with_it() -> None:
    svg = svg_file(BarChart("t", [Bar("a", 1)], most=1))
    (style,) = ElementTree.fromstring(svg).iter(SVG + "style")
    assert "prefers-color-scheme:dark" in (style.text or "")
