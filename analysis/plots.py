"""Heat maps from the numbers of this package, as PNG files in memory. No file is written here."""

import io
from collections.abc import Sequence

import numpy as np


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
    png = io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    return png.getvalue()
