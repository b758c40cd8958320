"""The files in which video sets publish their captions, each read as it is: rows of video, sentence and time.

What a set is made of, and what its rows become, is said in `annotations`.
"""

import csv
import json
import os
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.sources.hdvila import VIDEO_EXTENSIONS


@dataclass(frozen=True, slots=True)
class Row:
    """One sentence about one video; `time` orders the sentences of a video, where the file has one."""

    video: str
    sentence: str
    time: tuple[float, ...] = ()


Rows = Iterator[Row | Skip]
_MOST_SECONDS = 1e9


def read_text(path: Path) -> str:
    """The file as text: UTF-8, or Windows-1252 as some published tables are.

    Raises:
        DatasetError: it is missing, or empty.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", "replace")
    if not text.strip():
        raise DatasetError(f"{path}: is empty")
    return text


def read_json(path: Path) -> Any:
    """Raises DatasetError where `path` is missing or no JSON."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: is not JSON ({str(error)[:100]})") from error


def make_row(where: str, video: Any, sentence: Any, time: tuple[float, ...] = ()) -> Row | Skip:
    """A row, or why it is none: both must be text, and the sentence have words."""
    if not isinstance(video, str) or not isinstance(sentence, str):
        return Skip("bad_annotation", where, "want a video and a sentence as text")
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


def records_of(path: Path, content: Any) -> list[Any]:
    if not isinstance(content, list) or not content:
        raise DatasetError(f"{path}: want a list of annotations, found {type(content).__name__}")
    return content


def read_msrvtt(path: Path, *, split: str | None = None, videos: frozenset[str] | None = None) -> Rows:
    """MSRVTT_data.json: the sentences of the videos of a split, or of `videos`.

    Raises:
        DatasetError: another kind of file, or a split that it does not know.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not all(
        isinstance(content.get(name), list) for name in ("videos", "sentences")
    ):
        raise DatasetError(f"{path}: want MSR-VTT's 'videos' and 'sentences'; is it MSRVTT_data.json?")
    if videos is None:
        listed = [entry for entry in content["videos"] if isinstance(entry, dict)]
        videos = frozenset(str(entry.get("video_id")) for entry in listed if entry.get("split") == split)
        if not videos:
            raise DatasetError(f"{path}: has no videos of the split {split}")
    for number, entry in enumerate(content["sentences"]):
        where = f"{path.name}, sentence {number}"
        if not isinstance(entry, dict):
            yield Skip("bad_annotation", where, "is no record")
        elif not isinstance(entry.get("video_id"), str) or entry["video_id"] in videos:
            yield make_row(where, entry.get("video_id"), entry.get("caption"))


def read_didemo(path: Path) -> Rows:
    """DiDeMo's train_data.json, val_data.json, test_data.json. Annotators gave spans of 5 s pieces; a sentence's time is
    the median of their starts, then of their ends."""
    for number, entry in enumerate(records_of(path, read_json(path))):
        where = f"{path.name}, record {number}"
        if not isinstance(entry, dict):
            yield Skip("bad_annotation", where, "is no record")
            continue
        spans = entry.get("times")
        time: tuple[float, ...] = ()
        if isinstance(spans, list) and spans and all(map(is_span, spans)):
            time = tuple(float(statistics.median(span[side] for span in spans)) for side in (0, 1))
        video = entry.get("video")
        # The name of the original upload; people keep the files under other extensions.
        name = video.rpartition(".")[0] if isinstance(video, str) and "." in video else video
        yield make_row(where, name, entry.get("description"), time)


def is_span(span: Any) -> bool:
    """Whether it is a pair of numbers, of a size that seconds can have (JSON may hold NaN and 10^400)."""
    return (
        isinstance(span, list)
        and len(span) == 2
        and all(type(number) in (int, float) and abs(number) < _MOST_SECONDS for number in span)
    )


def read_activitynet(path: Path) -> Rows:
    """ActivityNet Captions' train.json, val_1.json, val_2.json: video -> sentences and their spans in seconds."""
    content = read_json(path)
    if not isinstance(content, dict) or not content:
        raise DatasetError(f"{path}: want video ids with 'sentences' and 'timestamps'")
    for video, entry in content.items():
        sentences = entry.get("sentences") if isinstance(entry, dict) else None
        if not isinstance(sentences, list):
            yield Skip("bad_annotation", f"{path.name}, {video[:80]}", "has no list of sentences")
            continue
        spans = entry.get("timestamps")
        if not isinstance(spans, list) or len(spans) != len(sentences) or not all(map(is_span, spans)):
            spans = [[0.0, 0.0]] * len(sentences)  # the order in the file, which is that of time
        for number, (sentence, span) in enumerate(zip(sentences, spans, strict=True)):
            yield make_row(f"{path.name}, {video[:80]}, sentence {number}", video, sentence, tuple(span))


