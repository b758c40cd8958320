"""Captions that others made, row by row: JSON lines, tables, Parquet, JSON, and LMDB as the paper's authors.

Which clip a row belongs to is for its reader to find out.
"""

import csv
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from clipvip.extras import missing
from clipvip.media.errors import one_line
from clipvip.shards.errors import DatasetError
from clipvip.shards.files.names import id_of
from clipvip.shards.files.text import json_lines, parse_json
from clipvip.shards.sources.pickled_texts import RefusedPickle, is_pickled, read_pickled
from clipvip.shards.sources.text_files import text_lines

CAPTION_EXTENSIONS = (".jsonl", ".csv", ".tsv", ".parquet", ".json")
LMDB_NAME = "data.mdb"
# The names that ids and captions go by; of ids of clips all that a row has are tried.
ID_FIELDS = ("key", "__key__", "clip_id", "image_id", "id")
VIDEO_FIELDS = ("video_id", "video", "videoid")
CAPTION_FIELDS = ("caption", "captions", "text", "sentence", "sentences")
# JSON that is one value is read as a whole.
_MOST_JSON_BYTES = 1 << 29
_ROWS_AT_ONCE = 1 << 14
_MOST_BAD_ROWS = 1000
_MAX_SHOWN_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of the fields of id and caption; None: those that are usual."""

    id: str | None = None
    caption: str | None = None


@dataclass(frozen=True, slots=True)
class CaptionRow:
    """A row, whose place is `where`: ids that its clip may be known by, and captions, which may be none.

    A row that is none has a `problem`.
    """

    where: str
    ids: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    problem: str = ""


def find_caption_files(place: Path) -> list[Path]:
    """The files of captions that `place` is: one, all of a folder by name, or an LMDB (its `data.mdb`).

    Raises DatasetError where there are none, or the package that reads them is missing.
    """
    if place.is_dir() and not (place / LMDB_NAME).is_file():
        files = sorted(p for p in place.iterdir() if p.suffix.lower() in CAPTION_EXTENSIONS and p.is_file())
        files = [path for path in files if not _is_report(path.name)]
        if not files:
            wanted = f"an LMDB ({LMDB_NAME}) or files that end in {', '.join(CAPTION_EXTENSIONS)}"
            raise DatasetError(f"{place}: holds no captions; give a folder with {wanted}")
        return files
    path = place / LMDB_NAME if place.is_dir() else place
    if not path.is_file():
        raise DatasetError(f"{place}: no such file or folder of captions")
    if is_lmdb(path) and not find_spec("lmdb"):
        raise DatasetError(missing("lmdb", str(path)))
    if not is_lmdb(path) and path.suffix.lower() not in CAPTION_EXTENSIONS:
        kinds = ", ".join(CAPTION_EXTENSIONS)
        raise DatasetError(f"{path}: of no known kind; give {kinds}, or an LMDB ({LMDB_NAME} in its folder)")
    return [path]


def _is_report(name: str) -> bool:
    """Whether a stage, or the tool that made the shards of others, left a file there for other ends."""
    return name in ("manifest.json", "report.json", "skipped.jsonl") or name.endswith("_stats.json")


def is_lmdb(path: Path) -> bool:
    return path.suffix.lower() in (".mdb", ".lmdb")


def read_caption_rows(path: Path, columns: Columns) -> Iterator[CaptionRow]:
    """The rows of one file that `find_caption_files` gave, in their order, however many they are.

    Raises DatasetError where the file is damaged or of another kind, no row has an id and a caption, or a
    pickled value would run code.
    """
    suffix = ".mdb" if is_lmdb(path) else path.suffix.lower()
    first_problem: CaptionRow | None = None
    num_bad = num_good = 0
    for row in _READERS[suffix](path, columns):
        num_good += not row.problem
        if row.problem and not num_good:
            first_problem, num_bad = first_problem or row, num_bad + 1
            if num_bad == _MOST_BAD_ROWS:
                break
        yield row
    if first_problem is not None and not num_good:
        raise DatasetError(
            f"{path}: no row has an id and a caption ({first_problem.where}: {first_problem.problem}); "
            "name the fields by --id-column and --caption-column"
        )


def _of_json_lines(path: Path, columns: Columns) -> Iterator[CaptionRow]:
    for line in json_lines(path):
        where = f"{path.name}, line {line.number}"
        if isinstance(line.value, dict):
            yield _row(where, line.value, columns)
        else:
            yield CaptionRow(where, problem=f"not a JSON object {line.problem[:80]}".rstrip())


def _of_table(path: Path, columns: Columns) -> Iterator[CaptionRow]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    csv.field_size_limit(1 << 24)
    try:
        with path.open("rb") as file:
            # Without NUL, which `csv` refuses.
            lines = (line.replace("\0", "") for line in text_lines(file, path))
            reader = csv.reader(lines, delimiter=delimiter)
            header = [name.strip() for name in next(reader, [])]
            for number, cells in enumerate(reader, start=1):
                if cells:
                    fields = dict(zip(header, cells, strict=False))
                    yield _row(f"{path.name}, row {number}", fields, columns)
    except csv.Error as error:
        raise DatasetError(f"{path}: is not a table ({error})") from error


def _of_parquet(path: Path, columns: Columns) -> Iterator[CaptionRow]:
    known = {*ID_FIELDS, *VIDEO_FIELDS, *CAPTION_FIELDS, columns.id, columns.caption}
    number = 0
    try:
        with path.open("rb") as source, pyarrow.parquet.ParquetFile(source) as file:
            names = file.schema_arrow.names
            wanted = [name for name in names if name in known]
            for batch in file.iter_batches(columns=wanted, batch_size=_ROWS_AT_ONCE):
                for fields in batch.to_pylist() if wanted else [{}] * batch.num_rows:
                    number += 1
                    yield _row(f"{path.name}, row {number}", fields, columns, names=names)
    except (pyarrow.ArrowException, OSError) as error:
        raise DatasetError(f"{path}: not a readable Parquet file ({one_line(error, most=200)})") from error


def _of_json(path: Path, columns: Columns) -> Iterator[CaptionRow]:
    """A list of records, as captioners write theirs (`image_id`, `caption`); or id -> captions."""
    if path.stat().st_size > _MOST_JSON_BYTES:
        raise DatasetError(f"{path}: too large for JSON in one piece; make it .jsonl, one object a line")
    try:
        content = parse_json(path.read_bytes())
    except ValueError as error:
        raise DatasetError(f"{path}: is not JSON ({str(error)[:100]})") from error
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        content = content["annotations"]
    if isinstance(content, dict):
        for name, value in content.items():
            yield _row_of_value(f"{path.name}, {name[:_MAX_SHOWN_CHARACTERS]}", name, value, columns)
    elif isinstance(content, list):
        for number, fields in enumerate(content):
            where = f"{path.name}, record {number}"
            if isinstance(fields, dict):
                yield _row(where, fields, columns)
            else:
                yield CaptionRow(where, problem="not a JSON object")
    else:
        raise DatasetError(f"{path}: must be a list of records, or an object of ids and captions")


def _of_lmdb(path: Path, columns: Columns) -> Iterator[CaptionRow]:
    """Clip id -> caption: plain text, as the authors' code reads it, or pickled, or JSON."""
    import lmdb

    try:
        with lmdb.open(str(path), subdir=False, readonly=True, lock=False, create=False) as environment:
            end = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
            if end > path.stat().st_size:  # reading on would end the process
                raise DatasetError(f"{path}: is cut off ({path.stat().st_size:,} of {end:,} bytes)")
            with environment.begin(buffers=False) as transaction:
                for key, value in transaction.cursor():
                    name = key.decode("utf-8", "replace")
                    if not (name.startswith("__") and name.endswith("__")):  # __len__, __keys__
                        yield _row_of_bytes(path, name, value, columns)
    except lmdb.Error as error:
        raise DatasetError(f"{path}: not a readable LMDB ({one_line(error, most=200)})") from error


