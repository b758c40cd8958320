"""Heat maps and bars from the numbers of this package, as PNG files in memory. No file is written here."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def heat_map(
    values: np.ndarray,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str = "",
    value_range: tuple[float, float] | None = None,
) -> bytes:
    """A table of numbers (rows, columns) as coloured cells with the number in each, PNG.

    `value_range` are the values at the two ends of the colours, by default the smallest and largest. Equal
    arguments give equal bytes with the same matplotlib.

    Raises:
        ValueError: the names do not fit the table.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes half a second to import
    from matplotlib.figure import Figure

    values = np.asarray(values, dtype=np.float64)
    if values.shape != (len(rows), len(columns)) or values.size == 0:
        raise ValueError(f"a table {values.shape} does not fit {len(rows)} rows and {len(columns)} columns")
    low, high = value_range or (float(values.min()), float(values.max()))
    longest = max(map(len, rows))
    figure = Figure(figsize=(2.4 + 0.09 * longest + 1.1 * len(columns), 1.6 + 0.5 * len(rows)), dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(values, cmap="viridis", vmin=low, vmax=high, aspect="auto")
    # Names are data: a "$" in one is no formula.
    labels = {"parse_math": False}
    axes.set_xticks(range(len(columns)), columns, rotation=20, ha="right", **labels)
    axes.set_yticks(range(len(rows)), rows, **labels)
    middle = (low + high) / 2
    for (row, column), value in np.ndenumerate(values):
        colour = "black" if value > middle else "white"
        axes.text(column, row, f"{value:.3f}", ha="center", va="center", color=colour)
    axes.set_title(title, parse_math=False)
    figure.colorbar(image)
    figure.tight_layout()
    return _png(figure)


def interval_bars(
    names: Sequence[str], means: Sequence[float], deviations: Sequence[float], *, title: str, label: str
) -> bytes:
    """Bars from 0, one below the other, with mean ± deviation as a line across and in numbers, PNG.

    The scale ends at the largest of them, so that they can be told apart. Equal arguments give equal bytes
    with the same matplotlib.

    Raises:
        ValueError: there are none, or not as many of each.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not names or not len(names) == len(means) == len(deviations):
        raise ValueError(
            f"{len(names)} names, {len(means)} means and {len(deviations)} deviations; give 1 or more, as "
            "many of each"
        )
    most = max(mean + deviation for mean, deviation in zip(means, deviations, strict=True)) or 1.0
    figure = Figure(figsize=(7.0, 1.5 + 0.55 * len(names)), dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    places = range(len(names))
    axes.barh(places, means, xerr=deviations, color="#2a9d8f", height=0.6, capsize=5, ecolor="#1f2933")
    for place, mean, deviation in zip(places, means, deviations, strict=True):
        text = f"  {mean:.3f} ± {deviation:.3f}"
        axes.text(mean + deviation, place, text, ha="left", va="center", fontsize=12)
    axes.set_yticks(places, names, fontsize=12, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.35 * most)
    axes.set_xlabel(label, fontsize=11, parse_math=False)
    axes.set_title(title, fontsize=13, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return _png(figure)


def _png(figure: "Figure") -> bytes:
    png = io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    return png.getvalue()
