"""The files in which video sets publish their captions, and the records in which others pass them on.

All give rows of video, sentence and time. What these become is said in `video_sets`.
"""

import io
import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.files.names import id_of
from clipvip.shards.files.places import read_whole
from clipvip.shards.files.stores import Location
from clipvip.shards.files.text import kind_of, parse_json
from clipvip.shards.sources.hdvila import VIDEO_EXTENSIONS
from clipvip.shards.sources.table_files import column_of, is_json, open_table, read_fields
from clipvip.shards.sources.text_files import text_lines


@dataclass(frozen=True, slots=True)
class Row:
    """One sentence about one video; `time` orders the sentences of a video, where the file has one.

    With a `span`, in seconds, the sentence is about that part of the video, which is then a clip; else about
    all of it.
    """

    video: str
    sentence: str
    time: tuple[float, ...] = ()
    span: tuple[float, float] | None = None


Rows = Iterator[Row | Skip]
_MOST_SECONDS = 1e9


def read_text(path: Location) -> str:
    """The file as text, in whatever encoding (`text_files`). DatasetError: missing or empty."""
    try:
        data = read_whole(path)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror or error})") from error
    text = "".join(text_lines(io.BytesIO(data), path))
    if not text.strip():
        raise DatasetError(f"{path}: is empty")
    return text


def read_json(path: Location) -> JsonValue:
    """Raises DatasetError where `path` is missing or no JSON."""
    text = read_text(path)
    try:
        return parse_json(text)
    except ValueError as error:
        raise DatasetError(f"{path}: is not JSON ({str(error)[:100]})") from error


def read_json_lines(path: Location) -> Iterator[tuple[int, JsonValue]]:
    """Number and value of each line that is not blank, None for no JSON. Raises as `read_text`."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            try:
                value = parse_json(line)
            except ValueError:
                value = None
            yield number, value


def first_of(fields: Mapping[str, JsonValue], names: Sequence[str]) -> JsonValue:
    """The value of the first of the names that there is; None where there is none."""
    return next((fields[name] for name in names if name in fields), None)


def make_row(where: str, video: JsonValue, sentence: JsonValue, time: tuple[float, ...] = ()) -> Row | Skip:
    """A row, or why it is none: want a name, or a whole number that is one, and a sentence with words."""
    video = id_of(video)
    if not isinstance(video, str) or not isinstance(sentence, str):
        return Skip("bad_annotation", where, "its video or its sentence is not a text")
    # A lone surrogate (a JSON escape can hold one) has no UTF-8 form and would fail when written.
    video, sentence = video.strip(), " ".join(sentence.encode("utf-8", "replace").decode("utf-8").split())
    if not video:
        return Skip("bad_annotation", where, "has no video")
    if not sentence:
        return Skip("empty_caption", where, f"video {video[:80]}")
    return Row(video, sentence, time)


def video_name(name: str) -> str:
    """The name of a video without folder and extension, as `index_videos` has it: `a/b.1.mp4` is `b.1`."""
    base = name.strip().rpartition("/")[2]
    stem, extension = os.path.splitext(base)
    return stem if extension.lower() in VIDEO_EXTENSIONS else base


def records_of(path: Path, content: JsonValue) -> list[JsonValue]:
    if not isinstance(content, list) or not content:
        raise DatasetError(f"{path}: must be a list of annotations, not {kind_of(content)}")
    return content


def read_msrvtt(path: Path, *, split: str | None = None, videos: frozenset[str] | None = None) -> Rows:
    """MSRVTT_data.json: the sentences of the videos of a split, or of `videos`.

    Raises DatasetError for another kind of file, or a split that it does not know.
    """
    content = read_json(path)
    known, sentences = (
        content.get(n) if isinstance(content, dict) else None for n in ("videos", "sentences")
    )
    if not isinstance(known, list) or not isinstance(sentences, list):
        raise DatasetError(f"{path}: has no 'videos' and 'sentences'; give MSR-VTT's MSRVTT_data.json")
    if videos is None:
        listed = [entry for entry in known if isinstance(entry, dict)]
        videos = frozenset(
            str(id_of(entry.get("video_id"))) for entry in listed if entry.get("split") == split
        )
        if not videos:
            raise DatasetError(f"{path}: has no videos of the split {split}")
    for number, entry in enumerate(sentences):
        where = f"{path.name}, sentence {number}"
        if not isinstance(entry, dict):
            yield Skip("bad_annotation", where, "is no record")
        elif not isinstance(video := id_of(entry.get("video_id")), str) or video in videos:
            yield make_row(where, entry.get("video_id"), entry.get("caption"))


def read_didemo(path: Path) -> Rows:
    """DiDeMo's train_data.json, val_data.json, test_data.json.

    Annotators gave spans; a sentence's time is the median of their starts, then of their ends.
    """
    for number, entry in enumerate(records_of(path, read_json(path))):
        where = f"{path.name}, record {number}"
        if not isinstance(entry, dict):
            yield Skip("bad_annotation", where, "is no record")
            continue
        spans = _spans(entry.get("times"))
        time = tuple(map(statistics.median, zip(*spans, strict=True))) if spans else ()
        video = entry.get("video")
        # The name of the original upload; people keep the files under other extensions.
        name = video.rpartition(".")[0] if isinstance(video, str) and "." in video else video
        yield make_row(where, name, entry.get("description"), time)


def _spans(value: JsonValue) -> list[tuple[float, float]]:
    """The pairs of numbers that `value` lists; none where something else is among them."""
    spans = []
    for pair in value if isinstance(value, list) else []:
        start, end = map(_seconds, pair) if isinstance(pair, list) and len(pair) == 2 else (None, None)
        if start is None or end is None:
            return []
        spans.append((start, end))
    return spans


def _seconds(value: JsonValue) -> float | None:
    """A number of a size that seconds can have (JSON may hold NaN and 10^400)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < _MOST_SECONDS else None


