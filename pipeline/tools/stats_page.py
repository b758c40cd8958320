"""The page of `clipvip-data stats`: distributions as pictures, and some clips, in one HTML file."""

from pathlib import Path
from typing import Any

from clipvip.pipeline.pages.cards import escape, page
from clipvip.pipeline.tools.tally import Distribution, Tally
from clipvip.shards.files.atomic import atomic_write_bytes

PAGE_NAME = "stats.html"
_NUM_BARS = 40
_WIDTH, _HEIGHT, _BASE = 400, 160, 135


def write_page(out: Path, name: str, content: dict[str, Any], tally: Tally, cards: str) -> None:
    """Write stats.html into `out`: numbers, plots and the clips' cards."""
    plots = [
        ("Length of clips (seconds)", tally.clip_milliseconds, 1000),
        ("Frames of a clip", tally.frames, 1),
        ("Size of a clip (kB)", tally.clip_bytes, 1000),
        ("Words of a text", tally.subtitle_words, 1),
        ("Words of a caption", tally.caption_words, 1),
    ]
    figures = "".join(
        f"<figure><figcaption>{escape(title)}</figcaption>{histogram_svg(values, unit=unit)}</figure>"
        for title, values, unit in plots
        if values.count
    )
    tables = "".join(
        f"<section><h2>{escape(title)}</h2>{_table(content[key])}</section>"
        for title, key in (
            ("Sizes of frames", "sizes"),
            ("Sizes of sources", "source_sizes"),
            ("Left out, by reason", "skipped_by_reason"),
        )
        if content[key]
    )
    body = f'{_table(content["counts"])}<h2>Distributions</h2><div class="plots">{figures}</div><div class="tables">{tables}</div>'
    shown = f"<h2>Some clips</h2>{cards}" if cards else ""
    atomic_write_bytes(out / PAGE_NAME, page(f"Statistics of {name}", body + shown))


def histogram_svg(values: Distribution, *, unit: float = 1) -> str:
    """Bars over the values up to the 99th percentile, and what is beyond in the last one; labels in `unit`."""
    assert values.least is not None
    first = min(values.bins)
    last = max(first, min(values.quantile(0.99) // values.bin_width, max(values.bins)))
    bins_per_bar = -(-(last - first + 1) // _NUM_BARS)
    num_bars = -(-(last - first + 1) // bins_per_bar)
    bars = [0] * num_bars
    for number, count in values.bins.items():
        bars[min((number - first) // bins_per_bar, num_bars - 1)] += count
    highest, width = max(bars), _WIDTH / num_bars
    rectangles = "".join(
        f'<rect x="{index * width:.1f}" y="{_BASE - 115 * count / highest:.1f}" width="{max(width - 1, 0.5):.1f}" '
        f'height="{115 * count / highest:.1f}"><title>{count:,}</title></rect>'
        for index, count in enumerate(bars)
        if count
    )
    left, right = (f"{number * values.bin_width / unit:,.6g}" for number in (first, last + 1))
    beyond = " and more" if max(values.bins) > last else ""
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{rectangles}'
        f'<text x="0" y="{_HEIGHT - 8}">{left}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT - 8}" text-anchor="end">{right}{beyond}</text>'
        f'<text x="{_WIDTH}" y="12" text-anchor="end">highest bar: {highest:,}</text></svg>'
    )


def _table(rows: dict[str, Any]) -> str:
    cells = "".join(
        f"<tr><th>{escape(name.replace('_', ' '))}</th><td>{value:,}</td></tr>"
        for name, value in rows.items()
    )
    return f"<table>{cells}</table>"
