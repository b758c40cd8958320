"""Near-duplicates among all clips, by their embeddings, as columns of each shard's table."""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from clipvip.analysis.near_duplicates import NearDuplicates, find_near_duplicates
from clipvip.pipeline.filter.scores import known_table
from clipvip.pipeline.filter.table import ClipTable, table_path, write_table
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.search.index import Maker, Piece, Shard
from clipvip.shards.files.stores import Location


def mark_duplicates(
    out: Location,
    shards: Sequence[Shard],
    pieces: Sequence[Piece],
    *,
    made_by: str,
    least: float,
    use_gpu: bool,
) -> None:
    """Say in the tables of all shards which clips are alike from the cosine `least` on.

    `made_by` is `sum_of_pieces`. Nothing is compared where the tables already say it of the same clips. A
    UserError without faiss.
    """
    made_of = f"{least!r}; {made_by}"
    tables = (known_table(out, shard) for shard in shards)
    if all(table.made_of.get("duplicates") == made_of for table in tables):
        return
    num = sum(len(piece.keys) for piece in pieces)
    try:
        found = find_near_duplicates([p.vectors for p in pieces], num, least=least, use_gpu=use_gpu)
    except ImportError as error:
        raise UserError(str(error)) from error
    names = _Names(pieces)
    first = 0
    for shard, piece in zip(shards, pieces, strict=True):
        table = known_table(out, shard)
        rows = {key: first + row for row, key in enumerate(piece.keys)}
        columns = _columns(table, rows, found, names)
        path = table_path(out, shard.path.stem)
        write_table(path, table.with_family("duplicates", made_of, columns))
        first += len(piece.keys)


def threshold_of(made_of: str) -> float:
    """The cosine from which clips were alike in what `mark_duplicates` made."""
    return float(made_of.partition(";")[0])


def sum_of_pieces(pieces: Sequence[Piece], maker: Maker) -> str:
    """A hash over what the embeddings of all clips were made of and by, and themselves."""
    digest = hashlib.sha256(f"{maker}\n".encode())
    for piece in pieces:
        digest.update(f"{piece.shard_sha256} {piece.crc32} {len(piece.keys)}\n".encode())
    return digest.hexdigest()


class _Names:
    """The keys of all clips by their number in the data set."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces = pieces
        self._ends = np.cumsum([len(piece.keys) for piece in pieces])

    def __getitem__(self, number: int) -> str:
        piece = int(np.searchsorted(self._ends, number, side="right"))
        return self._pieces[piece].keys[number - int(self._ends[piece])]


def _columns(
    table: ClipTable, rows: dict[str, int], found: NearDuplicates, names: _Names
) -> dict[str, Sequence[str | None] | np.ndarray]:
    """The columns of a shard, of whose clips `rows` has the numbers. Those that are not encoded have none."""
    numbers = np.array([rows.get(key, -1) for key in table.keys], np.int64)
    is_known = numbers >= 0
    similarity = np.full(len(numbers), np.nan, np.float32)
    similarity[is_known] = found.similarity[numbers[is_known]]
    return {
        "similarity": similarity,
        "similar_to": [names[int(n)] if n >= 0 else None for n in _of(found.nearest, numbers)],
        "duplicates": [names[int(n)] if n >= 0 else None for n in _of(_groups(found), numbers)],
    }


def _of(values: np.ndarray, numbers: np.ndarray) -> Iterator[int]:
    return (int(values[number]) if number >= 0 else -1 for number in numbers)


def _groups(found: NearDuplicates) -> np.ndarray:
    """The first of each one's group; -1 of those that are like no other."""
    sizes = np.bincount(found.groups, minlength=len(found.groups))
    return np.where(sizes[found.groups] > 1, found.groups, -1)
