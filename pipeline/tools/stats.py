"""The stage `stats`: how much there is in a folder of shards, and what it is like."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from clipvip.pipeline.pages.cards import Card, Cards, draw_cards, pick_evenly
from clipvip.pipeline.pages.html import Section, render_page
from clipvip.pipeline.pages.plots import Plot
from clipvip.pipeline.pages.tables import Column, Table
from clipvip.pipeline.runtime.device import num_cores
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.options import ALSO, Captions, Workers, at_least, opt, options, require_captions
from clipvip.pipeline.runtime.progress import Progress
from clipvip.pipeline.runtime.report import StageReport, most_first
from clipvip.pipeline.runtime.stage import StageOptions, stage
from clipvip.pipeline.runtime.workers import run_plain_units, run_units
from clipvip.pipeline.tools.tally import Distribution, Tally, tally_shard
from clipvip.shards.checking.state import read_skips
from clipvip.shards.errors import DatasetError
from clipvip.shards.files.atomic import atomic_write_bytes, write_json
from clipvip.shards.files.claims import MANIFEST_NAME, SKIPPED_NAME
from clipvip.shards.files.hashes import HashStore
from clipvip.shards.files.places import is_file, make_folder
from clipvip.shards.files.stores import Location
from clipvip.shards.tar.reader import list_shards

STATS_NAME = "stats.json"
PAGE_NAME = "stats.html"
_MAX_SIZES = 10
_FRAMES_PER_CARD = 4
_NUM_BARS = 40


@options
class StatsOptions(StageOptions):
    """Options of `stats`."""

    folder: Location = opt(argument=True, metavar="DIR", kw_only=False)
    captions: Captions = ()
    out: Location | None = opt(
        f"Folder for {STATS_NAME} and {PAGE_NAME}; {ALSO}.", shown="none is written", default=None
    )
    num: int = opt("Clips on the page.", at_least(0), default=24)
    workers: Workers = None


@dataclass(frozen=True, kw_only=True)
class StatsReport(StageReport):
    """The sums, how many videos there are, and reason -> how many clips were left out."""

    tally: Tally
    num_videos: int
    skipped: dict[str, int]


@stage(
    StatsOptions,
    "clipvip-data stats",
    "clips/ --captions captions/ --out stats/",
    "s3://bucket/clips",
    resumable=False,
)
def stats(options: StatsOptions) -> StatsReport:
    """Count clips, hours, bytes and words, by reading tar headers and records but no pixels.

    With --out, a page shows the distributions and some clips. DIR may also be in s3://, gs:// and hf://.

    Raises:
        UserError, DatasetError: there are no such shards or captions, or one cannot be added up.

    Examples:
        >>> import clipvip
        >>> clipvip.stats("test-clips").counts["clips"]
        12
    """
    folder, captions, out = options.folder, options.captions or (), options.out
    shards = list_shards(folder)
    require_captions(captions)
    workers = options.workers or num_cores()
    tally, num_videos = _add_up(shards, captions, workers)
    skipped = _skipped(folder)
    content = _content(tally, num_videos, skipped, folders=captions)
    if out is not None:
        make_folder(out)
        write_json(out / STATS_NAME, content)
        with_captions = () if tally.missing_captions else captions
        picks = list(pick_evenly(shards, options.num, captions=with_captions)) if options.num else []
        cards = draw_cards(picks, num_frames=_FRAMES_PER_CARD, workers=workers) if picks else []
        _write_page(out, folder.name, content, tally, cards)
        click.echo(f"stats: {STATS_NAME}, {PAGE_NAME} -> {out}", err=True)
    text = _table(folder, content)
    return StatsReport(content=content, text=text, tally=tally, num_videos=num_videos, skipped=skipped)


def _add_up(shards: Sequence[Location], captions: tuple[Location, ...], workers: int) -> tuple[Tally, int]:
    tally = Tally()
    tasks = ((number, path, captions) for number, path in enumerate(shards))
    videos = HashStore()
    # Others' samples, which stand in shards without a manifest, are read by FFmpeg: it may crash.
    run = run_plain_units if is_file(shards[0].parent / MANIFEST_NAME) else run_units
    with Progress("stats", total=len(shards), unit="shards") as bar:
        for outcome in run(tally_shard, tasks, workers=min(workers, len(shards))):
            if outcome.result is None:
                assert outcome.failure is not None
                raise UserError(
                    f"{outcome.unit[1]}: {outcome.failure.detail}; check it by 'clipvip-data verify'"
                )
            part, hashes = outcome.result
            tally.add_all(part)
            videos.add(outcome.unit[0], hashes)
            bar.add(1)
        return tally, videos.count_distinct()


def _skipped(folder: Location) -> dict[str, int]:
    """Reason -> how many clips the stage left out, the most frequent first."""
    try:
        return most_first(Counter(skip.reason for skip in read_skips(folder)))
    except DatasetError as error:
        raise DatasetError(f"{folder / SKIPPED_NAME}: damaged ({error}); run the stage again") from error


def _content(
    tally: Tally, num_videos: int, skipped: dict[str, int], *, folders: Sequence[Location]
) -> dict[str, Any]:
    clips = tally.frames.count
    content: dict[str, Any] = {
        "counts": {
            "shards": tally.shards,
            "clips": clips,
            "videos": num_videos,
            "hours": round(tally.clip_milliseconds.total / 3_600_000, 3),
            "frames": tally.frames.total,
            "bytes": tally.bytes,
            "clips_without_text": tally.clips_without_subtitle,
            "unreadable_clips": tally.unreadable_clips,
            "unreadable_shards": tally.unreadable_shards,
        },
        "clip_seconds": tally.clip_milliseconds.summary(unit=1000),
        "frames_per_clip": tally.frames.summary(),
        "bytes_per_clip": tally.clip_bytes.summary(),
        "words_per_text": tally.subtitle_words.summary(),
        "sizes": dict(list(most_first(tally.sizes).items())[:_MAX_SIZES]),
        "source_sizes": dict(list(most_first(tally.source_sizes).items())[:_MAX_SIZES]),
        "skipped": sum(skipped.values()),
        "skipped_by_reason": skipped,
    }
    if folders:
        content["captions"] = {
            "captions": tally.caption_words.count,
            "words": tally.caption_words.summary(),
            "files_missing": tally.missing_captions,
            "skipped_by_reason": most_first(tally.captions_skipped),
        }
    if len(folders) > 1:
        of_each = {str(folder): tally.captions_by_folder[str(folder)] for folder in folders}
        content["captions"]["by_folder"] = of_each
    return content


def _table(folder: Location, content: dict[str, Any]) -> str:
    tables = (_counts_table(content), _summary_table(content))
    lines = [f"stats: {folder}", *(table.text(gap="", indent="  ") for table in tables if table.rows)]
    for title in ("sizes", "source_sizes", "skipped_by_reason"):
        if content[title]:
            shown = ", ".join(f"{name} {count:,}" for name, count in list(content[title].items())[:5])
            lines.append(f"  {title.replace('_', ' ')}: {shown}")
    return "\n".join(lines)


def _counts_table(content: dict[str, Any]) -> Table:
    """How many of what."""
    rows = [(name.replace("_", " "), value) for name, value in content["counts"].items()]
    if "captions" in content:
        rows.append(("captions", content["captions"]["captions"]))
        rows += [
            (f"of {folder}", number) for folder, number in content["captions"].get("by_folder", {}).items()
        ]
    return Table((Column(width=20), Column(spec=",", width=20)), rows)


def _summary_table(content: dict[str, Any]) -> Table:
    """Mean and quantiles of each distribution that has values."""
    names = ("clip_seconds", "frames_per_clip", "bytes_per_clip", "words_per_text")
    found = {name: content[name] for name in names}
    found["words_per_caption"] = content.get("captions", {}).get("words")
    parts = ("min", "p05", "median", "mean", "p95", "max")
    rows = [(name.replace("_", " "), *map(row.get, parts)) for name, row in found.items() if row]
    return Table([Column(width=20), *(Column(part, ",.6g", 13) for part in parts)], rows)


def histogram(values: Distribution, *, title: str, unit: float = 1) -> Plot:
    """At most 40 bars over the values in `unit` up to the 99th percentile; the last counts all above."""
    # Values in bins 0 to 99 make 34 bars of 3 bins: with 2 bins a bar there would be 50.
    first = min(values.bins)
    last = max(first, min(values.quantile(0.99) // values.bin_width, max(values.bins)))
    bins_per_bar = -(-(last - first + 1) // _NUM_BARS)
    bars = [0] * -(-(last - first + 1) // bins_per_bar)
    for number, count in values.bins.items():
        bars[min((number - first) // bins_per_bar, len(bars) - 1)] += count
    is_whole = values.bin_width == unit == 1
    # A whole number stands under the middle of its bar.
    ends = (number - 0.5 * is_whole for number in (first, first + len(bars) * bins_per_bar))
    start, end = (number * values.bin_width / unit for number in ends)
    beyond = "the last bar counts all larger values" if max(values.bins) > last else ""
    return Plot(title, beyond, (start, end), (0, max(bars)), bars=bars, is_whole=is_whole)


def _write_page(
    out: Location, name: str, content: dict[str, Any], tally: Tally, cards: Sequence[Card]
) -> None:
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
        Section(blocks=[_counts_table(content)]),
        Section("Distributions", blocks=[_summary_table(content), *counts]),
        Section(blocks=plots),
    ]
    if cards:
        sections.append(Section("Some clips", blocks=[Cards(cards)]))
    atomic_write_bytes(out / PAGE_NAME, render_page(f"Statistics of {name}", sections))
