"""What is kept on the disk instead of in memory: as a dictionary, a set or a sorted list would have it."""

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipvip.shards.building.mark_store import AllSkips, MarkStore, SkipStore
from clipvip.shards.building.marks import PlacedSkip, ShardMark
from clipvip.shards.errors import Skip
from clipvip.shards.files.disk_index import DiskIndex, RepeatedKeyError
from clipvip.shards.files.hashes import Repeats
from clipvip.shards.files.names import same_name
from clipvip.shards.files.scratch import ScratchFile
from clipvip.shards.format.manifest import ShardRecord
from clipvip.shards.sources.text_tables import load_text_table

# Few keys, so that they repeat; some that are odd.
KEYS = st.one_of(st.text(max_size=2), st.sampled_from(["a", "b", "\ud800", "", "\u00e9", "e\u0301"]))
SIZES = st.integers(1, 7)  # keys at once


@given(st.lists(st.tuples(KEYS, st.text(max_size=5))), st.lists(KEYS), SIZES)
@settings(deadline=None, max_examples=200)
def test_an_index_is_a_dictionary_of_the_first_values(
    pairs: list[tuple[str, str]], asked: list[str], at_once: int
) -> None:
    expected: dict[str, str] = {}
    for key, value in pairs:
        expected.setdefault(same_name(key), value)
    index = DiskIndex.of_pairs(pairs, at_once=at_once)
    assert [(same_name(key), value) for key, value in index.items()] == list(expected.items())
    assert len(index) == len(expected)
    for key in asked:
        assert index.get(key) == expected.get(same_name(key))


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("xy"))), SIZES)
@settings(deadline=None, max_examples=200)
def test_values_that_disagree_are_found_wherever_they_stand(
    pairs: list[tuple[str, str]], at_once: int
) -> None:
    lines = [f"{key}{value}" for key, value in pairs]
    first = {key: value for key, value in reversed(pairs)}
    conflicts = [
        at
        for at, (key, value) in enumerate(pairs)
        if any(before == key and other != value for before, other in pairs[:at])
    ]

    def index() -> DiskIndex:
        entries = ((key, at) for at, (key, _) in enumerate(pairs))
        return DiskIndex(
            entries, lambda at: (lines[at][0], lines[at][1]), repeats_must_agree=True, at_once=at_once
        )

    if not conflicts:
        assert dict(index()) == first
        return
    with pytest.raises(RepeatedKeyError) as found:
        index()
    assert found.value.at in conflicts
    assert found.value.at == conflicts[0] or at_once < len(pairs)


@given(st.lists(KEYS), SIZES)
@settings(deadline=None, max_examples=200)
def test_repeats_are_those_that_came_before(texts: list[str], at_once: int) -> None:
    repeats = Repeats(iter(texts), at_once=at_once)
    expected = {place for place, text in enumerate(texts) if text in texts[:place]}
    assert {place for place in range(len(texts) + 9) if place in repeats} == expected
    assert repeats.count == len(expected)


@given(st.lists(st.binary(max_size=2000).map(lambda data: data.replace(b"\n", b" "))), st.integers(1, 3000))
@settings(deadline=None)
def test_lines_of_a_scratch_file(lines: list[bytes], buffer_bytes: int) -> None:
    """Wherever what is on the disk ends, and what is in memory begins."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clipvip.shards.files.scratch._BUFFER_BYTES", buffer_bytes)
        file = ScratchFile()
        places = [file.append(line + b"\n") for line in lines]
        assert list(file.lines()) == lines
        assert [file.line_at(at) for at in places] == lines
        whole = b"".join(line + b"\n" for line in lines)
        assert len(file) == len(whole)
        for at in range(0, len(whole) + 9, 701):
            assert file.read(at, 1500) == whole[at : at + 1500]


def test_a_scratch_file_leaves_nothing_behind(tmp_path: Path) -> None:
    file = ScratchFile(tmp_path)
    file.append(b"x" * (3 << 20))
    assert file.read((3 << 20) - 1, 9) == b"x"
    assert not list(tmp_path.iterdir())


def _skip(line: int, position: int) -> PlacedSkip:
    return PlacedSkip(line, position, Skip("missing_video", f"v{line}.{position}", "é"))


def test_marks_and_skips_come_back_in_order(tmp_path: Path) -> None:
    record = ShardRecord("000001.tar", 3, 1024, "ab")
    marks, skips = MarkStore(tmp_path), SkipStore(tmp_path)
    given_marks = [
        ShardMark(2, None, [_skip(5, 0), _skip(5, 2)], ["bad.vtt"], 0, 0),
        ShardMark(0, None, [_skip(1, 1)]),
        ShardMark(1, None, [_skip(2, 0)]),
        ShardMark(1, record, [_skip(2, 0), _skip(3, 0)], [], 9, 1),  # made again
    ]
    for mark in given_marks:
        marks.add(mark)
    for place in [(1, 0), (4, 0), (5, 1), (9, 0)]:
        skips.add(_skip(*place))
    assert list(marks) == [given_marks[1], given_marks[3], given_marks[0]]
    everything = AllSkips(skips, marks)
    order = ["v1.0", "v1.1", "v2.0", "v3.0", "v4.0", "v5.0", "v5.1", "v5.2", "v9.0"]
    assert [skip.what for skip in everything] == order == [skip.what for skip in everything]


def test_a_table_of_texts_that_changes_meanwhile_is_told(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"clip_id": "a", "text": "one"}\n{"clip_id": "b", "text": "two"}\n')
    table = load_text_table(path)
    assert dict(table) == {"a": "one", "b": "two"}
    path.write_text('{"clip_id"\n' * 9)
    with pytest.raises(ValueError, match=r"texts\.jsonl: changed while it was read; run the same command"):
        table["b"]


def test_memory_is_little_whatever_is_kept() -> None:
    count = 20_000
    tracemalloc.start()
    index = DiskIndex.of_pairs(((f"{n}", "x" * 100) for n in range(count)), at_once=1_000)
    Repeats((f"{n}" for n in range(count)), at_once=1_000)
    store = MarkStore()
    for shard in range(count // 100):
        store.add(ShardMark(shard, skips=[_skip(shard, n) for n in range(100)]))
    assert index[str(count - 1)] and sum(len(mark.skips) for mark in store) == count
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 << 20  # the skips alone are 16 MB as objects
