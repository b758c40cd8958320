"""Clips as a page to look at: a few frames, the text and the caption of each, in one HTML file without links.

Which clips is for the commands to say; text is other people's and is escaped.
"""

import base64
import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from clipvip.media.errors import one_line
from clipvip.media.jpeg import encode_jpeg
from clipvip.pipeline.runtime.workers import run_units
from clipvip.shards.errors import DatasetError
from clipvip.shards.format.captions import captions_path, read_caption_file
from clipvip.shards.format.record import ClipRecord, parse_record
from clipvip.shards.tar.index import SampleSpan, ShardFile
from clipvip.shards.tar.reader import Sample, read_text_member

_THUMBNAIL_SIDE = 200
_SECONDS_PER_CARD = 60.0
_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;max-width:80rem;margin:2rem auto;padding:0 1rem;color:#1c2430}
h1{font-size:1.6rem} h2{font-size:1.15rem;margin-top:2.2rem} small,th{color:#586273;font-weight:normal}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(24rem,1fr));gap:1rem}
.card{border:1px solid #d8dde5;border-radius:8px;padding:.6rem;overflow-wrap:anywhere}
.frames{display:flex;gap:2px} .frames img{flex:1 1 0;min-width:0;object-fit:cover}
.card p{margin:.4rem 0 0} .card b{color:#586273;font-weight:600;font-size:.75rem;text-transform:uppercase}
table{border-collapse:collapse} th,td{padding:.15rem 1rem .15rem 0;text-align:left;vertical-align:top}
.tables{display:flex;flex-wrap:wrap;gap:0 4rem} .tables section{min-width:14rem}
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(24rem,1fr));gap:1rem}
figure{margin:0} figcaption{font-size:.9rem} svg{width:100%;height:auto}
svg rect{fill:#3b6fb6} svg text{font:11px system-ui,sans-serif;fill:#586273}
"""


@dataclass(frozen=True, slots=True)
class Pick:
    """A clip that is shown: where it is, its record, texts and caption, and what is wrong with it.

    `notes` are what a command has to say of it: (kind, text), shown first.
    """

    path: Path
    place: int
    key: str
    record: ClipRecord | None = None
    num_bytes: int = 0
    caption: str | None = None
    problem: str = ""
    notes: tuple[tuple[str, str], ...] = ()


def pick_evenly(
    shards: Sequence[Path], num: int, *, captions: Path | None = None, damage: list[str] | None = None
) -> Iterator[Pick]:
    """Yield up to `num` clips at even distances from shards at even distances, without reading the others.

    Of a damaged shard those before the damage; `damage` is given a line that says where it is. Only where these
    shards have none at all, others are looked into.
    """
    numbers = _middles(len(shards), min(num, len(shards)))
    shares = {number: num // len(numbers) + (n < num % len(numbers)) for n, number in enumerate(numbers)}
    others = {number: num for number in range(len(shards)) if number not in shares}
    is_found = False
    for number, wanted in (shares | others).items():
        if is_found and number in others:
            return
        with ShardFile(shards[number]) as shard:
            spans = list(_readable(shard, damage))
            places = _middles(len(spans), min(wanted, len(spans)))
            picks = [_pick(shard, spans[place], place) for place in places]
        is_found = is_found or bool(picks)
        yield from _with_captions(picks, captions)


def _middles(length: int, parts: int) -> list[int]:
    """The middle of each of `parts` equal parts of 0 to `length` - 1."""
    return [(2 * part + 1) * length // (2 * parts) for part in range(parts)]


def pick_keys(
    shards: Sequence[Path],
    keys: Sequence[str],
    *,
    captions: Path | None = None,
    damage: list[str] | None = None,
) -> Iterator[Pick]:
    """Yield the clips with the keys `keys`, looking into shard after shard until all are found.

    `damage` is as for `pick_evenly`.
    """
    wanted = set(keys)
    for path in shards:
        with ShardFile(path) as shard:
            found = [(p, span) for p, span in enumerate(_readable(shard, damage)) if span.key in wanted]
            picks = [_pick(shard, span, place) for place, span in found]
        yield from _with_captions(picks, captions)
        wanted -= {pick.key for pick in picks}
        if not wanted:
            return


def _readable(shard: ShardFile, damage: list[str] | None) -> Iterator[SampleSpan]:
    """The samples before the damage, if there is any; `damage` is told of it."""
    try:
        yield from shard.spans()
    except DatasetError as error:
        if damage is not None:
            damage.append(str(error))


def _pick(shard: ShardFile, span: SampleSpan, place: int) -> Pick:
    pick = Pick(shard.path, place, span.key)
    extension = span.extension
    if extension is None:
        problem = span.problem or f"its members are {', '.join(span.members)}"
        return replace(pick, problem=f"not a whole sample: {problem}"[:200])
    pick = replace(pick, num_bytes=span.members[extension][1])
    try:
        return replace(pick, record=parse_record(read_text_member(shard, span, "json")))
    except DatasetError as error:
        return replace(pick, problem=one_line(error))


def _with_captions(picks: list[Pick], captions: Path | None) -> Iterator[Pick]:
    if captions is None or not picks:
        yield from picks
        return
    found = dict(read_caption_file(captions_path(captions, picks[0].path.stem)).rows)
    for pick in picks:
        yield replace(pick, caption=found.get(pick.key))


def render_cards(picks: Sequence[Pick], *, num_frames: int, workers: int) -> str:
    """The clips' cards with up to `num_frames` frames each; one that does not decode says so."""
    return grid(render_each(picks, num_frames=num_frames, workers=workers))


def render_each(picks: Sequence[Pick], *, num_frames: int, workers: int) -> list[str]:
    """As `render_cards`, but card by card, to be laid out in several grids."""
    tasks = [(number, pick, num_frames) for number, pick in enumerate(picks)]
    cards = {}
    for outcome in run_units(render_card, tasks, workers=workers, timeout_seconds=_SECONDS_PER_CARD):
        number, pick, _ = outcome.unit
        if outcome.failure is not None:
            cards[number] = _card(pick, [], outcome.failure.detail)
        else:
            cards[number] = str(outcome.result)
    return [cards[number] for number in sorted(cards)]


def grid(cards: Sequence[str]) -> str:
    return f'<div class="cards">{"".join(cards)}</div>'


def render_card(task: tuple[int, Pick, int]) -> str:
    """One card, in a process that may die of its pixels."""
    _, pick, num_frames = task
    if pick.record is None:
        return _card(pick, [], pick.problem)
    try:
        with ShardFile(pick.path) as shard:
            span = next(span for place, span in enumerate(shard.spans()) if place == pick.place)
            extension = span.extension
            assert extension is not None
            sample = Sample(pick.key, pick.record, extension, shard.read(span, extension))
        # Of one part, the middle is the frame that is captioned.
        indices = _middles(sample.num_frames, min(num_frames, sample.num_frames))
        return _card(pick, [thumbnail_url(frame) for frame in sample.decode(indices)], "")
    except DatasetError as error:
        return _card(pick, [], one_line(error))


def thumbnail_url(frame: np.ndarray, *, side: int = _THUMBNAIL_SIDE) -> str:
    """A frame, uint8 (height, width, 3), made small enough for `side` pixels, as the address of an <img>."""
    image = Image.fromarray(frame)
    image.thumbnail((side, side))
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(np.asarray(image))).decode()


def _card(pick: Pick, pictures: Sequence[str], problem: str) -> str:
    frames = "".join(f'<img alt="" src="{url}">' for url in pictures)
    texts = "".join(f"<p><b>{name}</b> {escape(text)}</p>" for name, text in (*pick.notes, *texts_of(pick)))
    trouble = f"<p><b>problem</b> {escape(problem)}</p>" if problem else ""
    where = f"{pick.path.name} {pick.key} · {facts_of(pick)}"
    return f'<div class="card"><div class="frames">{frames}</div>{texts}{trouble}<p><small>{escape(where)}</small></p></div>\n'


def texts_of(pick: Pick) -> list[tuple[str, str]]:
    """What there is to read of a clip: (kind, text)."""
    texts: list[tuple[str, str]] = []
    if pick.record is not None:
        texts += [("text", pick.record.subtitle)] if pick.record.subtitle else []
        texts += [("sentence", sentence) for sentence in pick.record.sentences or []]
    return texts + ([("caption", pick.caption)] if pick.caption is not None else [])


def facts_of(pick: Pick) -> str:
    """Video, span, frames, size and bytes of a clip in a line."""
    record = pick.record
    if record is None:
        return f"{pick.num_bytes:,} bytes"
    start, end = record.span_seconds
    return (
        f"{start:.2f} to {end:.2f} s of {record.video_id}, {len(record.frame_seconds)} frames, "
        f"{record.width}x{record.height}, {pick.num_bytes:,} bytes"
    )


def page(title: str, body: str) -> bytes:
    """A whole page that needs no other file."""
    text = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>\n<h1>{escape(title)}</h1>\n{body}\n</body></html>\n"
    )
    return text.encode("utf-8", "replace")


def escape(value: object) -> str:
    return html.escape(str(value))
