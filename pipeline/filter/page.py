"""The page of `clipvip-data filter`: how columns are spread, and clips at each cut, to see what it does."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from clipvip.pipeline.filter.known import Known
from clipvip.pipeline.filter.leaks import Leak
from clipvip.pipeline.filter.selection import Conditions, Selection
from clipvip.pipeline.pages.cards import Card, Cards, Pick, draw_cards
from clipvip.pipeline.pages.html import Block, Section, render_page
from clipvip.pipeline.pages.plots import Plot
from clipvip.pipeline.pages.tables import Column, Table
from clipvip.pipeline.runtime.device import num_cores
from clipvip.pipeline.runtime.report import Report
from clipvip.pipeline.search.index import Hit, Shard
from clipvip.pipeline.search.page import look_up
from clipvip.shards.files.stores import Location

PAGE_NAME = "filter.html"
_NUM_BARS = 40
_LEAST_RANGE = 0.001
_FRAMES = 5
_MOST_ROWS = 100
_TITLES = {
    "words": "Words of a subtitle",
    "caption_words": "Words of a caption",
    "seconds": "Length (seconds)",
    "motion": "Motion (difference of frames, of 255)",
    "score": "Similarity of clip and subtitle",
    "caption_score": "Similarity of clip and caption",
    "similarity": "Similarity to the nearest other clip",
}


@dataclass(frozen=True)
class _Strip:
    """Some clips, one below the other under a title, or side by side: shard, key and notes of each."""

    title: str
    clips: Sequence[tuple[Location, str]]
    notes: Sequence[tuple[tuple[str, str], ...]]


def filter_page(
    known: Known,
    chosen: Selection,
    conditions: Conditions,
    report: Report,
    leaks: Sequence[Leak],
    test_shards: Mapping[str, Sequence[Shard]],
    *,
    similarity: float,
    num: int,
) -> bytes:
    """The page as bytes; `num` clips at each side of a cut, and so many pairs."""
    cuts = _cuts(known, chosen, conditions, num)
    pairs = _pairs(known, similarity, num)
    leaked = _leaked(known, leaks, test_shards, num)
    drawn = iter(_draw([*cuts, *pairs, *leaked]))
    sections = [
        Section(blocks=[_counts(report, chosen)]),
        Section("How the clips are spread", blocks=[_summary(report), *_plots(known), *_languages(known)]),
    ]
    if cuts:
        note = "The clips nearest to each threshold: those that it keeps, and those that it drops."
        sections.append(Section("At the cut", note, list(islice(drawn, len(cuts)))))
    if pairs:
        note = (
            f"Clips beside the one that each is most like, nearest to the threshold {similarity:g}: "
            "are those above it the same, and those below it not?"
        )
        sections.append(Section("Near-duplicates", note, list(islice(drawn, len(pairs)))))
    if "leaks" in known.made_of:
        note = f"{len(leaks):,} findings; all are in leaks.jsonl."
        table = [_leak_table(leaks)] if leaks else []
        sections.append(Section("What test sets have too", note, [*table, *drawn]))
    return render_page("Choosing clips", sections)


def _counts(report: Report, chosen: Selection) -> Table:
    rows: list[tuple[str, int | float]] = [
        (name.replace("_", " "), count) for name, count in report.counts.items()
    ]
    rows += [(f"dropped by {name}", count) for name, count in chosen.dropped.items()]
    return Table((Column(width=20), Column(spec=",")), rows)


def _summary(report: Report) -> Table:
    parts = ("min", "p05", "median", "mean", "p95", "max", "unknown")
    rows = [
        (name.replace("_", " "), *(of[part] for part in parts))
        for name, of in report.details["columns"].items()
    ]
    return Table([Column(), *(Column(part, ",.6g") for part in parts)], rows)


def _plots(known: Known) -> list[Block]:
    plots: list[Block] = []
    for name, title in _TITLES.items():
        values = known.clips.numbers[name]
        values = values[~np.isnan(values)]
        if len(values):
            plots.append(_histogram(values, title))
    return plots


def _histogram(values: np.ndarray, title: str) -> Plot:
    """40 bars up to the 99.5th percentile, where the last holds all beyond, too."""
    values = values.astype(np.float64)
    low, high = float(values.min()), float(np.quantile(values, 0.995))
    if high - low < _LEAST_RANGE:  # all are alike
        low, high = low - _LEAST_RANGE / 2, low + _LEAST_RANGE / 2
    bars, _ = np.histogram(np.minimum(values, high), _NUM_BARS, (low, high))
    beyond = "the last bar: all beyond, too" if values.max() > high else ""
    return Plot(title, beyond, (low, high), (0, int(bars.max())), bars=bars.tolist())


def _languages(known: Known) -> list[Block]:
    counts = known.counts_of_languages().most_common(_MOST_ROWS)
    return [Table((Column("language"), Column("clips", ",")), counts)] if counts else []


def _cuts(known: Known, chosen: Selection, conditions: Conditions, num: int) -> list[_Strip]:
    """For each threshold the clips just above and just below."""
    wanted = [(str(bound), bound.column, bound.cut, bound.least is not None) for bound in conditions.bounds]
    if conditions.top is not None and chosen.cut is not None:
        wanted.append((f"--top {conditions.top:g}", conditions.by, chosen.cut, True))
    strips = []
    for option, column, cut, keeps_above in wanted:
        values = known.clips.numbers[column]
        for is_above in (True, False):
            if keeps_above:
                inside = values >= np.float32(cut) if is_above else values < np.float32(cut)
            else:
                inside = values > np.float32(cut) if is_above else values <= np.float32(cut)
            # The top is of what meets all else: of the clips above the cut it keeps these.
            if option.startswith("--top") and is_above:
                inside = inside & chosen.kept
            places = np.flatnonzero(inside)
            places = places[np.argsort(np.abs(values[places] - np.float32(cut)), kind="stable")][:num]
            if not len(places):
                continue
            verdict = "keeps" if is_above == keeps_above else "drops"
            found = [(shard.path, key) for shard, key in known.find(places.tolist())]
            notes = [((column.replace("_", " "), f"{values[place]:.4g}"),) for place in places]
            strips.append(_Strip(f"{option} {verdict}", found, notes))
    return strips


def _pairs(known: Known, least: float, num: int) -> list[_Strip]:
    """Clips with those that they are most like, next to the threshold at both sides."""
    if "duplicates" not in known.made_of:
        return []
    values = known.clips.numbers["similarity"]
    strips = []
    for title, inside in (
        ("the same", values >= np.float32(least)),
        ("different", values < np.float32(least)),
    ):
        places = np.flatnonzero(inside)
        places = places[np.argsort(np.abs(values[places] - np.float32(least)), kind="stable")]
        seen: set[frozenset[str]] = set()
        near = places[: 2 * num].tolist()  # two that are most like each other make one pair
        for place, (shard, key), other in zip(near, known.find(near), known.similar_to(near), strict=True):
            if frozenset((key, other)) in seen or len(seen) == num:
                continue
            seen.add(frozenset((key, other)))
            note = (("similarity", f"{values[place]:.4f}, taken for {title}"),)
            clips = [(shard.path, key), *_places_of(known.shards, [other])]
            strips.append(_Strip("", clips, [note, ()]))
    return strips


def _leaked(
    known: Known, leaks: Sequence[Leak], test_shards: Mapping[str, Sequence[Shard]], num: int
) -> list[_Strip]:
    """Clips beside those of test sets, the least alike first."""
    paths = {shard.path.name: shard.path for shard in known.shards}
    shown = [leak for leak in leaks if leak.by == "video" and leak.test_set in test_shards]
    strips = []
    for leak in sorted(shown, key=lambda leak: leak.similarity)[:num]:
        clips = [(paths[leak.shard], leak.key), *_places_of(test_shards[leak.test_set], [leak.item])]
        notes = [(("similarity", f"{leak.similarity:.4f}"),), (("test set", leak.test_set),)]
        strips.append(_Strip("", clips, notes))
    return strips


def _places_of(shards: Sequence[Shard], keys: Sequence[str]) -> list[tuple[Location, str]]:
    """The shards that have the keys."""
    from clipvip.pipeline.pages.cards import pick_keys

    return [(pick.path, pick.key) for pick in pick_keys([shard.path for shard in shards], keys)]


def _draw(strips: Sequence[_Strip]) -> Iterable[Cards]:
    """The clips of all strips, drawn together."""
    hits = [Hit(0.0, path, key) for strip in strips for path, key in strip.clips]
    picks: Mapping[Hit, Pick] = look_up(hits)
    notes = [note for strip in strips for note in strip.notes]
    shown = [replace(picks[hit], notes=note) for hit, note in zip(hits, notes, strict=True)]
    cards = iter(draw_cards(shown, num_frames=_FRAMES, workers=num_cores())) if shown else iter(list[Card]())
    for strip in strips:
        yield Cards(list(islice(cards, len(strip.clips))), strip.title)


def _leak_table(leaks: Sequence[Leak]) -> Table:
    titles = ("clip", "test set", "item", "by", "similarity", "text", "text of the test set")
    columns = [Column(title, ".4f" if title == "similarity" else "") for title in titles]
    rows = [
        (one.key, one.test_set, one.item, one.by, one.similarity, one.text[:200], one.test_text[:200])
        for one in leaks[:_MOST_ROWS]
    ]
    return Table(columns, rows)
