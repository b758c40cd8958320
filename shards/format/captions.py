"""Captions beside a shard: one Parquet file per shard, looked up by sample key.

A file is complete when it exists, and holds what was left out too, so it is the mark of its shard being done.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow
import pyarrow.parquet

from clipvip.media.errors import one_line
from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.files.atomic import atomic_path
from clipvip.shards.files.hashes import sha256_of_file
from clipvip.shards.files.places import location_of, open_small, size_of, sorted_glob
from clipvip.shards.files.stores import Location

CAPTIONS_EXTENSION = ".parquet"
# Beside `caption`, in files with clips that have several: all captions of such a clip, else null.
_ALL_CAPTIONS = "captions"
# In files of several frames of each clip: of which frame each of its captions is, by number and time.
_FRAMES, _FRAME_SECONDS = "frames", "frame_seconds"
FRAME_SKIP = "frame_without_caption"
"""The reason of skips that are of a single frame of a clip that has captions of others."""
# The columns of lists, and what may stand in them.
_LISTS = {
    _ALL_CAPTIONS: (pyarrow.string(), pyarrow.large_string()),
    _FRAMES: (pyarrow.int32(),),
    _FRAME_SECONDS: (pyarrow.float64(),),
}
_SKIPS_FIELD = b"clipvip.skips"
_SOURCE_FIELD = b"clipvip.source"


class Caption(NamedTuple):
    """A row of a caption file: the key of a sample and what the model says of it."""

    key: str
    caption: str


class SeenFrame(NamedTuple):
    """The frame that a caption is of: its number among the stored ones, and its time in the source."""

    number: int
    seconds: float


class Origin(NamedTuple):
    """What made a caption, as every row says it, if not others made it; `options` are JSON."""

    model: str = ""
    revision: str = ""
    options: str = "{}"


@dataclass(frozen=True, slots=True)
class CaptionFile:
    """What a caption file holds: captions in shard order, what made them, what was left out.

    `source` identifies the content of the shard, see `shard_source`; "" where it was not said. `origins` are
    as many as the rows have, none where there are no rows, and unknown unless they were asked for; then
    `row_origins` has that of each row. `alternatives` are all the captions of the keys that have several; the
    row has the first of them. `frames` tells of which frame each caption of a key is; where nothing is said,
    it is the middle one, or nobody knows.
    """

    rows: list[Caption]
    origins: set[Origin]
    skips: list[Skip]
    source: str
    alternatives: dict[str, list[str]] = field(default_factory=dict)
    frames: dict[str, list[SeenFrame]] = field(default_factory=dict)
    row_origins: list[Origin] = field(default_factory=list)

    @property
    def num_clips(self) -> int:
        """How many clips it says something of."""
        return len(self.rows) + sum(skip.reason != FRAME_SKIP for skip in self.skips)

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
    frames: Mapping[str, Sequence[SeenFrame]] | None = None,
) -> None:
    """Write captions, by key, to the Parquet file `path`, all or nothing; equal input gives equal bytes.

    `model`, `revision` and `options` (as JSON) stand in every row, so that files can be mixed and still tell
    what made them. `alternatives` are all the captions of keys that have several, that of the row first;
    `frames`, where they are of several frames, those that the captions of each key are of.
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
    lists: list[list[object]] = []
    if alternatives:
        fields.append(pyarrow.field(_ALL_CAPTIONS, pyarrow.list_(pyarrow.string())))
        lists.append([alternatives.get(key) for key, _ in rows])
    if frames:
        seen = [frames.get(key, ()) for key, _ in rows]
        fields.append(pyarrow.field(_FRAMES, pyarrow.list_(pyarrow.int32())))
        lists.append([[frame.number for frame in some] for some in seen])
        fields.append(pyarrow.field(_FRAME_SECONDS, pyarrow.list_(pyarrow.float64())))
        lists.append([[frame.seconds for frame in some] for some in seen])
    table = pyarrow.table([*columns, *lists], schema=pyarrow.schema(fields, metadata=metadata))
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
            lists = [name for name, kinds in _LISTS.items() if _is_list_of(schema, name, kinds)]
            table = file.read(columns=[*names, *lists])
            keys, captions, *origin = (table.column(name).to_pylist() for name in names)
            several, frames, seconds = (
                table.column(name).to_pylist() if name in lists else [] for name in _LISTS
            )
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
    known: dict[Origin, Origin] = {}  # each once in memory
    row_origins = [known.setdefault(made, made) for made in map(Origin, *origin)] if origin else []
    return CaptionFile(
        list(map(Caption, keys, captions)),
        set(known) if origin else {Origin()},
        skips,
        made_of,
        {key: texts for key, texts in zip(keys, several, strict=False) if texts},
        _frames_by_key(keys, several, frames, seconds),
        row_origins or [Origin()] * (len(keys) if with_origins else 0),
    )


def _is_list_of(schema: pyarrow.Schema, name: str, kinds: Sequence[pyarrow.DataType]) -> bool:
    """Whether there is such a column; what others may call so is passed over where it is something else."""
    kind = schema.field(name).type if name in schema.names else pyarrow.null()
    is_list = pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind)
    return is_list and kind.value_type in kinds


def _frames_by_key(
    keys: Sequence[str],
    several: Sequence[Sequence[str] | None],
    frames: Sequence[Sequence[int] | None],
    seconds: Sequence[Sequence[float] | None],
) -> dict[str, list[SeenFrame]]:
    """The frame of each caption of a key, where as many are told as it has captions."""
    found = {}
    for number, (key, indices, times) in enumerate(zip(keys, frames, seconds, strict=False)):
        texts = several[number] if several else None
        if indices and times and len(indices) == len(times) == len(texts or (key,)):
            found[key] = list(map(SeenFrame, indices, times))
    return found
