"""Captions beside a shard: one Parquet file per shard, looked up by sample key.

A file is complete when it exists, and holds what was left out too, so it is the mark of its shard being done.
Making captions and deciding what is missing happen elsewhere.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from clipvip.shards.atomic import atomic_path
from clipvip.shards.errors import DatasetError
from clipvip.shards.skips import Skip

CAPTIONS_EXTENSION = ".parquet"
_COLUMNS = ("key", "caption", "model", "revision", "options")
_SKIPS_FIELD = b"clipvip.skips"
_SOURCE_FIELD = b"clipvip.source"


@dataclass(frozen=True, slots=True)
class CaptionFile:
    """What a caption file holds: (key, caption) in shard order, what was left out, and from which shard.

    `source` identifies the content of the shard; "" where it was not said.
    """

    rows: list[tuple[str, str]]
    skips: list[Skip]
    source: str


def captions_path(folder: Path | str, shard_stem: str) -> Path:
    return Path(folder) / f"{shard_stem}{CAPTIONS_EXTENSION}"


def shard_source(shard: Path) -> str:
    """By which a caption file knows that its shard is still the one that it was made of."""
    return f"{shard.stat().st_size} bytes"


def write_captions(
    path: Path | str,
    rows: Iterable[tuple[str, str]],
    *,
    model: str = "",
    revision: str = "",
    options: Mapping[str, Any] | None = None,
    skips: Sequence[Skip] = (),
    source: str = "",
) -> None:
    """Write (key, caption) pairs to the Parquet file `path`, all or nothing; equal input gives equal bytes.

    `model`, `revision` and `options` (as JSON) stand in every row, so that files can be mixed and still tell
    what made them.
    """
    keys, captions = [], []
    for key, caption in rows:
        keys.append(key)
        captions.append(caption)
    origin = [model, revision, json.dumps(options or {}, sort_keys=True, ensure_ascii=False)]
    columns = [keys, captions, *([value] * len(keys) for value in origin)]
    metadata = {
        _SKIPS_FIELD: json.dumps([skip.as_dict() for skip in skips], ensure_ascii=False).encode(),
        _SOURCE_FIELD: source.encode(),
    }
    fields = [pyarrow.field(name, pyarrow.string(), nullable=False) for name in _COLUMNS]
    table = pyarrow.table(
        [pyarrow.array(column, pyarrow.string()) for column in columns],
        schema=pyarrow.schema(fields, metadata=metadata),
    )
    with atomic_path(path) as temporary:
        pyarrow.parquet.write_table(table, temporary, compression="zstd")


def read_captions(folder: Path | str, shard_stem: str) -> dict[str, str]:
    """Sample key -> caption, for the shard whose file name without extension is `shard_stem`.

    Raises:
        DatasetError: the shard has no captions there, or its file is damaged or of another schema.
    """
    return dict(read_caption_file(captions_path(folder, shard_stem)).rows)


def read_caption_file(path: Path) -> CaptionFile:
    """All that the Parquet file `path` says.

    Raises:
        DatasetError: as `read_captions`.
    """
    try:
        with path.open("rb") as source, pyarrow.parquet.ParquetFile(source) as file:
            schema = file.schema_arrow
            lacking = [name for name in _COLUMNS if name not in schema.names]
            if lacking:
                raise DatasetError(
                    f"{path}: no column {', '.join(lacking)}; these are no captions of clipvip"
                )
            table = file.read(columns=["key", "caption"])
            keys, captions = (table.column(name).to_pylist() for name in ("key", "caption"))
            fields = schema.metadata or {}
            skips = [Skip(**skip) for skip in json.loads(fields.get(_SKIPS_FIELD, b"[]"))]
            origin = fields.get(_SOURCE_FIELD, b"").decode()
    except FileNotFoundError as error:
        raise DatasetError(
            f"{path}: no captions for this shard; make them with 'clipvip-data caption'"
        ) from error
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError, json.JSONDecodeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise DatasetError(f"{path}: not readable as captions ({reason}); make it again") from error
    if not all(isinstance(value, str) for value in (*keys, *captions)):
        raise DatasetError(f"{path}: a key or caption is not a text; make it again")
    if len(set(keys)) != len(keys):
        raise DatasetError(f"{path}: a key stands there twice; make it again")
    return CaptionFile(list(zip(keys, captions, strict=True)), skips, origin)


def read_origins(path: Path) -> set[tuple[str, str, str]]:
    """Each (model, revision, options as JSON) that the rows of a caption file name; none where it has no rows.

    Raises:
        DatasetError: as `read_captions`.
    """
    names = ["model", "revision", "options"]
    try:
        table = pyarrow.parquet.read_table(path, columns=names)
        columns = [table.column(name).to_pylist() for name in names]
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise DatasetError(f"{path}: not readable as captions ({reason}); make it again") from error
    return set(zip(*columns, strict=True))
