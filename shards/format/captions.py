"""Captions beside a shard: one Parquet file per shard, looked up by sample key.

A file is complete when it exists, and holds what was left out too, so it is the mark of its shard being done.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow
import pyarrow.parquet

from clipvip.media.errors import one_line
from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.files.atomic import atomic_path
from clipvip.shards.files.hashes import sha256_of_file
from clipvip.shards.files.places import is_file, location_of, open_small, size_of, sorted_glob
from clipvip.shards.files.stores import Location

CAPTIONS_EXTENSION = ".parquet"
# Beside `caption`, in files with clips that have several: all captions of such a clip, else null.
_ALL_CAPTIONS = "captions"
_SKIPS_FIELD = b"clipvip.skips"
_SOURCE_FIELD = b"clipvip.source"


class Caption(NamedTuple):
    """A row of a caption file: the key of a sample and what the model says of it."""

    key: str
    caption: str


class Origin(NamedTuple):
    """What made a caption, as every row says it, if not others made it; `options` are JSON."""

    model: str = ""
    revision: str = ""
    options: str = "{}"


@dataclass(frozen=True, slots=True)
class CaptionFile:
    """What a caption file holds: captions in shard order, what made them, what was left out.

    `source` identifies the content of the shard, see `shard_source`; "" where it was not said. `origins` are
    as many as the rows have, none where there are no rows, and unknown unless they were asked for.
    `alternatives` are all the captions of the keys that have several; the row has the first of them.
    """

    rows: list[Caption]
    origins: set[Origin]
    skips: list[Skip]
    source: str
    alternatives: dict[str, list[str]] = field(default_factory=dict)

    def all_captions(self) -> dict[str, list[str]]:
        """Key -> its captions, in shard order."""
        return {row.key: self.alternatives.get(row.key, [row.caption]) for row in self.rows}


def captions_path(folder: Location | str, shard_stem: str) -> Location:
    return location_of(folder) / f"{shard_stem}{CAPTIONS_EXTENSION}"


def shard_source(shard: Location, sha256: str | None = None) -> str:
    """How a caption file names its shard, which is read where its `sha256` is not given."""
    return f"{size_of(shard)} bytes, sha256 {sha256 or sha256_of_file(shard)}"


def is_made_of(source: str, *, num_bytes: int, sha256: str | None) -> bool:
    """Whether a caption file's `source`, where it says one, may be the shard of that size and checksum."""
    size, _, digest = source.partition(", sha256 ")
    if source and size != f"{num_bytes} bytes":
        return False
    return not digest or sha256 is None or digest == sha256


def finished_captions(folder: Location, shard: Location, sha256: str | None) -> CaptionFile | None:
    """What `folder` holds for `shard`; None where that is missing, damaged, or not said to be of it."""
    try:
        found = read_caption_file(captions_path(folder, shard.stem))
    except DatasetError:
        return None
    is_same = is_made_of(found.source, num_bytes=size_of(shard), sha256=sha256)
    return found if found.source and is_same else None


@dataclass(frozen=True, slots=True)
class ShardCaptions:
    """The captions of one shard by key, and why there are none where some were to be expected.

    Of a key that has several, `by_key` has the first, and `alternatives` all.
    """

    by_key: dict[str, str]
    skips: list[Skip]
    alternatives: dict[str, list[str]] = field(default_factory=dict)

    def draw(self, key: str, rng: np.random.Generator) -> str | None:
        """A caption of a key, of several one by chance; None where it has none."""
        several = self.alternatives.get(key)
        return several[int(rng.integers(len(several)))] if several else self.by_key.get(key)


def captions_of_shard(
    folders: Sequence[str], shard_stem: str, *, num_bytes: int, sha256: str | None, keys: Collection[str]
) -> ShardCaptions:
    """What the folders hold for a shard that has the `keys`; the first that has a key counts.

    Names of shards may be equal in several data sets: a file that was made of another shard, or has captions
    for none of the keys, is not used. Reasons: `no_captions` (no file for the shard),
    `captions_of_another_shard`, `unreadable_captions`.
    """
    by_key: dict[str, str] = {}
    alternatives: dict[str, list[str]] = {}
    wanted = set(keys)
    skips: list[Skip] = []
    is_used = False
    for folder in folders:
        path = captions_path(folder, shard_stem)
        if not is_file(path):
            continue
        try:
            found = read_caption_file(path)
        except DatasetError as error:
            skips.append(Skip("unreadable_captions", path.name, str(error)))
            continue
        is_of_shard = is_made_of(found.source, num_bytes=num_bytes, sha256=sha256)
        rows = {row.key: row.caption for row in found.rows if row.key in wanted} if is_of_shard else {}
        if rows or (is_of_shard and not found.rows):
            is_used = True
            new = rows.keys() - by_key.keys()
            alternatives |= {key: texts for key, texts in found.alternatives.items() if key in new}
            by_key = rows | by_key
        else:
            made_of = f"made of {found.source}" if not is_of_shard else "has none of the shard's keys"
            skips.append(Skip("captions_of_another_shard", path.name, f"{path}: {made_of}"))
    if is_used:
        # A file of another data set beside the right one is as it should be.
        skips = [skip for skip in skips if skip.reason != "captions_of_another_shard"]
    elif not skips:
        skips = [Skip("no_captions", f"{shard_stem}{CAPTIONS_EXTENSION}", f"in {', '.join(folders)}")]
    return ShardCaptions(by_key, skips, alternatives)


