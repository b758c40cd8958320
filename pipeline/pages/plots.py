"""Small plots, lines with intervals or bars, as SVG that templates draw on a page or into a file."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from clipvip.pipeline.pages.html import render_block

_DARK = "@media (prefers-color-scheme:dark){text{fill:#9aa6b6}.grid{stroke:#363f4c}.whisker{stroke:#e3e8ef}}"


class Point(NamedTuple):
    """A point of a line, and the ends of its interval if it has one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Plot:
    """Lines by name ("" for none), or bars of equal width over `x_range`, given by their counts.

    `is_whole`: there is nothing between the whole numbers of x.
    """

    template: ClassVar[str] = "plot.svg"
    # The area in the units of the SVG, pixels where it is drawn 420 wide; labels stand around it.
    left: ClassVar[int] = 60
    right: ClassVar[int] = 390
    top: ClassVar[int] = 44
    bottom: ClassVar[int] = 222
    title: str
    x_label: str
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    y_label: str = ""
    lines: Mapping[str, Sequence[Point]] = field(default_factory=dict)
    bars: Sequence[int] = ()
    is_whole: bool = False

    def x(self, value: float) -> float:
        """Where a value stands in the SVG."""
        low, high = self.x_range
        return round(self.left + (value - low) / ((high - low) or 1) * (self.right - self.left), 1)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return round(self.bottom - (value - low) / ((high - low) or 1) * (self.bottom - self.top), 1)

    def path(self, points: Sequence[Point]) -> str:
        return " ".join(f"{self.x(point.x)},{self.y(point.y)}" for point in points)

    def band(self, points: Sequence[Point]) -> str:
        """The outline of the intervals: there along their upper ends, back along the lower ones."""
        upper = [Point(point.x, point.high) for point in points if point.high is not None]
        lower = [Point(point.x, point.low) for point in points if point.low is not None]
        return self.path(upper + lower[::-1])

    @property
    def x_ticks(self) -> list[float]:
        return self.ticks(*self.x_range, least_step=1 if self.is_whole else 0)

    @property
    def y_ticks(self) -> list[float]:
        return self.ticks(*self.y_range, least_step=1 if self.bars else 0)

    @staticmethod
    def number(value: float) -> str:
        """A number in the room of a label: 1,000 and 0.25, but 200k and 1.5M."""
        for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if abs(value) >= max(size, 1e5):
                return f"{value / size:,.9g}{unit}"
        return f"{value:,.9g}"

    @staticmethod
    def ticks(low: float, high: float, *, least_step: float = 0) -> list[float]:
        """Up to six round numbers between the two: 0.2, 0.4, 0.6, 0.8 between 0.13 and 0.83."""
        if high <= low:
            return [low]
        step = 10.0 ** math.floor(math.log10((high - low) / 5))
        step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (factor * step) <= 5)
        step = max(step, least_step)
        # A number that a rounding error puts outside belongs inside.
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


class Bar(NamedTuple):
    """A named value, the ends of its interval if it has one, and whether the eye is to find it first."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    is_main: bool = False


@dataclass(frozen=True)
class BarChart:
    """Values to be compared, one below the other, as bars from 0 to `most`.

    `spec` is the format of the numbers, which stand at the right of the names, clear of bars and lines.
    `limits` are values of x with what they mean, drawn across all bars and named above them.
    """

    template: ClassVar[str] = "bars.svg"
    left: ClassVar[int] = 2
    right: ClassVar[int] = 414
    row: ClassVar[int] = 40
    title: str
    bars: Sequence[Bar]
    most: float
    spec: str = ".1f"
    limits: Mapping[str, float] = field(default_factory=dict)
    is_wide: bool = False

    @property
    def top(self) -> int:
        return 24 + 18 * len(self.limits)

    @property
    def bottom(self) -> int:
        return self.top + self.row * len(self.bars)

    def x(self, value: float) -> float:
        """Where a value stands in the SVG, which is 420 wide; what is beyond the ends stands there."""
        share = min(max(value / self.most, 0.0), 1.0) if self.most > 0 else 0.0
        return round(self.left + share * (self.right - self.left), 1)


class Difference(NamedTuple):
    """How far something is above something else, with the ends of its interval, and what is said of it.

    `verdict` is "apart", "ahead", "open", "behind", or another: each has its colour. `beside` stands at the
    right, after the value.
    """

    name: str
    where: str
    value: float
    low: float | None
    high: float | None
    verdict: str
    beside: str


@dataclass(frozen=True)
class DifferenceChart:
    """Differences one below the other on one axis, on which zero is drawn.

    `legend` says what verdicts mean, two in a line.
    """

    template: ClassVar[str] = "differences.svg"
    left: ClassVar[int] = 10
    right: ClassVar[int] = 400
    row: ClassVar[int] = 42
    title: str
    rows: Sequence[Difference]
    unit: str
    legend: Mapping[str, str] = field(default_factory=dict)
    is_wide: bool = True

    @property
    def top(self) -> int:
        return 29 + 17 * -(-len(self.legend) // 2)

    @property
    def bottom(self) -> int:
        return self.top + self.row * len(self.rows)

    @property
    def x_range(self) -> tuple[float, float]:
        """From the least end to the greatest, zero among them."""
        ends = [end for row in self.rows for end in (row.low, row.value, row.high) if end is not None]
        low, high = min([*ends, 0.0]), max([*ends, 0.0])
        return (low, high) if high > low else (-1.0, 1.0)

    def x(self, value: float) -> float:
        """Where a value stands in the SVG, which is 420 wide."""
        low, high = self.x_range
        return round(self.left + (value - low) / (high - low) * (self.right - self.left), 1)

    def ticks(self) -> list[float]:
        return Plot.ticks(*self.x_range)


def line_plot(lines: Mapping[str, Sequence[Point]], *, title: str, x_label: str, y_label: str) -> Plot:
    """Lines by name, over the range of all their points. There must be some."""
    points = [point for line in lines.values() for point in line]
    xs = [point.x for point in points]
    ys = [end for point in points for end in point[1:] if end is not None]
    return Plot(title, x_label, (min(xs), max(xs)), (min(ys), max(ys)), y_label, lines=lines)


def svg_file(plot: Plot | BarChart | DifferenceChart) -> bytes:
    """The plot as an SVG file."""
    # A file has no page around it that gives it the colours of the dark.
    head, body = render_block(plot).split("\n<g", 1)
    head = head.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    return f"{head}\n<style>{_DARK}</style>\n<g{body}".encode()
