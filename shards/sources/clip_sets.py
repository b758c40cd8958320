"""The files in which sets of clips publish their captions: Panda-70M, InternVid, HowTo100M and their like.

All give rows of video and sentence, with the span that the sentence is about where the set cuts its videos.
Names of columns are compared without case, since people's copies differ there.
"""

import ast
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import JsonValue

from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.files.text import parse_json
from clipvip.shards.sources.hdvila import parse_span
from clipvip.shards.sources.table_files import Fields, read_fields, read_members
from clipvip.shards.sources.video_set_files import Row, Rows, make_row, read_text

_MSVD_LINE = re.compile(r"(\S+_\d+_\d+)\s+(\S.*)")


def clip_row(where: str, video: JsonValue, sentence: JsonValue, span: JsonValue) -> Row | Skip:
    """A row about a span of a video, [start, end] in seconds or `HH:MM:SS.mmm`, or why it is none."""
    row = make_row(where, video, sentence)
    if isinstance(row, Skip):
        return row
    seconds = parse_span(span)
    if seconds is None:
        return Skip("bad_span", where, f"span {ascii(span)[:80]} of {row.video[:80]}")
    return Row(row.video, row.sentence, seconds, seconds)


def _tables(path: Path, *needed: str) -> Iterator[tuple[str, Fields | Skip]]:
    """(place, row) of a table, a Skip for what is none, or has none of a column that is `needed`."""
    for where, fields in read_fields(path):
        lacking = [name for name in needed if name not in (fields or ())]
        if fields is None or len(lacking) == len(needed):
            yield where, Skip("bad_annotation", where, f"is no row with {', '.join(needed)}")
        elif lacking:
            yield where, Skip("bad_annotation", where, f"has no {', '.join(lacking)}")
        else:
            yield where, fields


def read_panda70m(path: Path) -> Rows:
    """Panda-70M's tables: a row has a video, and lists of its clips' spans and captions.

    The lists are literals of Python (or JSON) in the published CSV, and lists in others' Parquet files.
    """
    for where, row in _tables(path, "videoid", "timestamp", "caption"):
        if isinstance(row, Skip):
            yield row
            continue
        spans, captions = _list_of(row["timestamp"]), _list_of(row["caption"])
        if spans is None or captions is None or len(spans) != len(captions):
            numbers = [0 if found is None else len(found) for found in (spans, captions)]
            yield Skip("bad_annotation", where, "{} timestamps and {} captions".format(*numbers))
            continue
        for number, (span, caption) in enumerate(zip(spans, captions, strict=True)):
            at = f"{where}, clip {number}"
            for sentence in caption if isinstance(caption, list) else [caption]:
                yield clip_row(at, row["videoid"], sentence, span)


def _list_of(value: JsonValue) -> list[JsonValue] | None:
    """A list, or the one that a text is a literal of; None for anything else. No code is run."""
    if isinstance(value, str):
        text = value
        try:
            value = parse_json(text)
        except ValueError:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of escapes such as \d within the texts
                    value = _plain(ast.literal_eval(text.strip()))
            except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                return None
    return value if isinstance(value, list) else None


def _plain(value: object) -> JsonValue:
    """Tuples as lists, as JSON has them. ValueError: what JSON has not."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise ValueError(f"{type(value).__name__} in a list")


def read_internvid(path: Path) -> Rows:
    """InternVid's lines or tables: a row is a clip."""
    names = ("youtubeid", "start_timestamp", "end_timestamp", "caption")
    for where, row in _tables(path, *names):
        if isinstance(row, Skip):
            yield row
        else:
            video, start, end, caption = (row[name] for name in names)
            yield clip_row(where, video, caption, [start, end])


def read_howto100m(path: Path) -> Rows:
    """HowTo100M's caption.json, video -> lists of start, end and text; or tables of lines of narration.

    The latter are a table with `video_id`, or one for each video, which is then the file's name; `path` may
    be a folder of these. A row is a line, or has lists of lines. A line is a clip of its own.
    """
    if path.is_dir():
        for table in narration_tables(path):
            try:
                yield from read_howto100m(table)
            except DatasetError as error:
                yield Skip("bad_annotation", table.name, str(error).replace(str(table), table.name)[:200])
        return
    if path.suffix.lower() == ".json":
        for video, entry in read_members(path):
            where = f"{path.name}, {(video or '')[:80]}"
            yield from _narration(where, video, entry if isinstance(entry, dict) else {})
        return
    for where, row in _tables(path, "start", "end", "text"):
        if isinstance(row, Skip):
            yield row
            continue
        name = row.get("video_id", path.stem)
        if isinstance(row["text"], list):
            yield from _narration(where, name, row)
        else:
            yield clip_row(where, name, row["text"], [row["start"], row["end"]])