def read_activitynet(path: Path) -> Rows:
    """ActivityNet Captions' train.json, val_1.json, val_2.json: video -> sentences and spans in seconds."""
    content = read_json(path)
    if not isinstance(content, dict) or not content:
        raise DatasetError(f"{path}: must be an object of video ids with 'sentences' and 'timestamps'")
    for video, entry in content.items():
        fields = entry if isinstance(entry, dict) else {}
        sentences = fields.get("sentences")
        if not isinstance(sentences, list):
            yield Skip("bad_annotation", f"{path.name}, {video[:80]}", "has no list of sentences")
            continue
        spans = _spans(fields.get("timestamps"))
        if len(spans) != len(sentences):
            spans = [(0.0, 0.0)] * len(sentences)  # the order in the file, which is that of time
        for number, (sentence, span) in enumerate(zip(sentences, spans, strict=True)):
            yield make_row(f"{path.name}, {video[:80]}, sentence {number}", video, sentence, span)


def read_table(path: Location, *, video: Sequence[str], sentence: Sequence[str]) -> Rows:
    """A table with a header; `video` and `sentence` are the names that their columns may have.

    Raises DatasetError where it has no such columns, or is no table.
    """
    if is_json(path):
        names = [[name.lower() for name in given] for given in (video, sentence)]
        for where, fields in read_fields(path):
            yield make_row(where, first_of(fields or {}, names[0]), first_of(fields or {}, names[1]))
        return
    header, rows = open_table(path)
    at_video, at_sentence = (column_of(path, header, names) for names in (video, sentence))
    for number, cells in enumerate(rows, start=1):
        where = f"{path.name}, row {number}"
        if not cells:
            continue
        if len(cells) <= max(at_video, at_sentence):
            yield Skip("bad_annotation", where, f"has {len(cells)} cells")
            continue
        yield make_row(where, cells[at_video], cells[at_sentence])


