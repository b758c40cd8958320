"""Clips as cards of a page: a few frames, the text and the caption of each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
from PIL import Image

from clipvip.media.errors import one_line
from clipvip.media.jpeg import encode_jpeg
from clipvip.media.sampling import middles_of_parts
from clipvip.pipeline.pages.html import data_url
from clipvip.pipeline.runtime.report import counted
from clipvip.pipeline.runtime.workers import run_units
from clipvip.shards.errors import DatasetError
from clipvip.shards.files.stores import Location
from clipvip.shards.format.captions import captions_path, read_caption_file
from clipvip.shards.format.record import ClipRecord
from clipvip.shards.tar.index import SampleSpan, ShardFile
from clipvip.shards.tar.reader import Sample, WrongMembers, read_record

_THUMBNAIL_SIDE = 200
_MOST_COLUMNS = 6
_SECONDS_PER_CARD = 60.0


@dataclass(frozen=True, slots=True)
class Card:
    """A clip as it is drawn: pictures by their URLs, texts by their kinds, and where it comes from.

    `verdict` says whether it is the right one; None: that is no question.
    """

    pictures: Sequence[str]
    texts: Sequence[tuple[str, str]]
    where: str = ""
    verdict: bool | None = None

    @property
    def columns(self) -> int:
        """Pictures in a row: all up to six; of more, as many as make rows of one length, or nearly so."""
        count = len(self.pictures)
        if count <= _MOST_COLUMNS:
            return max(count, 1)
        full = next((number for number in range(_MOST_COLUMNS, 2, -1) if count % number == 0), 0)
        return full or -(-count // -(-count // _MOST_COLUMNS))


@dataclass(frozen=True)
class Cards:
    """A grid of clips, in more columns where none has two pictures.

    With a `title` they stand in one column, beside that of the next block where there is room.
    """

    template: ClassVar[str] = "cards.html"
    cards: Sequence[Card]
    title: str = ""


@dataclass(frozen=True, slots=True)
class Pick:
    """A clip that is shown: where it is, its record, texts and captions, and what is wrong with it.

    `notes` are what a command has to say of it: (kind, text), shown first. `captions_are` has a kind for each
    caption: which folder's, of which frame.
    """

    path: Location
    place: int
    key: str
    record: ClipRecord | None = None
    num_bytes: int = 0
    captions: tuple[str, ...] = ()
    captions_are: tuple[str, ...] = ()
    problem: str = ""
    notes: tuple[tuple[str, str], ...] = ()


def pick_evenly(
    shards: Sequence[Location],
    num: int,
    *,
    captions: Sequence[Location] = (),
    damage: list[str] | None = None,
) -> Iterator[Pick]:
    """Yield up to `num` clips at even distances from shards at even distances, without reading the others.

    Of a damaged shard those before the damage; `damage` is given a line that says where it is. Only where
    these shards have none at all, others are looked into.
    """
    # 12 clips of 5 shards: 3 of each of the first two, 2 of the others; 3 of 10: one each of 1, 5 and 8.
    numbers = _spread(len(shards), num)
    shares = {number: num // len(numbers) + (n < num % len(numbers)) for n, number in enumerate(numbers)}
    others = {number: num for number in range(len(shards)) if number not in shares}
    is_found = False
    for number, wanted in (shares | others).items():
        if is_found and number in others:
            return
        with ShardFile(shards[number]) as shard:
            spans = list(_readable(shard, damage))
            places = _spread(len(spans), wanted)
            picks = [_pick(shard, spans[place], place) for place in places]
        is_found = is_found or bool(picks)
        yield from _with_captions(picks, captions)


def _spread(length: int, num: int) -> list[int]:
    """Up to `num` of the numbers below `length`, evenly: `middles_of_parts`, also where there are none."""
    return middles_of_parts(length, num) if length and num else []


def pick_keys(
    shards: Sequence[Location],
    keys: Sequence[str],
    *,
    captions: Sequence[Location] = (),
    damage: list[str] | None = None,
) -> Iterator[Pick]:
    """Yield the clips with these keys, from shard after shard until all are found; see `pick_evenly`."""
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
    extension = span.extension or span.foreign_extension
    num_bytes = span.members[extension][1] if extension else 0
    pick = Pick(shard.path, place, span.key, num_bytes=num_bytes)
    try:
        return replace(pick, record=read_record(shard, span).record)
    except WrongMembers as error:
        return replace(pick, problem=f"not a whole sample: {error}"[:200])
    except DatasetError as error:
        return replace(pick, problem=one_line(error))


def _with_captions(picks: list[Pick], folders: Sequence[Location]) -> Iterator[Pick]:
    stem = picks[0].path.stem if picks else ""
    files = [read_caption_file(captions_path(folder, stem)) for folder in folders] if picks else []
    of_files = [file.all_captions() for file in files]
    for pick in picks:
        texts, kinds = list[str](), list[str]()
        for folder, file, captions in zip(folders, files, of_files, strict=True):
            of_clip = captions.get(pick.key, [])
            kind = f"caption {folder.name}" if len(folders) > 1 else "caption"
            seen = [f"{kind} at {frame.seconds:.2f} s" for frame in file.frames.get(pick.key, ())]
            kinds += seen or [kind] * len(of_clip)
            texts += of_clip
        yield replace(pick, captions=tuple(texts), captions_are=tuple(kinds))


def draw_cards(picks: Sequence[Pick], *, num_frames: int, workers: int) -> list[Card]:
    """The clips' cards as `draw_card` gives them, each in a process that may die of its pixels."""
    draw = partial(_draw, num_frames=num_frames)
    cards = [Card((), ())] * len(picks)
    for outcome in run_units(draw, enumerate(picks), workers=workers, timeout_seconds=_SECONDS_PER_CARD):
        number, pick = outcome.unit
        cards[number] = outcome.result or _card(pick, [], outcome.failure.detail if outcome.failure else "")
    return cards