def read_table(path: Path, *, video: Sequence[str], sentence: Sequence[str]) -> Rows:
    """A table with a header; `video` and `sentence` are the names that their columns may have.

    Raises:
        DatasetError: it has no such columns, or is no table.
    """
    header, rows = _table(path, "\t" if path.suffix.lower() == ".tsv" else ",")
    columns = [
        next((header.index(name) for name in names if name in header), None) for names in (video, sentence)
    ]
    if None in columns:
        missing = " or ".join((video, sentence)[columns.index(None)])
        raise DatasetError(f"{path}: has no column {missing}; its columns are {_shown(header)}")
    at_video, at_sentence = (column for column in columns if column is not None)
    for number, cells in enumerate(rows, start=1):
        where = f"{path.name}, row {number}"
        if not cells:
            continue
        if len(cells) <= max(at_video, at_sentence):
            yield Skip("bad_annotation", where, f"has {len(cells)} cells")
            continue
        yield make_row(where, cells[at_video], cells[at_sentence])


def _table(path: Path, delimiter: str) -> tuple[list[str], Iterator[list[str]]]:
    """The names of the columns, and the rows below as they are read: WebVid's table has ten million."""
    rows = _rows(path, delimiter)
    header = next((cells for cells in rows if any(cell.strip() for cell in cells)), None)
    if header is None:
        raise DatasetError(f"{path}: is empty")
    return [name.strip() for name in header], rows


def _shown(names: list[str]) -> str:
    """Names of columns for a message, on one line also where the file is no table."""
    return "".join(c if c.isprintable() else "?" for c in ", ".join(names)[:200])


def _rows(path: Path, delimiter: str) -> Iterator[list[str]]:
    csv.field_size_limit(1 << 24)
    try:
        # Bytes that are no UTF-8 become lone surrogates, which no UTF-8 gives.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            yield from csv.reader(map(_repaired, file), delimiter=delimiter)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error
    except csv.Error as error:
        raise DatasetError(f"{path}: is not a table ({error})") from error


def _repaired(line: str) -> str:
    """The line, read as Windows-1252 where it is no UTF-8."""
    try:
        line.encode()
    except UnicodeEncodeError:
        return line.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
    return line


def read_column(path: Path, name: str) -> frozenset[str]:
    """The values of one column, such as the list of videos of a split; DatasetError where there is none."""
    header, rows = _table(path, ",")
    if name not in header:
        raise DatasetError(f"{path}: has no column {name}; its columns are {_shown(header)}")
    column = header.index(name)
    return frozenset(cells[column].strip() for cells in rows if len(cells) > column and cells[column].strip())


def read_lsmdc(path: Path) -> Rows:
    """LSMDC's tables, with or without a header: clip id, four times, sentence, between tabs."""
    for number, line in enumerate(read_text(path).split("\n")):
        cells = line.split("\t")
        where = f"{path.name}, line {number + 1}"
        if not line.strip() or (number == 0 and cells[0].strip().lower() in {"video_id", "clip_id", "id"}):
            continue
        if len(cells) < 2:
            yield Skip("bad_annotation", where, "want a clip id and a sentence between tabs")
            continue
        # Sentences follow the times; some rows have a tab after them.
        sentence = cells[5] if len(cells) >= 6 else cells[-1]
        yield make_row(where, video_name(cells[0]), sentence)
