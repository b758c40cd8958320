"""Tables of texts: every spelling, and damage named with its row."""

from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from clipvip.shards.errors import DatasetError
from clipvip.shards.sources.text_tables import load_text_table


def test_text_tables_of_every_spelling(tmp_path: Path) -> None:
    lines = tmp_path / "asr.jsonl"
    lines.write_text(
        '{"clip_id": "a.1.mp4", "text": " so  today"}\n\n{"clip_id": "a.2.mp4", "text": ["we", "cook"]}\n'
        '{"clip_id": "b", "subtitle": "x\\ud800"}\n'
        '{"key": "c_00001", "caption": "y"}\n{"clip_id": "d", "text": null}\n'
    )
    expected = {"a.1.mp4": "so today", "a.2.mp4": "we cook", "b": "x?", "c_00001": "y"}
    assert load_text_table(lines) == expected
    parquet = tmp_path / "asr.parquet"
    columns = {"clip_id": [*expected, "d"], "text": [*expected.values(), None], "extra": [1] * 5}
    pyarrow.parquet.write_table(pyarrow.table(columns), parquet)
    assert load_text_table(parquet) == expected


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('{"clip_id": "a", "text": "x"}\n{"clip', "row 2: not JSON"),
        ("[1]\n", "row 1: not a JSON object"),
        ('{"id": "a", "text": "x"}\n', "no field clip_id or key; it has id, text"),
        ('{"clip_id": "a", "words": "x"}\n', "no field text or subtitle or caption"),
        ('{"clip_id": 7.5, "text": "x"}\n', "the clip id is 7.5"),
        ('{"clip_id": "a", "text": 7}\n', "the text is '7'"),
        (
            '{"clip_id": "a", "text": "x"}\n{"clip_id": "a", "text": "y"}\n',
            "row 2: another text for clip 'a'",
        ),
    ],
)
def test_a_damaged_table_is_named_with_the_row(tmp_path: Path, rows: str, message: str) -> None:
    path = tmp_path / "asr.jsonl"
    path.write_text(rows)
    with pytest.raises(DatasetError, match=message) as caught:
        load_text_table(path)
    assert str(caught.value).startswith(str(path))


def test_a_damaged_parquet_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "asr.parquet"
    path.write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(DatasetError, match=r"asr\.parquet: not a readable Parquet file"):
        load_text_table(path)
