"""Caption files: what is written is read back, equal input gives equal bytes, damage is told."""

from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.files.hashes import sha256_of_file
from clipvip.shards.format.captions import (
    Origin,
    is_made_of,
    made_by,
    read_caption_file,
    read_captions,
    shard_source,
    write_captions,
)
from clipvip.shards.format.clip_captions import captions_of_shard
from clipvip.shards.sources.text_tables import load_text_table

ROWS = [("b_00001", "a dog on a beach"), ("a_00000", "naïve 犬 🐕"), ("c_00002", "")]
ORIGIN = {"model": "ofa-large", "revision": "sha256:12", "options": {"num_beams": 5, "prompt": " what?"}}

_texts = st.text(st.characters(exclude_categories=["Cs"]))


@settings(deadline=None, max_examples=50)  # each example flushes a file to disk
@given(captions=st.dictionaries(_texts, _texts), what=_texts)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, captions: dict[str, str], what: str
) -> None:
    path = tmp_path_factory.mktemp("captions") / "000007.parquet"
    skips = [Skip("undecodable_frame", what, "why")]
    write_captions(path, captions.items(), skips=skips, source=what)
    assert read_captions(path.parent, "000007") == captions
    found = read_caption_file(path)
    assert found.rows == list(captions.items())
    assert (found.skips, found.source) == (skips, what)


def test_the_table_is_plain_parquet_with_its_origin_in_every_row(tmp_path: Path) -> None:
    path = tmp_path / "000000.parquet"
    write_captions(path, ROWS, **ORIGIN)  # type: ignore[arg-type]
    table = pyarrow.parquet.read_table(path)
    assert table.column_names == ["key", "caption", "model", "revision", "options"]
    assert table.to_pylist()[1] == {
        "key": "a_00000",
        "caption": "naïve 犬 🐕",
        "model": "ofa-large",
        "revision": "sha256:12",
        "options": '{"num_beams": 5, "prompt": " what?"}',
    }
    assert load_text_table(path)["b_00001"] == "a dog on a beach"


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_captions(tmp_path / name, ROWS, **ORIGIN)  # type: ignore[arg-type]
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "000000.parquet"
    write_captions(path, ROWS)
    before = path.read_bytes()
    with pytest.raises(pyarrow.ArrowException):
        write_captions(path, [("key", 3)])  # type: ignore[list-item]
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["000000.parquet"]


def test_a_file_counts_for_the_shard_that_it_was_made_of(tmp_path: Path) -> None:
    """And where nobody says which that was, for one whose keys it has."""
    shard = tmp_path / "000000.tar"
    shard.write_bytes(b"x" * 100)
    source = shard_source(shard)
    digest = sha256_of_file(shard)
    assert source == shard_source(shard, digest) == f"100 bytes, sha256 {digest}"
    for said, num_bytes, sha256, expected in (
        (source, 100, digest, True),
        (source, 100, None, True),
        (source, 100, "0" * 64, False),
        (source, 101, digest, False),
        ("100 bytes", 100, digest, True),  # as the first versions have it
        ("99 bytes", 100, digest, False),
        ("", 100, digest, True),
    ):
        assert is_made_of(said, num_bytes=num_bytes, sha256=sha256) == expected, said

    def write(folder: str, rows: list[tuple[str, str]], source: str) -> str:
        (tmp_path / folder).mkdir()
        write_captions(tmp_path / folder / "000000.parquet", rows, source=source)
        return str(tmp_path / folder)

    right = write("right", [("a", "right")], source)
    crossed = write("crossed", [("a", "wrong"), ("b", "wrong")], "100 bytes, sha256 " + "0" * 64)
    silent = write("silent", [("a", "late"), ("b", "said"), ("z", "of no key")], "")
    stranger = write("stranger", [("y", "of another")], "")

    def found(*folders: str, first_counts: bool = False) -> tuple[dict[str, str], list[str]]:
        given = captions_of_shard(
            folders,
            "000000",
            num_bytes=100,
            sha256=digest,
            keys=["a", "b", "c"],
            first_counts=first_counts,
        )
        texts = {key: "; ".join(several) for key, several in given.by_key.items()}
        return texts, [skip.reason for skip in given.skips]

    assert found(right) == ({"a": "right"}, [])
    assert found(crossed, right, silent) == ({"a": "right; late", "b": "said"}, [])
    assert found(crossed, right, silent, first_counts=True) == ({"a": "right", "b": "said"}, [])
    assert found(crossed) == found(stranger) == ({}, ["captions_of_another_shard"])
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "000000.parquet").write_text("no table")
    assert found(str(tmp_path / "damaged"), right) == ({"a": "right"}, ["unreadable_captions"])
    assert found(str(tmp_path)) == ({}, ["no_captions"])


