"""The page of `clipvip-data stats`: numbers, distributions as pictures, and some clips."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipvip.pipeline.pages.cards import Card, Cards
from clipvip.pipeline.pages.html import Section, render_page
from clipvip.pipeline.pages.plots import Plot
from clipvip.pipeline.pages.tables import Column, Table
from clipvip.pipeline.tools.tally import Distribution, Tally
from clipvip.shards.files.atomic import atomic_write_bytes

PAGE_NAME = "stats.html"
_NUM_BARS = 40


def write_page(out: Path, name: str, content: dict[str, Any], tally: Tally, cards: Sequence[Card]) -> None:
    """Write stats.html into `out`."""
    distributions = [
        ("Length of clips (seconds)", tally.clip_milliseconds, 1000),
        ("Frames of a clip", tally.frames, 1),
        ("Size of a clip (kB)", tally.clip_bytes, 1000),
        ("Words of a text", tally.subtitle_words, 1),
        ("Words of a caption", tally.caption_words, 1),
    ]
    plots = [
        histogram(values, title=title, unit=unit) for title, values, unit in distributions if values.count
    ]
    counts = [
        Table((Column(key.replace("_", " ")), Column("clips", ",")), list(content[key].items()))
        for key in ("sizes", "source_sizes", "skipped_by_reason")
        if content[key]
    ]
    sections = [
        Section(blocks=[counts_table(content)]),
        Section("Distributions", blocks=[summary_table(content), *plots, *counts]),
    ]
    if cards:
        sections.append(Section("Some clips", blocks=[Cards(cards)]))
    atomic_write_bytes(out / PAGE_NAME, render_page(f"Statistics of {name}", sections))


def counts_table(content: dict[str, Any]) -> Table:
    """How many of what."""
    rows = [(name.replace("_", " "), value) for name, value in content["counts"].items()]
    if "captions" in content:
        rows.append(("captions", content["captions"]["captions"]))
    return Table((Column(width=20), Column(spec=",", width=20)), rows)


def summary_table(content: dict[str, Any]) -> Table:
    """Mean and quantiles of each distribution that has values."""
    found = {
        name: content[name]
        for name in ("clip_seconds", "frames_per_clip", "bytes_per_clip", "words_per_text")
    }
    found["words_per_caption"] = content.get("captions", {}).get("words")
    names = ("min", "p05", "median", "mean", "p95", "max")
    rows = [(name.replace("_", " "), *map(row.get, names)) for name, row in found.items() if row]
    return Table([Column(width=20), *(Column(name, ",.6g", 13) for name in names)], rows)


def histogram(values: Distribution, *, title: str, unit: float = 1) -> Plot:
    """At most 40 bars over the values, in `unit`, up to the 99th percentile; the last holds what is beyond, too."""
    first = min(values.bins)
    last = max(first, min(values.quantile(0.99) // values.bin_width, max(values.bins)))
    bins_per_bar = -(-(last - first + 1) // _NUM_BARS)
    bars = [0] * -(-(last - first + 1) // bins_per_bar)
    for number, count in values.bins.items():
        bars[min((number - first) // bins_per_bar, len(bars) - 1)] += count
    start, end = (number * values.bin_width / unit for number in (first, first + len(bars) * bins_per_bar))
    beyond = "the last bar: all beyond, too" if max(values.bins) > last else ""
    return Plot(title, beyond, (start, end), (0, max(bars)), bars=bars)
