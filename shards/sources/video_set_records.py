"""Captions as JSON records of video and text: the released code's JSON lines, and the lists that others pass on.

A set's own files, as it publishes them, are read in `annotation_formats`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.sources.video_set_files import (
    Row,
    Rows,
    is_span,
    make_row,
    read_json,
    read_text,
    video_name,
)

_VIDEO_FIELDS = ("clip_id", "video_id", "video")
_TEXT_FIELDS = ("text", "caption", "captions", "sentences", "sentence")


def read_records(path: Path) -> Rows:
    """Records `{"clip_id": ..., "text": sentence or list}`, with `video`, `caption`, `sentences`, ... for names.

    One a line (.jsonl, as the released code takes them), or as .json a list of them, or an object of videos and
    records. The sentences of a record are in order of its `timestamps`, or `start` and `end`, where there are as
    many of these.

    Raises:
        DatasetError: it has no such record.
    """
    entries = _lines(path) if path.suffix.lower() == ".jsonl" else _entries(path, read_json(path))
    num_good = 0
    for where, video, entry in entries:
        if not isinstance(entry, dict):
            yield Skip("bad_annotation", where, "is no JSON record")
            continue
        for row in _rows(where, video if video is not None else _first(entry, _VIDEO_FIELDS), entry):
            num_good += isinstance(row, Row)
            yield row
    if not num_good:
        raise DatasetError(f'{path}: has no record such as {{"clip_id": "video1", "text": "a sentence"}}')


def has_records(content: Any) -> bool:
    """Whether parsed JSON is of a form that `read_records` reads; no set publishes its own file in one."""
    texts = ("text", "caption", "captions")
    if isinstance(content, dict):
        return any(_first(entry, texts) is not None for entry in content.values() if isinstance(entry, dict))
    return isinstance(content, list) and any(
        _first(entry, _TEXT_FIELDS) is not None for entry in content if isinstance(entry, dict)
    )


def _lines(path: Path) -> Iterator[tuple[str, None, Any]]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                entry = None
            yield f"{path.name}, line {number}", None, entry


def _entries(path: Path, content: Any) -> Iterator[tuple[str, str | None, Any]]:
    """Place in the file, name of the video where it stands before the record, record."""
    if isinstance(content, dict):
        for video, entry in content.items():
            yield f"{path.name}, {video[:80]}", video, entry
    elif isinstance(content, list):
        for number, entry in enumerate(content):
            yield f"{path.name}, record {number}", None, entry


def _rows(where: str, video: Any, entry: dict[str, Any]) -> Rows:
    if type(video) is int:
        video = str(video)
    text = _first(entry, _TEXT_FIELDS)
    sentences = text if isinstance(text, list) else [text]
    for sentence, time in zip(sentences, _times(entry, len(sentences)), strict=True):
        yield make_row(where, video_name(video) if isinstance(video, str) else video, sentence, time)


def _times(entry: dict[str, Any], count: int) -> list[tuple[float, ...]]:
    """What orders the sentences: their spans, else their places."""
    spans: Any = entry.get("timestamps")
    starts, ends = entry.get("start"), entry.get("end")
    if spans is None and isinstance(starts, list) and isinstance(ends, list):
        spans = [list(span) for span in zip(starts, ends, strict=False)]
    if isinstance(spans, list) and len(spans) == count and all(map(is_span, spans)):
        return [tuple(map(float, span)) for span in spans]
    return [(float(place), float(place)) for place in range(count)]


def _first(entry: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((entry[name] for name in names if name in entry), None)