def narration_tables(path: Path) -> tuple[Path, ...]:
    """The files of `path`, a file of HowTo100M or a folder of tables, by name."""
    return tuple(sorted(path.glob("*.csv"))) if path.is_dir() else (path,)


def _narration(where: str, video: JsonValue, entry: Mapping[str, JsonValue]) -> Rows:
    starts, ends, texts = (entry.get(name) for name in ("start", "end", "text"))
    if not (isinstance(starts, list) and isinstance(ends, list) and isinstance(texts, list)):
        yield Skip("bad_annotation", where, "has no lists start, end and text")
    elif not len(starts) == len(ends) == len(texts):
        yield Skip("bad_annotation", where, f"{len(starts)} starts, {len(ends)} ends, {len(texts)} texts")
    else:
        for number, (start, end, text) in enumerate(zip(starts, ends, texts, strict=True)):
            yield clip_row(f"{where}, line {number}", video, text, [start, end])


def read_vatex(path: Path) -> Rows:
    """VATEX's lists: the English sentences of whole videos, which are named by id and span of the source."""
    for where, row in _tables(path, "videoid", "encap"):
        if isinstance(row, Skip):
            yield row
            continue
        sentences = _list_of(row["encap"])
        for sentence in [None] if sentences is None else sentences:
            yield make_row(where, row["videoid"], sentence)


def read_youcook2(path: Path, *, subset: str | None = None) -> Rows:
    """YouCook2's annotations: "database" -> video -> subset, and segments with a sentence each.

    Raises DatasetError for another kind of file, or one without a video of the `subset`.
    """
    num_found = 0
    for video, entry in _youcook2_videos(path):
        fields = entry if isinstance(entry, dict) else {}
        if subset is not None and fields.get("subset") != subset:
            continue
        num_found += 1
        listed = fields.get("annotations")
        if not isinstance(listed, list):
            yield Skip("bad_annotation", f"{path.name}, {video[:80]}", "has no list of annotations")
            continue
        for number, segment in enumerate(listed):
            where = f"{path.name}, {video[:80]}, annotation {number}"
            found = segment if isinstance(segment, dict) else {}
            yield clip_row(where, video, found.get("sentence"), found.get("segment"))
    if not num_found:
        raise DatasetError(f"{path}: has no videos" + (f" of the subset {subset}" if subset else ""))


def _youcook2_videos(path: Path) -> Iterator[tuple[str, JsonValue]]:
    for name, value in read_members(path):
        if name == "database" and isinstance(value, dict):
            yield from value.items()
            return
    raise DatasetError(f"{path}: has no 'database'; give YouCook2's youcookii_annotations_trainval.json")


def read_msvd(path: Path) -> Rows:
    """MSVD's table of descriptions, of which the English ones are read, or AllVideoDescriptions.txt.

    Clips are whole videos, named `ID_START_END` by the source and its span, as YouTubeClips.tar has them.
    """
    if path.suffix.lower() == ".txt":
        yield from _msvd_lines(path)
        return
    for where, row in _tables(path, "videoid", "start", "end", "description"):
        if isinstance(row, Skip):
            yield row
        elif str(row.get("language", "English")).strip().lower() == "english":
            start, end = (_whole(row[name]) for name in ("start", "end"))
            yield make_row(where, f"{row['videoid']}_{start}_{end}", row["description"])


def _msvd_lines(path: Path) -> Rows:
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _MSVD_LINE.fullmatch(line.strip())
        where = f"{path.name}, line {number}"
        if match:
            yield make_row(where, match[1], match[2])
        else:
            yield Skip("bad_annotation", where, "is not ID_START_END and a sentence")


def _whole(value: JsonValue) -> str:
    """1.0 as 1: what a table passes through may make decimals of its whole numbers."""
    return str(value).strip().removesuffix(".0")


def _about(where: str, video: JsonValue, sentence: JsonValue, spans: list[JsonValue] | None) -> Rows:
    """A row about each of the spans, or about the whole video where none are told."""
    if spans is None:
        yield make_row(where, video, sentence)
    else:
        yield from (clip_row(where, video, sentence, span) for span in spans)


def read_qvhighlights(path: Path) -> Rows:
    """QVHighlights' lines: a query and the windows that it is about; without any (test) all of the video."""
    for where, row in _tables(path, "vid", "query"):
        if isinstance(row, Skip):
            yield row
            continue
        yield from _about(where, row["vid"], row["query"], _list_of(row.get("relevant_windows")) or None)


def read_tvr(path: Path) -> Rows:
    """TVR's lines: a moment of a video and its description; where none is told (test) all of it."""
    for where, row in _tables(path, "vid_name", "desc"):
        if isinstance(row, Skip):
            yield row
            continue
        moment = _list_of(row.get("ts"))
        yield from _about(where, row["vid_name"], row["desc"], None if moment is None else [moment])
