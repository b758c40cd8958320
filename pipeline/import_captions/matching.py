"""Which rows of captions belong to which clips, found out on the disk: neither fits in memory.

An SQLite file of some 250 bytes a clip; its cache is the memory that this takes, however many they are.
"""

import errno
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from urllib.parse import quote

from clipvip.media.errors import one_line
from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.files.names import same_name
from clipvip.shards.sources.caption_rows import CaptionRow
from clipvip.shards.sources.video_set_files import video_name

_CACHE_KIB = 1 << 18
# A clip's number is its place in its shard, and before that the shard's.
_PLACE_BITS = 32
_TABLES = """
CREATE TABLE clips (clip INTEGER PRIMARY KEY, key TEXT, name TEXT, skip TEXT);
CREATE TABLE captions (clip INTEGER, caption TEXT);
CREATE TABLE skips (reason TEXT, what TEXT, detail TEXT);
CREATE TABLE counts (name TEXT, count INTEGER);
"""
_INDEXES = "CREATE INDEX of_key ON clips (key); CREATE INDEX of_name ON clips (name)"
_BY_KEY = "SELECT clip, key FROM clips WHERE key = ? LIMIT 2"
_BY_NAME = "SELECT clip, key FROM clips WHERE name = ? LIMIT 2"
_MAX_SHOWN_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class KnownClip:
    """A clip by its names, in its shard's order; or `skip`, why it is none."""

    key: str = ""
    clip_id: str = ""
    skip: Skip | None = None


@dataclass(frozen=True, slots=True)
class CaptionedClip:
    """A clip and its captions, each different one once; or `skip`, why there are none."""

    key: str
    captions: list[str]
    skip: Skip | None = None


@contextmanager
def _opened(path: Path, *, is_read: bool = False) -> Iterator[sqlite3.Connection]:
    """A connection; what SQLite raises, as OSError or DatasetError that names `path`."""
    how = "?mode=ro&immutable=1" if is_read else ""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}{how}", uri=True)) as connection:
            # A run that is killed makes the file anew, so it needs no journal.
            for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE_KIB}"):
                connection.execute(f"PRAGMA {setting}")
            yield connection
            connection.commit()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise DatasetError(
            f"{path}: {one_line(error)}; remove it, then run the same command again"
        ) from error
    except sqlite3.DatabaseError as error:
        raise DatasetError(
            f"{path}: {one_line(error)}; remove it, then run the same command again"
        ) from error


def write_clips(path: Path, shards: Iterable[tuple[int, list[KnownClip]]]) -> None:
    """Begin the file `path` with the clips of shards, each with its number, in any order."""
    with _opened(path) as connection:
        connection.executescript(_TABLES)
        for shard, clips in shards:
            rows = (_row(number, clip) for number, clip in enumerate(clips, shard << _PLACE_BITS))
            connection.executemany("INSERT INTO clips VALUES (?, ?, ?, ?)", rows)
        connection.executescript(_INDEXES)


def _row(number: int, clip: KnownClip) -> tuple[int, str | None, str | None, str | None]:
    if clip.skip is not None:
        return number, None, None, json.dumps(clip.skip.as_dict())
    return number, clip.key, _name(clip.clip_id), None


def _name(clip_id: str) -> str:
    """What a clip id is compared by."""
    return same_name(video_name(clip_id))


def match_rows(path: Path, rows: Iterable[CaptionRow]) -> None:
    """Add the rows to the clips in the file `path`; those that belong to none are kept as skips.

    A row belongs to the clip that has one of its ids for a key, else to the clip with such a clip id,
    extension aside. Reasons: `bad_row`, `empty_caption`, `no_such_clip`, `ambiguous_id` (of several clips).
    """
    with _opened(path) as connection:
        num_rows = 0
        for row in rows:
            num_rows += 1
            found = _clip_of(connection, row)
            if isinstance(found, Skip):
                values = (found.reason, found.what[:_MAX_SHOWN_CHARACTERS], found.detail)
                connection.execute("INSERT INTO skips VALUES (?, ?, ?)", values)
            else:
                added = ((found, caption) for caption in row.captions)
                connection.executemany("INSERT INTO captions VALUES (?, ?)", added)
        connection.execute("INSERT INTO counts VALUES ('rows', ?)", (num_rows,))
        connection.executescript("CREATE INDEX of_clip ON captions (clip)")


def _clip_of(connection: sqlite3.Connection, row: CaptionRow) -> int | Skip:
    if row.problem:
        return Skip("bad_row", row.where, row.problem)
    if not row.captions:
        return Skip("empty_caption", row.ids[0], row.where)
    ambiguous = ""
    for query, names in ((_BY_KEY, row.ids), (_BY_NAME, tuple(map(_name, row.ids)))):
        for name in names:
            found = connection.execute(query, (name,)).fetchall()
            if len(found) == 1:
                return int(found[0][0])
            if found:
                ambiguous = ambiguous or " and ".join(key for _, key in found)
    if ambiguous:
        return Skip("ambiguous_id", row.ids[0], f"{row.where}: the id of several clips, such as {ambiguous}")
    return Skip("no_such_clip", row.ids[0], row.where)


def clips_of_shard(path: Path, shard: int) -> Iterator[CaptionedClip]:
    """The clips of a shard, in its order, with what was found for them."""
    first = shard << _PLACE_BITS
    query = (
        "SELECT c.clip, c.key, c.skip, t.caption FROM clips c LEFT JOIN captions t ON t.clip = c.clip "
        "WHERE c.clip >= ? AND c.clip < ? ORDER BY c.clip, t.rowid"
    )
    with _opened(path, is_read=True) as connection:
        rows = connection.execute(query, (first, first + (1 << _PLACE_BITS)))
        for _, group in groupby(rows, lambda row: row[0]):
            of_clip = list(group)
            _, key, skip, _ = of_clip[0]
            captions = dict.fromkeys(row[3] for row in of_clip if row[3] is not None)
            yield CaptionedClip(key or "", list(captions), Skip.from_json(json.loads(skip)) if skip else None)


@dataclass(frozen=True)
class RowSkips:
    """The rows that belong to no clip, in their order, as often as they are asked for."""

    path: Path

    def __iter__(self) -> Iterator[Skip]:
        with _opened(self.path, is_read=True) as connection:
            for values in connection.execute("SELECT reason, what, detail FROM skips ORDER BY rowid"):
                yield Skip(*values)

    def count(self) -> tuple[int, int]:
        """How many rows there are, and how many of them belong to no clip."""
        with _opened(self.path, is_read=True) as connection:
            (rows,) = connection.execute("SELECT sum(count) FROM counts").fetchone()
            (skips,) = connection.execute("SELECT count(*) FROM skips").fetchone()
        return rows or 0, skips


def example_clip(path: Path) -> str:
    """How the first clip is called, for a message; "" where there is none."""
    with _opened(path, is_read=True) as connection:
        found = connection.execute("SELECT key, name FROM clips WHERE key IS NOT NULL LIMIT 1").fetchone()
    return f"{found[0]} (clip id {found[1]})" if found else ""
