"""Tables: CSV and TSV with a header, Parquet, JSON records; row by row, however large the file is."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import pyarrow
import pyarrow.parquet
from pydantic import JsonValue

from clipvip.media.errors import one_line
from clipvip.shards.errors import DatasetError
from clipvip.shards.files.json_stream import json_entries
from clipvip.shards.files.places import at_hand
from clipvip.shards.files.stores import Location
from clipvip.shards.files.text import json_lines
from clipvip.shards.sources.text_files import text_lines

Fields = Mapping[str, JsonValue]
"""A row by the names of its columns, in small letters."""

_ROWS_AT_ONCE = 1024
_FIRST_RECORDS = 20


def read_fields(path: Location) -> Iterator[tuple[str, Fields | None]]:
    """(place in the file, row) of each row of a table; None for what is no row.

    A table is `.parquet`, `.jsonl`, `.json` with a list of objects, or else text with a header, where cells
    stand between commas, in `.tsv` between tabs.

    Raises DatasetError where the file is damaged as a whole, or of another kind.
    """
    if is_json(path):
        for where, entry in read_objects(path):
            yield where, in_small_letters(entry) if isinstance(entry, dict) else None
        return
    header, rows = open_table(path)
    names = [name.lower() for name in header]
    for number, cells in enumerate(rows, start=1):
        if cells:
            yield f"{path.name}, row {number}", dict(zip(names, cells, strict=False))


def columns_of(path: Location) -> list[str]:
    """The names of a table's columns, of JSON those of its first records; none of an object of records.

    Raises DatasetError as `read_fields`.
    """
    if not is_json(path):
        return open_table(path)[0]
    if path.suffix.lower() == ".json" and next(read_members(path), (None, None))[0] is not None:
        return []
    first = islice(read_objects(path), _FIRST_RECORDS)
    return list(dict.fromkeys(name for _, entry in first if isinstance(entry, dict) for name in entry))


def is_json(path: Location) -> bool:
    return path.suffix.lower() in (".jsonl", ".json")


def in_small_letters(fields: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {name.strip().lower(): value for name, value in fields.items()}


def read_objects(path: Location) -> Iterator[tuple[str, JsonValue]]:
    """(place in the file, value) of each line of a `.jsonl`, or of each item of the list in a `.json`.

    Raises DatasetError as `read_fields`.
    """
    if path.suffix.lower() == ".jsonl":
        try:
            yield from ((f"{path.name}, line {line.number}", line.value) for line in json_lines(path))
        except OSError as error:
            raise DatasetError(f"{path}: cannot be read ({error.strerror or error})") from error
        return
    for number, (name, value) in enumerate(read_members(path)):
        if name is not None:
            raise DatasetError(f"{path}: must be a list of records, not an object with {ascii(name)[:80]}")
        yield f"{path.name}, record {number}", value


def read_members(path: Location) -> Iterator[tuple[str | None, JsonValue]]:
    """As `json_entries`. Raises DatasetError where the file cannot be read, or is damaged."""
    try:
        with at_hand(path) as local:
            yield from json_entries(local)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise DatasetError(f"{path}: is not JSON ({str(error)[:100]})") from error


def open_table(path: Location) -> tuple[list[str], Iterator[Sequence[JsonValue]]]:
    """The names of the columns, and the rows below as they are read: WebVid's table has ten million.

    A blank line is a row without cells. Raises DatasetError where it is damaged, empty, or no table.
    """
    if path.suffix.lower() == ".parquet":
        return _open_parquet(path)
    rows = _rows(path, "\t" if path.suffix.lower() == ".tsv" else ",")
    header = next((cells for cells in rows if any(cell.strip() for cell in cells)), None)
    if header is None:
        raise DatasetError(f"{path}: is empty")
    return [name.strip() for name in header], rows


def column_of(path: Location, header: Sequence[str], names: Sequence[str]) -> int:
    """The place of the first of the names that the header has, in any case. DatasetError: it has none."""
    found = [name.lower() for name in header]
    for name in names:
        if name.lower() in found:
            return header.index(name) if name in header else found.index(name.lower())
    # On one line also where the file is no table.
    shown = "".join(c if c.isprintable() else "?" for c in ", ".join(header)[:200])
    raise DatasetError(f"{path}: has no column {' or '.join(names)}; its columns are {shown}")


def _open_parquet(path: Location) -> tuple[list[str], Iterator[Sequence[JsonValue]]]:
    try:
        with at_hand(path) as local:
            header = pyarrow.parquet.read_schema(local).names
    except (pyarrow.ArrowException, OSError) as error:
        raise DatasetError(f"{path}: not a readable Parquet file ({one_line(error, most=200)})") from error
    return [name.strip() for name in header], _parquet_rows(path, header)


def _parquet_rows(path: Location, header: Sequence[str]) -> Iterator[Sequence[JsonValue]]:
    try:
        with (
            at_hand(path) as local,
            local.open("rb") as source,
            pyarrow.parquet.ParquetFile(source) as file,
        ):
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
                yield from ([row[name] for name in header] for row in batch.to_pylist())
    except (pyarrow.ArrowException, OSError) as error:
        raise DatasetError(f"{path}: not a readable Parquet file ({one_line(error, most=200)})") from error


def _rows(path: Location, delimiter: str) -> Iterator[list[str]]:
    csv.field_size_limit(1 << 24)
    try:
        with at_hand(path) as local, local.open("rb") as file:
            yield from csv.reader(text_lines(file, path), delimiter=delimiter)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror or error})") from error
    except csv.Error as error:
        raise DatasetError(f"{path}: is not a table ({error})") from error