def write_captions(
    path: Location | str,
    rows: Iterable[tuple[str, str]],
    *,
    model: str = "",
    revision: str = "",
    options: Mapping[str, object] | None = None,
    skips: Sequence[Skip] = (),
    source: str = "",
    alternatives: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Write captions, by key, to the Parquet file `path`, all or nothing; equal input gives equal bytes.

    `model`, `revision` and `options` (as JSON) stand in every row, so that files can be mixed and still tell
    what made them. `alternatives` are all the captions of keys that have several, that of the row first.
    """
    rows = list(rows)
    origin = Origin(model, revision, json.dumps(options or {}, sort_keys=True, ensure_ascii=False))
    columns = [*([row[n] for row in rows] for n in (0, 1)), *([value] * len(rows) for value in origin)]
    metadata = {
        _SKIPS_FIELD: json.dumps([skip.as_dict() for skip in skips], ensure_ascii=False).encode(),
        _SOURCE_FIELD: source.encode(),
    }
    names = (*Caption._fields, *Origin._fields)
    fields = [pyarrow.field(name, pyarrow.string(), nullable=False) for name in names]
    several = []
    if alternatives:
        fields.append(pyarrow.field(_ALL_CAPTIONS, pyarrow.list_(pyarrow.string())))
        several = [[alternatives.get(key) for key, _ in rows]]
    table = pyarrow.table([*columns, *several], schema=pyarrow.schema(fields, metadata=metadata))
    with atomic_path(path) as temporary:
        pyarrow.parquet.write_table(table, temporary, compression="zstd")


def read_captions(folder: Location | str, shard_stem: str) -> dict[str, str]:
    """Sample key -> caption, for the shard whose file name without extension is `shard_stem`.

    Raises:
        DatasetError: the shard has no captions there, or its file is damaged or of another schema.

    Examples:
        >>> from clipvip.shards import read_captions
        >>> read_captions("captions", "000000")["video0_00000"]
        'a picture of thing 0 in place 0'
    """
    return dict(read_caption_file(captions_path(folder, shard_stem)).rows)


def made_by(folder: Location) -> str:
    """The model, and its revision, that the first captions of a folder name; "" where they name none.

    Raises as `read_captions`.
    """
    for path in sorted_glob(folder, f"*{CAPTIONS_EXTENSION}"):
        for origin in read_caption_file(path, with_origins=True).origins:
            return f"{origin.model} {origin.revision}".strip()
    return ""


def read_caption_file(path: Location, *, with_origins: bool = False) -> CaptionFile:
    """What the Parquet file `path` says, `with_origins` also what made it. Raises as `read_captions`."""
    try:
        with open_small(path) as source, pyarrow.parquet.ParquetFile(source) as file:
            schema = file.schema_arrow
            if lacking := [name for name in Caption._fields if name not in schema.names]:
                raise DatasetError(
                    f"{path}: no column {', '.join(lacking)}; captions have a key and a caption in each row"
                )
            names: list[str] = list(Caption._fields)
            if with_origins and set(Origin._fields) <= set(schema.names):
                names += Origin._fields
            has_all = _is_list_of_texts(schema, _ALL_CAPTIONS)
            table = file.read(columns=[*names, *([_ALL_CAPTIONS] if has_all else [])])
            keys, captions, *origin = (table.column(name).to_pylist() for name in names)
            several = table.column(_ALL_CAPTIONS).to_pylist() if has_all else []
            fields = schema.metadata or {}
            skips = [Skip.from_json(skip) for skip in json.loads(fields.get(_SKIPS_FIELD, b"[]"))]
            made_of = fields.get(_SOURCE_FIELD, b"").decode()
    except FileNotFoundError as error:
        raise DatasetError(
            f"{path}: no captions for this shard; make them with 'clipvip-data caption'"
        ) from error
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, RecursionError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{path}: not readable as captions ({one_line(error)}); make it again") from error
    if not all(isinstance(value, str) for value in (*keys, *captions)):
        raise DatasetError(f"{path}: a key or caption is not a text; make it again")
    if len(set(keys)) != len(keys):
        raise DatasetError(f"{path}: a key stands there twice; make it again")
    if not all(isinstance(text, str) for texts in several for text in texts or ()):
        raise DatasetError(f"{path}: one of a clip's captions is not a text; make it again")
    origins = set(map(Origin, *origin)) if origin else {Origin()}
    alternatives = {key: texts for key, texts in zip(keys, several, strict=False) if texts}
    return CaptionFile(list(map(Caption, keys, captions)), origins, skips, made_of, alternatives)


def _is_list_of_texts(schema: pyarrow.Schema, name: str) -> bool:
    """Whether there is such a column; what others may call so is passed over where it is something else."""
    kind = schema.field(name).type if name in schema.names else pyarrow.null()
    is_list = pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind)
    return is_list and kind.value_type in (pyarrow.string(), pyarrow.large_string())
