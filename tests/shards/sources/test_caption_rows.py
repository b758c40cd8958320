"""Rows of captions are read from each kind of file that others pass on."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from caption_sources import write_lmdb, write_rows
from clipvip.shards.errors import DatasetError
from clipvip.shards.sources.caption_rows import CaptionRow, Columns, find_caption_files, read_caption_rows
from resources import need

ROWS: list[dict[str, Any]] = [
    {"key": "a_00000", "caption": "a dog\n runs"},
    {"key": "a_00001", "caption": "naïve 犬"},
    {"key": "a_00002", "caption": ""},
]
WANTED = [(("a_00000",), ("a dog runs",)), (("a_00001",), ("naïve 犬",)), (("a_00002",), ())]


def read(path: Path, **columns: str) -> list[CaptionRow]:
    (file,) = find_caption_files(path)
    return list(read_caption_rows(file, Columns(**columns)))


def parts(rows: list[CaptionRow]) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    return [(row.ids, row.captions) for row in rows]


@pytest.mark.parametrize("extension", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_each_kind_of_file(extension: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path / f"captions.{extension}", ROWS)
    assert parts(read(path)) == WANTED
    other = [{"name": row["key"], "said": row["caption"], "caption": "not this"} for row in ROWS]
    path = write_rows(tmp_path / f"others.{extension}", other)
    assert parts(read(path, id="name", caption="said")) == WANTED
    with pytest.raises(
        DatasetError, match=r"no id; its fields are name, said, caption\); name the fields by"
    ):
        read(path)


@pytest.mark.parametrize(
    ("fields", "ids", "captions"),
    [
        ({"clip_id": "v.1.mp4", "captions": ["a", " ", "b"]}, ("v.1.mp4",), ("a", "b")),
        ({"image_id": 17, "caption": "a"}, ("17",), ("a",)),
        ({"image_id": 17.0, "caption": "a"}, ("17",), ("a",)),
        ({"video_id": "v", "sentence": "a"}, ("v",), ("a",)),
        ({"video_id": "v", "id": "w", "text": "a"}, ("w",), ("a",)),
        ({"key": "k", "clip_id": "c", "caption": None, "captions": ["a"]}, ("k", "c"), ("a",)),
        ({"key": "k", "caption": [{"caption": "a"}, {"caption": "b"}]}, ("k",), ("a", "b")),
        ({"key": "k", "caption": "\ud83d lone"}, ("k",), ("? lone",)),
    ],
)
def test_names_of_fields(
    fields: dict[str, Any], ids: tuple[str, ...], captions: tuple[str, ...], tmp_path: Path
) -> None:
    for name in ("rows.jsonl", "rows.json"):
        assert parts(read(write_rows(tmp_path / name, [fields]))) == [(ids, captions)]


def test_bad_rows_are_told_and_do_not_stop(tmp_path: Path) -> None:
    lines = [
        '{"key": "k", "caption": "a"}', "{cut", "[1]", '{"key": "k"}', '{"caption": "a"}',
        '{"key": {}, "caption": "a"}', '{"key": true, "caption": "a"}', '{"key": "k", "caption": 3}',
        '{"a":' * 9999,
    ]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    good, *bad = read(tmp_path / "rows.jsonl")
    assert not good.problem and all(row.problem for row in bad)
    assert [row.where for row in bad] == [f"rows.jsonl, line {n}" for n in range(2, 10)]


def test_tables_of_windows_are_read(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(
        '\ufeffkey,caption\r\nk,"café, naïve"\r\n'.encode() + b"m,caf\xe9\r\n\r\nn\r\n"
    )
    *rows, short = read(tmp_path / "rows.csv")
    assert parts(rows) == [(("k",), ("café, naïve",)), (("m",), ("café",))]
    assert short.problem


def test_json_in_the_forms_of_captioners(tmp_path: Path) -> None:
    for content in (
        {"v.0.mp4": "a", "v.1.mp4": ["b", "c"], "v.2.mp4": {"caption": "d", "key": "not this"}},
        {
            "annotations": [
                {"image_id": "v.0.mp4", "id": "v.0.mp4", "caption": "a"},
                {"image_id": "v.1.mp4", "caption": ["b", "c"]},
                {"image_id": "v.2.mp4", "caption": "d"},
            ],
            "images": [],
        },
    ):
        (tmp_path / "c.json").write_text(json.dumps(content))
        assert parts(read(tmp_path / "c.json")) == [
            (("v.0.mp4",), ("a",)), (("v.1.mp4",), ("b", "c")), (("v.2.mp4",), ("d",)),
        ]  # fmt: skip


def test_lmdb_of_texts_and_pickles(tmp_path: Path) -> None:
    need("lmdb")
    values = {
        "v.0.mp4": b"a man walks",
        "v.1.mp4": pickle.dumps("pickled", 0),
        "v.2.mp4": pickle.dumps(["one", "two"]),
        "v.3.mp4": pickle.dumps({"caption": b"bytes", "score": 0.5}),
        "v.4.mp4": pickle.dumps([{"image_id": 3, "caption": "of a captioner"}], 2),
        "v.5.mp4": '["json", "läuft"]'.encode(),
        "v.6.mp4": b'"quoted" he said',
        "v.7.mp4": b"\xff\xfe",
        "v.8.mp4": pickle.dumps("cut off")[:-3],
        "__len__": pickle.dumps(9),
        "__keys__": pickle.dumps(["v.0.mp4"]),
    }
    folder = write_lmdb(tmp_path / "captions_db", values)
    for place in (folder, folder / "data.mdb"):
        rows = read(place)
        assert [row.ids for row in rows[:7]] == [(f"v.{n}.mp4",) for n in range(7)]
        assert [row.captions for row in rows[:7]] == [
            ("a man walks",), ("pickled",), ("one", "two"), ("bytes",), ("of a captioner",),
            ("json", "läuft"), ('"quoted" he said',),
        ]  # fmt: skip
        assert all(row.problem for row in rows[7:]) and len(rows) == 9
        assert rows[0].where == "captions_db, v.0.mp4"


def test_what_cannot_be_read_is_told_in_one_line(tmp_path: Path) -> None:
    need("lmdb")
    whole = write_lmdb(tmp_path / "whole", {f"v.{n}.mp4": b"text " * 50 for n in range(2000)}) / "data.mdb"
    (tmp_path / "cut.mdb").write_bytes(whole.read_bytes()[:100_000])
    (tmp_path / "tiny.mdb").write_bytes(whole.read_bytes()[:5000])
    (tmp_path / "junk.mdb").write_bytes(b"junk" * 5000)
    (tmp_path / "junk.parquet").write_bytes(b"junk" * 50)
    (tmp_path / "junk.json").write_text("{cut")
    (tmp_path / "number.json").write_text("3")
    (tmp_path / "blank.csv").write_text("")
    write_lmdb(tmp_path / "code_db", {"v.0.mp4": pickle.dumps(pytest.raises)})
    messages = {
        "cut.mdb": "cut off", "tiny.mdb": "cut off|not a readable", "junk.mdb": "not a readable LMDB",
        "junk.parquet": "not a readable Parquet", "junk.json": "is not JSON", "number.json": "must be a list",
        "code_db": "a pickle that asks for .*GLOBAL",
    }  # fmt: skip
    for name, message in messages.items():
        with pytest.raises(DatasetError, match=message) as caught:
            read(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)
    assert read(tmp_path / "blank.csv") == []
    for name in ("absent", "words.txt"):
        (tmp_path / "words.txt").write_text("a")
        with pytest.raises(DatasetError, match=name):
            find_caption_files(tmp_path / name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="holds no captions"):
        find_caption_files(tmp_path / "empty")


def test_a_folder_of_files_is_read_by_name(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.parquet", "c.csv", "manifest.json"):
        write_rows(tmp_path / name, ROWS)
    (tmp_path / "notes.txt").write_text("of no kind")
    assert [path.name for path in find_caption_files(tmp_path)] == ["a.parquet", "b.jsonl", "c.csv"]
