"""Put the rows of a list together by video, on the disk: ten million rows may be in no order of videos."""

import errno
import json
import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import groupby

from clipvip.shards.errors import Skip
from clipvip.shards.files.names import same_name
from clipvip.shards.sources.video_set_files import Row

_CACHE_KIBIBYTES = 1 << 16

_IN_ORDER = """
SELECT video, row FROM (SELECT *, MIN(number) OVER (PARTITION BY video) AS first FROM rows)
ORDER BY first, number
"""


def put_together(rows: Iterable[Row | Skip]) -> Iterator[tuple[str, list[Row] | Skip]]:
    """(video, its rows) in the order of each video's first row; then ("", skip) of each skip.

    The rows are in a database without a name in TMPDIR, twice while they are sorted; in memory are some
    200 MB and the rows of one video. Raises OSError where there is no room for it.
    """
    with closing(sqlite3.connect("", isolation_level=None)) as database:
        try:
            database.execute(f"PRAGMA cache_size = -{_CACHE_KIBIBYTES}")
            database.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, video TEXT, row TEXT)")
            database.execute("BEGIN")
            database.executemany("INSERT INTO rows (video, row) VALUES (?, ?)", map(_stored, rows))
            found = database.execute(_IN_ORDER.replace("FROM rows", "FROM rows WHERE video != ''"))
            for _, group in groupby(found, key=lambda pair: pair[0]):
                together = [_row(row) for _, row in group]
                yield together[0].video, together
            for (row,) in database.execute("SELECT row FROM rows WHERE video = '' ORDER BY number"):
                yield "", Skip.from_json(json.loads(row))
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                raise
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), tempfile.gettempdir()) from error


def _stored(row: Row | Skip) -> tuple[str, str]:
    # As ASCII: SQLite takes no lone surrogates.
    if isinstance(row, Skip):
        return "", json.dumps(row.as_dict())
    fields = [row.video, row.sentence, row.time, row.span]
    return json.dumps(same_name(row.video)), json.dumps(fields)


def _row(stored: str) -> Row:
    video, sentence, time, span = json.loads(stored)
    return Row(video, sentence, tuple(time), None if span is None else (span[0], span[1]))