def read_column(path: Path, name: str) -> frozenset[str]:
    """The values of one column, such as the list of videos of a split; DatasetError where there is none."""
    header, rows = open_table(path)
    column = column_of(path, header, [name])
    names = (str(cells[column]).strip() for cells in rows if len(cells) > column)
    return frozenset(filter(None, names))


def read_lsmdc(path: Path) -> Rows:
    """LSMDC's tables, with or without a header: clip id, four times, sentence, between tabs."""
    for number, line in enumerate(read_text(path).split("\n")):
        cells = line.split("\t")
        where = f"{path.name}, line {number + 1}"
        if not line.strip() or (number == 0 and cells[0].strip().lower() in {"video_id", "clip_id", "id"}):
            continue
        if len(cells) < 2:
            yield Skip("bad_annotation", where, "has no clip id and sentence between tabs")
            continue
        # Sentences follow the times; some rows have a tab after them.
        sentence = cells[5] if len(cells) >= 6 else cells[-1]
        yield make_row(where, video_name(cells[0]), sentence)


_VIDEO_FIELDS = ("clip_id", "video_id", "video")
_TEXT_FIELDS = ("text", "caption", "captions", "sentences", "sentence")


def read_records(path: Path) -> Rows:
    """Records `{"clip_id": ..., "text": sentence or list}`, also named `video`, `caption`, `sentences`, ...

    One a line (.jsonl, as the released code takes them), or as .json a list of them, or an object of videos
    and records. The sentences of a record are in order of its `timestamps`, or `start` and `end`, where there
    are as many of these. Raises DatasetError where there is no such record.
    """
    num_good = 0
    for where, video, entry in _records(path):
        if not isinstance(entry, dict):
            yield Skip("bad_annotation", where, "is no JSON record")
            continue
        for row in _rows_of_record(where, first_of(entry, _VIDEO_FIELDS) if video is None else video, entry):
            num_good += isinstance(row, Row)
            yield row
    if not num_good:
        raise DatasetError(f'{path}: has no record such as {{"clip_id": "video1", "text": "a sentence"}}')


def has_records(content: JsonValue) -> bool:
    """Whether parsed JSON is of a form that `read_records` reads; no set publishes its own file in one."""
    names = _TEXT_FIELDS if isinstance(content, list) else ("text", "caption", "captions")
    entries = list(content.values()) if isinstance(content, dict) else content
    return isinstance(entries, list) and any(
        isinstance(entry, dict) and first_of(entry, names) is not None for entry in entries
    )


def _records(path: Path) -> Iterator[tuple[str, str | None, JsonValue]]:
    """Place in the file, name of the video where it stands before the record, record."""
    if path.suffix.lower() == ".jsonl":
        yield from ((f"{path.name}, line {number}", None, entry) for number, entry in read_json_lines(path))
        return
    content = read_json(path)
    if isinstance(content, dict):
        yield from ((f"{path.name}, {video[:80]}", video, entry) for video, entry in content.items())
    elif isinstance(content, list):
        yield from ((f"{path.name}, record {n}", None, entry) for n, entry in enumerate(content))


def _rows_of_record(where: str, video: JsonValue, entry: Mapping[str, JsonValue]) -> Rows:
    text = first_of(entry, _TEXT_FIELDS)
    sentences = text if isinstance(text, list) else [text]
    video = id_of(video)
    name = video_name(video) if isinstance(video, str) else video
    for sentence, time in zip(sentences, _times(entry, len(sentences)), strict=True):
        yield make_row(where, name, sentence, time)


def _times(entry: Mapping[str, JsonValue], count: int) -> list[tuple[float, float]]:
    """What orders the sentences: their spans, else their places."""
    spans, starts, ends = (entry.get(name) for name in ("timestamps", "start", "end"))
    if spans is None and isinstance(starts, list) and isinstance(ends, list):
        spans = [list(span) for span in zip(starts, ends, strict=False)]
    times = _spans(spans)
    return times if len(times) == count else [(float(place), float(place)) for place in range(count)]
