"""What is known of the clips of a shard: one Parquet file beside it, a row a clip, in the shard's order.

Its columns come in families. Each family says what it was made of, so that it is made again if that changes
and stays if not.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow
import pyarrow.parquet

from clipvip.shards.errors import Skip
from clipvip.shards.files.atomic import atomic_path
from clipvip.shards.files.places import open_small
from clipvip.shards.files.stores import Location

Family = Literal["measures", "scores", "duplicates", "leaks"]
Values = Sequence[str | None] | np.ndarray
"""A column: texts, or float32 in which NaN is null."""

KEY = "key"
_NUMBER, _TEXT = pyarrow.float32(), pyarrow.string()
FAMILIES: dict[Family, dict[str, pyarrow.DataType]] = {
    "measures": {
        "words": _NUMBER,
        "caption_words": _NUMBER,
        "seconds": _NUMBER,
        "motion": _NUMBER,
        "language": _TEXT,
    },
    "scores": {"score": _NUMBER, "caption_score": _NUMBER},
    "duplicates": {"similarity": _NUMBER, "similar_to": _TEXT, "duplicates": _TEXT},
    "leaks": {"leak": _TEXT, "leak_by": _TEXT},
}
NUMBERS = tuple(name for columns in FAMILIES.values() for name, kind in columns.items() if kind is _NUMBER)
_MADE_OF, _SKIPS = b"clipvip.made_of", b"clipvip.skips"


@dataclass(frozen=True)
class ClipTable:
    """The keys of a shard's clips, columns of the families in `made_of`, and the clips that were left out."""

    keys: list[str]
    columns: dict[str, pyarrow.Array]
    made_of: dict[Family, str]
    skips: list[Skip]

    def with_family(self, family: Family, made_of: str, columns: Mapping[str, Values]) -> "ClipTable":
        """The table with all the columns of a family, which replace those that it has."""
        new = {
            name: pyarrow.array(columns[name], kind, from_pandas=kind is _NUMBER)
            for name, kind in FAMILIES[family].items()
        }
        return ClipTable(self.keys, self.columns | new, self.made_of | {family: made_of}, self.skips)

    def numbers(self, name: str) -> np.ndarray:
        """A column, float32 with NaN for null."""
        return self.columns[name].to_numpy(zero_copy_only=False).astype(np.float32)

    def texts(self, name: str) -> list[str | None]:
        """A column of texts."""
        found: list[str | None] = self.columns[name].to_pylist()
        return found


def table_path(folder: Location, shard_stem: str) -> Location:
    return folder / f"{shard_stem}.parquet"


def write_table(path: Location, table: ClipTable) -> None:
    """Write a table, all or nothing; equal tables give equal bytes, whatever was made first."""
    families = [family for family in FAMILIES if family in table.made_of]
    kinds = {name: kind for family in families for name, kind in FAMILIES[family].items()}
    fields = [pyarrow.field(KEY, _TEXT, nullable=False), *map(pyarrow.field, kinds, kinds.values())]
    metadata = {
        _MADE_OF: json.dumps({family: table.made_of[family] for family in families}).encode(),
        _SKIPS: json.dumps([skip.as_dict() for skip in table.skips], ensure_ascii=False).encode(),
    }
    arrays = [pyarrow.array(table.keys, _TEXT), *(table.columns[name] for name in kinds)]
    made = pyarrow.table(arrays, schema=pyarrow.schema(fields, metadata=metadata))
    with atomic_path(path) as temporary:
        pyarrow.parquet.write_table(made, temporary, compression="zstd")


def read_table(path: Location) -> ClipTable | None:
    """The table in a file; None where there is none, or it is damaged, or another version's."""
    try:
        with open_small(path) as source, pyarrow.parquet.ParquetFile(source) as file:
            found = file.read()
        about = found.schema.metadata or {}
        made_of: dict[Family, str] = {}
        columns: dict[str, pyarrow.Array] = {}
        for family, text in json.loads(about[_MADE_OF]).items():
            for name, kind in FAMILIES[family].items():
                columns[name] = found.column(name).cast(kind).combine_chunks()
            made_of[family] = str(text)
        skips = [Skip.from_json(skip) for skip in json.loads(about[_SKIPS])]
        return ClipTable(found.column(KEY).to_pylist(), columns, made_of, skips)
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError, RecursionError, AttributeError):
        return None
