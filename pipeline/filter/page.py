"""The page of `clipvip-data filter`: how columns are spread, and clips at each cut, to see what it does."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

import numpy as np

from clipvip.pipeline.filter.known import Known
from clipvip.pipeline.filter.leaks import Leak
from clipvip.pipeline.filter.selection import Conditions, Selection
from clipvip.pipeline.pages.cards import Card, Cards, Pick, draw_cards
from clipvip.pipeline.pages.html import Block, Section, render_page
from clipvip.pipeline.pages.plots import Plot
from clipvip.pipeline.pages.tables import Column, Table
from clipvip.pipeline.runtime.device import num_cores
from clipvip.pipeline.runtime.report import Report, counted
from clipvip.pipeline.search.index import Hit, Shard
from clipvip.pipeline.search.page import look_up
from clipvip.shards.files.stores import Location

PAGE_NAME = "filter.html"
_NUM_BARS = 40
_LEAST_RANGE = 0.001
_BEYOND = "the last bar counts all larger values"
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
    """Some clips, one below the other under a title: shard, key and notes of each."""

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
    drawn = iter(_draw([*chain.from_iterable(cuts.values()), *pairs, *leaked]))
    sections = [
        Section(blocks=[_counts(report, chosen)]),
        Section("Distributions", blocks=[_summary(report), *_languages(known)]),
        Section(blocks=_plots(known)),
    ]
    for option, strips in cuts.items():
        note = "The clips nearest to the threshold: those that it keeps, and those that it drops."
        sections.append(Section(f"At the cut: {option}", note, list(islice(drawn, len(strips)))))
    if pairs:
        note = (
            "Each pair is a clip and the clip that is most similar to it. The two count as duplicates if "
            f"their similarity is {similarity:g} or more. The pairs nearest to this threshold are shown."
        )
        sections.append(Section("Near-duplicates", note, list(islice(drawn, len(pairs)))))
    if "leaks" in known.made_of:
        note = f"{counted(len(leaks), 'findings')}; leaks.jsonl lists all."
        table = [_leak_table(leaks)] if leaks else []
        sections += [Section("Clips that test sets also have", note, table), Section(blocks=list(drawn))]
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
    """At most 40 bars up to the 99.5th percentile; the last counts all larger values. Of whole numbers, each
    bar stands over as many of them as any other."""
    values = values.astype(np.float64)
    low, high, num = float(values.min()), float(np.quantile(values, 0.995)), _NUM_BARS
    is_whole = bool((values == np.floor(values)).all())
    if is_whole:
        span = math.floor(high - low) + 1
        width = -(-span // _NUM_BARS)
        num = -(-span // width)
        low, high = low - 0.5, low - 0.5 + width * num
    elif high - low < _LEAST_RANGE:  # all are alike
        low, high = low - _LEAST_RANGE / 2, low + _LEAST_RANGE / 2
    bars, _ = np.histogram(np.minimum(values, high), num, (low, high))
    beyond = _BEYOND if values.max() > high else ""
    return Plot(title, beyond, (low, high), (0, int(bars.max())), bars=bars.tolist(), is_whole=is_whole)


def _languages(known: Known) -> list[Block]:
    counts = known.counts_of_languages().most_common(_MOST_ROWS)
    return [Table((Column("language"), Column("clips", ",")), counts)] if counts else []


def _cuts(known: Known, chosen: Selection, conditions: Conditions, num: int) -> dict[str, list[_Strip]]:
    """For each threshold, by its option, the clips next to it that are kept, and those that are dropped."""
    wanted = [(str(bound), bound.column, bound.cut, bound.least is not None) for bound in conditions.bounds]
    if conditions.top is not None and chosen.cut is not None:
        wanted.append((f"--top {conditions.top:g}", conditions.by, chosen.cut, True))
    cuts: dict[str, list[_Strip]] = {}
    for option, column, cut, keeps_above in wanted:
        values = known.clips.numbers[column]
        for is_above in (keeps_above, not keeps_above):
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
            cuts.setdefault(option, []).append(_Strip(f"{option} {verdict}", found, notes))
    return cuts


def _pairs(known: Known, least: float, num: int) -> list[_Strip]:
    """Clips with those that they are most like, next to the threshold at both sides."""
    if "duplicates" not in known.made_of:
        return []
    values = known.clips.numbers["similarity"]
    strips = []
    for verdict, inside in (
        ("duplicates", values >= np.float32(least)),
        ("no duplicates", values < np.float32(least)),
    ):
        places = np.flatnonzero(inside)
        places = places[np.argsort(np.abs(values[places] - np.float32(least)), kind="stable")]
        seen: set[frozenset[str]] = set()
        near = places[: 2 * num].tolist()  # two that are most like each other make one pair
        for place, (shard, key), other in zip(near, known.find(near), known.similar_to(near), strict=True):
            if frozenset((key, other)) in seen or len(seen) == num:
                continue
            seen.add(frozenset((key, other)))
            clips = [(shard.path, key), *_places_of(known.shards, [other])]
            strips.append(_Strip(f"Similarity {values[place]:.4f}: {verdict}", clips, [(), ()]))
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
        notes = [(), (("test set", leak.test_set),)]
        strips.append(_Strip(f"Similarity {leak.similarity:.4f}", clips, notes))
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