def test_several_captions_of_a_clip_are_all_kept(tmp_path: Path) -> None:
    """And whoever knows of one only finds the first where it always was."""
    several = {"a_00000": ["one", "two"]}
    for name in ("new", "again"):
        write_captions(tmp_path / f"{name}.parquet", [("a_00000", "one"), ("b", "b")], alternatives=several)
    assert (tmp_path / "new.parquet").read_bytes() == (tmp_path / "again.parquet").read_bytes()
    found = read_caption_file(tmp_path / "new.parquet")
    assert found.rows == [("a_00000", "one"), ("b", "b")]
    assert found.all_captions() == {"a_00000": ["one", "two"], "b": ["b"]}
    table = pyarrow.parquet.read_table(tmp_path / "new.parquet")
    assert table.column_names == ["key", "caption", "model", "revision", "options", "captions"]
    assert table["captions"].to_pylist() == [["one", "two"], None]
    write_captions(tmp_path / "single.parquet", [("b", "b")], alternatives={})
    assert "captions" not in pyarrow.parquet.read_schema(tmp_path / "single.parquet").names


def test_one_of_several_captions_is_drawn(tmp_path: Path) -> None:
    for name, first in (("first", "one"), ("second", "other")):
        (tmp_path / name).mkdir()
        several = {"a": [first, "two", "three"]}
        write_captions(tmp_path / name / "0.parquet", [("a", first), (name, "x")], alternatives=several)
    folders = [str(tmp_path / "first"), str(tmp_path / "second")]
    found = captions_of_shard(folders, "0", num_bytes=1, sha256=None, keys=["a", "first", "second", "z"])
    rng, untouched = np.random.default_rng(3), np.random.default_rng(3)
    assert [found.draw(key, rng) for key in ("first", "second", "z")] == [("x",), ("x",), ()]
    assert found.draw("a", rng, most=6) == ("one", "two", "three", "other", "two", "three")
    assert rng.integers(1000) == untouched.integers(1000)
    drawn = [found.draw("a", rng) for _ in range(60)]
    assert set(drawn) == {("one",), ("two",), ("three",), ("other",)}
    some = {found.draw("a", rng, most=2) for _ in range(200)}
    assert len(some) > 6 and ("one", "two") in some and ("two", "one") not in some  # in their order


def test_tables_of_others_need_no_more_than_key_and_caption(tmp_path: Path) -> None:
    table = pyarrow.table({"key": ["a"], "caption": ["b"], "captions": [3], "score": [0.5]})
    pyarrow.parquet.write_table(table, tmp_path / "0.parquet")
    found = read_caption_file(tmp_path / "0.parquet", with_origins=True)
    assert (found.rows, found.origins, found.skips, found.source) == ([("a", "b")], {Origin()}, [], "")
    assert found.all_captions() == {"a": ["b"]}
    assert made_by(tmp_path) == ""
    write_captions(tmp_path / "00.parquet", ROWS, **ORIGIN)  # type: ignore[arg-type]
    (tmp_path / "0.parquet").unlink()
    assert made_by(tmp_path) == "ofa-large sha256:12"


def test_what_is_no_caption_file_is_told_in_one_line(tmp_path: Path) -> None:
    write_captions(tmp_path / "cut.parquet", ROWS)
    whole = (tmp_path / "cut.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.parquet").write_text("no table")
    pyarrow.parquet.write_table(pyarrow.table({"key": ["a"]}), tmp_path / "columns.parquet")
    other = {"model": [""], "revision": [""], "options": ["{}"]}
    for name, keys, captions in (
        ("null", ["a"], [None]),
        ("numbers", ["a"], [3]),
        ("twice", ["a", "a"], ["x", "y"]),
    ):
        table = pyarrow.table(
            {"key": keys, "caption": captions, **{k: v * len(keys) for k, v in other.items()}}
        )
        pyarrow.parquet.write_table(table, tmp_path / f"{name}.parquet")
    messages = {
        "missing": "no captions for this shard",
        "cut": "not readable",
        "text": "not readable",
        "columns": "no column caption",
        "null": "not a text",
        "numbers": "not a text",
        "twice": "twice",
    }
    for stem, message in messages.items():
        with pytest.raises(DatasetError) as caught:
            read_captions(tmp_path, stem)
        assert message in str(caught.value)
        assert f"{stem}.parquet" in str(caught.value)
        assert "\n" not in str(caught.value)
