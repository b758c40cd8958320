"""Tables of clip id and text: JSON lines or Parquet, as ASR texts and captions are passed around."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from clipvip.shards.errors import DatasetError

ID_FIELDS = ("clip_id", "key")
TEXT_FIELDS = ("text", "subtitle", "caption")
TABLE_EXTENSIONS = (".jsonl", ".parquet")


def load_text_table(path: Path | str) -> dict[str, str]:
    """Clip id -> text, from a file of JSON lines or a Parquet file (`.parquet`).

    A row has `clip_id` (or `key`) and one of `text`, `subtitle`, `caption`: a string, or a list of strings
    that are joined by spaces. A row whose text is null has none and is left out. The table is held in memory.

    Raises:
        DatasetError: naming the file and row, where it is damaged, lacks a field, or gives one clip two texts.
        OSError: the file cannot be opened.
    """
    table: dict[str, str] = {}
    for row_number, row in _rows(Path(path)):
        where = f"{path}, row {row_number}"
        clip_id = _field(row, ID_FIELDS, where)
        text = _text(row, where)
        if not isinstance(clip_id, str) or not clip_id:
            raise DatasetError(f"{where}: the clip id is {clip_id!r}; give a string")
        if text is None:
            continue
        if table.setdefault(clip_id, text) != text:
            raise DatasetError(f"{where}: another text for clip {clip_id!r} came before; keep one of them")
    return table


def iter_texts(path: Path | str) -> Iterator[str]:
    """The texts of such a table in order, without need of an id; a null or empty text gives "".

    Raises:
        DatasetError, OSError: as `load_text_table`.
    """
    for row_number, row in _rows(Path(path)):
        yield _text(row, f"{path}, row {row_number}") or ""


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    return _parquet_rows(path) if path.suffix.lower() == ".parquet" else _json_rows(path)


def _json_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:
                raise DatasetError(
                    f"{path}, row {number}: not JSON ({error}); give one object per line"
                ) from error
            if not isinstance(row, dict):
                raise DatasetError(f"{path}, row {number}: not a JSON object; give one object per line")
            yield number, row


def _parquet_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        with path.open("rb") as source, pyarrow.parquet.ParquetFile(source) as file:
            columns = [name for name in (*ID_FIELDS, *TEXT_FIELDS) if name in file.schema_arrow.names]
            number = 0
            for batch in file.iter_batches(columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except pyarrow.ArrowException as error:
        raise DatasetError(f"{path}: not a readable Parquet file ({error})") from error


def _field(row: Mapping[str, Any], names: tuple[str, ...], where: str) -> Any:
    for name in names:
        if name in row:
            return row[name]
    raise DatasetError(f"{where}: no field {' or '.join(names)}; it has {', '.join(map(str, row)) or 'none'}")


def _text(row: Mapping[str, Any], where: str) -> str | None:
    text = _field(row, TEXT_FIELDS, where)
    if isinstance(text, list) and all(isinstance(part, str) for part in text):
        text = " ".join(text)
    if text is None:
        return None
    if not isinstance(text, str):
        raise DatasetError(f"{where}: the text is {str(text)[:40]!r}; give a string or a list of strings")
    # A lone surrogate (a JSON escape can hold one) has no UTF-8 form and would fail when written.
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())