def _draw(numbered: tuple[int, Pick], *, num_frames: int) -> Card:
    return draw_card(numbered[1], num_frames=num_frames)


def draw_card(pick: Pick, *, num_frames: int = 1) -> Card:
    """The clip's card with up to `num_frames` frames; one that does not decode says so."""
    if pick.record is None:
        return _card(pick, [], pick.problem)
    try:
        with ShardFile(pick.path) as shard:
            span = next(span for place, span in enumerate(shard.spans()) if place == pick.place)
            extension = span.extension or span.foreign_extension
            assert extension is not None
            sample = Sample(pick.key, pick.record, extension, shard.read(span, extension))
        # Of one part, the middle is the frame that is captioned.
        indices = middles_of_parts(sample.num_frames, num_frames)
        return _card(pick, [_thumbnail_url(frame) for frame in sample.decode(indices)], "")
    except DatasetError as error:
        return _card(pick, [], one_line(error))


def _thumbnail_url(frame: np.ndarray) -> str:
    """A frame, uint8 (height, width, 3), made small, as the address of an <img>."""
    image = Image.fromarray(frame)
    image.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
    return data_url(encode_jpeg(np.asarray(image)), kind="image/jpeg")


def _card(pick: Pick, pictures: Sequence[str], problem: str) -> Card:
    problems = [("problem", problem)] if problem else []
    texts = [*pick.notes, *texts_of(pick), *problems]
    return Card(pictures, texts, f"{pick.path.name} {pick.key} · {facts_of(pick)}")


def texts_of(pick: Pick) -> list[tuple[str, str]]:
    """What there is to read of a clip: (kind, text)."""
    record = pick.record
    texts = [("text", record.subtitle)] if record and record.subtitle else []
    texts += [("sentence", sentence) for sentence in (record.sentences if record else None) or []]
    return texts + list(zip(pick.captions_are, pick.captions, strict=True))


def facts_of(pick: Pick) -> str:
    """Video, span, frames, size and bytes of a clip in a line."""
    record = pick.record
    if record is None:
        return f"{pick.num_bytes:,} bytes"
    start, end = record.span_seconds
    return (
        f"{start:.2f} to {end:.2f} s of {record.video_id}, {counted(len(record.frame_seconds), 'frames')}, "
        f"{record.width}x{record.height}, {pick.num_bytes:,} bytes"
    )
