"""Rows put together by video on the disk: as a dict would, in bounded memory."""

import errno
import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipvip.shards.errors import Skip
from clipvip.shards.sources import by_video
from clipvip.shards.sources.by_video import put_together
from clipvip.shards.sources.video_set_files import Row

SECONDS = st.floats(0, 1e6)
ROWS = st.builds(
    Row,
    st.sampled_from(["a", "b", "\0", "\ud800", "é"]),
    st.text(max_size=4),
    st.tuples(SECONDS, SECONDS) | st.just(()),
    st.none() | st.tuples(SECONDS, SECONDS),
)


@given(rows=st.lists(ROWS | st.builds(Skip, st.text(max_size=3), st.text(max_size=3)), max_size=20))
def test_as_a_dict_would(rows: list[Row | Skip]) -> None:
    together: dict[str, list[Row]] = {}
    for row in rows:
        if isinstance(row, Row):
            together.setdefault(row.video, []).append(row)
    skips = [("", row) for row in rows if isinstance(row, Skip)]
    assert list(put_together(rows)) == [*together.items(), *skips]


def test_a_full_disk_names_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (Row(str(number % 1000), "x" * 1000) for number in range(3000))
    connect = sqlite3.connect

    def small(*arguments: object, **named: object) -> sqlite3.Connection:
        database = connect(*arguments, **named)  # type: ignore[call-overload]
        database.execute("PRAGMA max_page_count = 100")
        return database  # type: ignore[no-any-return]

    monkeypatch.setattr(by_video.sqlite3, "connect", small)
    with pytest.raises(OSError) as caught:
        list(put_together(rows))
    assert caught.value.errno == errno.ENOSPC and caught.value.filename


def test_errors_of_the_reader_pass_through() -> None:
    def rows() -> Iterator[Row]:
        yield Row("a", "b")
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        list(put_together(rows()))