_READERS = {
    ".jsonl": _of_json_lines,
    ".csv": _of_table,
    ".tsv": _of_table,
    ".parquet": _of_parquet,
    ".json": _of_json,
    ".mdb": _of_lmdb,
}


def _row_of_bytes(path: Path, name: str, data: bytes, columns: Columns) -> CaptionRow:
    shown = name[:_MAX_SHOWN_CHARACTERS]
    where = f"{os.path.basename(path.parent) or path.name}, {shown}"
    try:
        if is_pickled(data):
            value = read_pickled(data)
        else:
            value = data.decode()
            if value[:1] in ("[", "{", '"'):
                value = _json_or_text(value)
    except RefusedPickle as error:
        raise DatasetError(
            f"{path}, key {shown!r}: its value is a pickle that {error}, which may run code; "
            "only texts, and lists and dicts of them, are read"
        ) from error
    except ValueError as error:
        return CaptionRow(where, problem=one_line(error, most=200))
    return _row_of_value(where, name, value, columns)


def _json_or_text(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError:
        return text


def _row_of_value(where: str, name: str, value: Any, columns: Columns) -> CaptionRow:
    """A row of an id and what stands there for it: captions, or a record that has them."""
    fields = {columns.caption or CAPTION_FIELDS[0]: value}
    if isinstance(value, dict):
        fields = {_name(field): one for field, one in value.items()}
        fields = {field: one for field, one in fields.items() if field not in (*ID_FIELDS, *VIDEO_FIELDS)}
    return _row(where, fields | {columns.id or ID_FIELDS[0]: name}, columns)


def _row(
    where: str, fields: Mapping[str, Any], columns: Columns, names: list[str] | None = None
) -> CaptionRow:
    """`names` are those of all fields, for messages, where `fields` has only some."""
    if columns.id is not None:
        found_in = [columns.id]
    else:
        found_in = [name for name in ID_FIELDS if name in fields]
        found_in = found_in or [name for name in VIDEO_FIELDS if name in fields][:1]
    ids = tuple(dict.fromkeys(text for name in found_in if (text := _id(fields.get(name)))))
    wanted = CAPTION_FIELDS if columns.caption is None else (columns.caption,)
    texts = [_texts(fields[name]) for name in wanted if name in fields]
    if not ids or not texts:
        what = "no id" if not ids else "no caption"
        shown = ", ".join(map(str, names if names is not None else fields))[:200]
        return CaptionRow(where, problem=f"{what}; its fields are {shown or 'none'}")
    # A field that says nothing gives way to the next: `caption` null beside `captions`. So does one whose
    # text the next has besides others, as in our own files.
    found = next((some for some in texts if some), texts[0])
    if found is not None:
        found = next((some for some in texts if some and set(found) < set(some)), found)
    if found is None:
        return CaptionRow(where, ids, problem="its caption is neither a text nor a list of texts")
    return CaptionRow(where, ids, tuple(found))


def _id(value: Any) -> str:
    value = id_of(value)
    return _cleaned(_name(value).strip()) if isinstance(value, str | bytes) else ""


def _name(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _texts(value: Any) -> list[str] | None:
    """The captions that a value is, each on one line, without empty ones; None where it is something else.

    They may stand in a list, and in records, as captioners return them.
    """
    texts = []
    for text in value if isinstance(value, list | tuple) else (value,):
        if isinstance(text, dict):
            text = next((text[name] for name in CAPTION_FIELDS if name in text), 0)
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        if text is not None and not isinstance(text, str):
            return None
        texts.append(" ".join(_cleaned(text or "").split()))
    return [text for text in texts if text]


def _cleaned(text: str) -> str:
    """Without lone surrogates, which have no UTF-8 form; a JSON escape can hold one."""
    return text.encode("utf-8", "replace").decode("utf-8")


def chained(files: list[Path], columns: Columns) -> Iterator[CaptionRow]:
    """The rows of several files."""
    return chain.from_iterable(read_caption_rows(path, columns) for path in files)
