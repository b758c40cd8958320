"""Tables of clip id and text: JSON lines or Parquet, as ASR texts and captions are passed around."""

import json
import os
import weakref
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

import pyarrow
import pyarrow.parquet
from pydantic import JsonValue

from clipvip.shards.errors import DatasetError
from clipvip.shards.files.disk_index import DiskIndex, RepeatedKeyError
from clipvip.shards.files.names import id_of
from clipvip.shards.files.places import at_hand, location_of
from clipvip.shards.files.scratch import ScratchFile, line_at
from clipvip.shards.files.stores import Location
from clipvip.shards.files.text import json_lines, parse_object

ID_FIELDS = ("clip_id", "key")
TEXT_FIELDS = ("text", "subtitle", "caption")
TABLE_EXTENSIONS = (".jsonl", ".parquet")
_READ_BYTES = 1 << 20
_Row = Mapping[str, JsonValue]


def load_text_table(path: Path | str) -> Mapping[str, str]:
    """Clip id -> text, from a file of JSON lines or a Parquet file (`.parquet`), however large it is.

    A row has `clip_id` (or `key`), also as a whole number, and one of `text`, `subtitle`, `caption`: a
    string, or strings that are joined by spaces; one whose text is null is left out. Kept is an index on the
    disk; the texts stay in the file, which must not change meanwhile, those of a Parquet file in a copy.

    Raises:
        DatasetError: naming the file and row, which is damaged, lacks a field, or has another text before.
        OSError: the file cannot be opened, or there is no room for temporary files.
    """
    path = Path(path)
    if _is_parquet(path):
        lines: _TableFile | ScratchFile = (copy := ScratchFile())
        rows = _copied_rows(path, copy)
    else:
        lines = _TableFile(path)
        rows = _json_rows(path)

    def read(at: int) -> tuple[str, str]:
        try:
            clip_id, text = _entry(parse_object(lines.line_at(at).decode("utf-8-sig")), "row")
        except ValueError:  # no JSON, or a DatasetError
            text = None
        if text is None:
            raise DatasetError(f"{path}: changed while it was read; run the same command again")
        return clip_id, text

    def entries() -> Iterator[tuple[str, int]]:
        for number, at, row in rows:
            clip_id, text = _entry(row, f"{path}, row {number}")
            if text is not None:
                yield clip_id, at

    try:
        return DiskIndex(entries(), read, repeats_must_agree=True)
    except RepeatedKeyError as error:
        raise DatasetError(
            f"{path}, row {_row_number(lines, error.at)}: another text for clip {error.key!r} came before; "
            "keep one of them"
        ) from error


def iter_texts(path: Location | str) -> Iterator[str]:
    """The texts of such a table in order, null as ""; no ids are needed. Raises as `load_text_table`."""
    path = location_of(path)
    for number, _, row in _parquet_rows(path) if _is_parquet(path) else _json_rows(path):
        yield _text(row, f"{path}, row {number}") or ""


def _is_parquet(path: Location) -> bool:
    return path.suffix.lower() == ".parquet"


class _TableFile:
    """A file that stays open, to read lines of it again."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._fd)

    def read(self, at: int, num_bytes: int) -> bytes:
        return os.pread(self._fd, num_bytes, at)

    def line_at(self, at: int) -> bytes:
        return line_at(self.read, at)


def _row_number(lines: "_TableFile | ScratchFile", at: int) -> int:
    """The row whose line begins at byte `at`."""
    starts = range(0, at, _READ_BYTES)
    return 1 + sum(lines.read(start, min(_READ_BYTES, at - start)).count(b"\n") for start in starts)


def _json_rows(path: Location) -> Iterator[tuple[int, int, _Row]]:
    """Number of the line, the byte where it begins, row."""
    for line in json_lines(path):
        if line.problem:
            raise DatasetError(
                f"{path}, row {line.number}: not JSON ({line.problem}); give JSON Lines, one object "
                "per line, or a .parquet file"
            )
        if not isinstance(line.value, dict):
            raise DatasetError(f"{path}, row {line.number}: not a JSON object; give one object per line")
        yield line.number, line.at, line.value


def _copied_rows(path: Path, lines: ScratchFile) -> Iterator[tuple[int, int, _Row]]:
    """The rows of a Parquet file, put down as lines: none can be read again without its neighbours."""
    for number, _, row in _parquet_rows(path):
        clip_id, text = _entry(row, f"{path}, row {number}")
        line = {ID_FIELDS[0]: clip_id, TEXT_FIELDS[0]: text}
        yield number, lines.append(json.dumps(line).encode() + b"\n"), line


def _parquet_rows(path: Location) -> Iterator[tuple[int, int, _Row]]:
    """As `_json_rows`; no row has a place of its own."""
    try:
        with at_hand(path) as local, local.open("rb") as source, pyarrow.parquet.ParquetFile(source) as file:
            columns = [name for name in (*ID_FIELDS, *TEXT_FIELDS) if name in file.schema_arrow.names]
            batches = (batch.to_pylist() for batch in file.iter_batches(columns=columns))
            yield from ((number, 0, row) for number, row in enumerate(chain.from_iterable(batches), start=1))
    except pyarrow.ArrowException as error:
        raise DatasetError(f"{path}: not a readable Parquet file ({error})") from error


def _entry(row: _Row, where: str) -> tuple[str, str | None]:
    clip_id = id_of(_field(row, ID_FIELDS, where))
    text = _text(row, where)
    if not isinstance(clip_id, str) or not clip_id:
        raise DatasetError(f"{where}: the clip id is {clip_id!r}; give a string or a whole number")
    return clip_id, text


def _field(row: _Row, names: tuple[str, ...], where: str) -> JsonValue:
    for name in names:
        if name in row:
            return row[name]
    raise DatasetError(f"{where}: no field {' or '.join(names)}; it has {', '.join(map(str, row)) or 'none'}")


def _text(row: _Row, where: str) -> str | None:
    text = _field(row, TEXT_FIELDS, where)
    if isinstance(text, list):
        parts = [part for part in text if isinstance(part, str)]
        text = " ".join(parts) if len(parts) == len(text) else text
    if text is None:
        return None
    if not isinstance(text, str):
        raise DatasetError(f"{where}: the text is {str(text)[:40]!r}; give a string or a list of strings")
    # A lone surrogate (a JSON escape can hold one) has no UTF-8 form and would fail when written.
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())
