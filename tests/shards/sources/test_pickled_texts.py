"""Pickled texts are read without unpickling: what was pickled comes back, and nothing is ever called."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipvip.shards.sources.pickled_texts import RefusedPickle, is_pickled, read_pickled

_plain = st.one_of(
    st.text(),
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
)
_values = st.recursive(
    _plain,
    lambda inner: st.one_of(
        st.lists(inner), st.tuples(inner, inner), st.tuples(), st.dictionaries(st.text(), inner)
    ),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(value=_values, protocol=st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_what_was_pickled_comes_back(value: Any, protocol: int) -> None:
    assert read_pickled(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", ["a man walks", ["two", "texts"], {"caption": "x", "n": [1, 2]}, ("t",)])
def test_pickles_are_told_from_texts(value: object, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    assert is_pickled(data)
    assert read_pickled(data) == value
    again = pickle.dumps([value, value], protocol)  # the second by the memo
    assert read_pickled(again) == [value, value]


@pytest.mark.parametrize(
    "text", ["", "a man walks.", "N.", "tests.", "Roses.", "two\nlines.", "ein Hund läuft.", "."]
)
def test_texts_are_no_pickles(text: str) -> None:
    assert not is_pickled(text.encode())


class _Touches:
    """Its pickle makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


class _Plain:
    pass


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_is_called(protocol: int, tmp_path: Path) -> None:
    for value in (_Touches(tmp_path / "made"), ["a text", _Touches(tmp_path / "made")]):
        data = pickle.dumps(value, protocol)
        assert is_pickled(data)
        with pytest.raises(RefusedPickle, match="GLOBAL"):
            read_pickled(data)
    for value in (_Plain(), {"a", "set"}, range(3), 1j):
        with pytest.raises(RefusedPickle, match=r"asks for [A-Z]"):
            read_pickled(pickle.dumps(value, protocol))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "data",
    [
        b"(S'x'\nios\nsystem\n.",
        b"(cos\nsystem\nS'x'\no.",
        b"Pid\n.",
        b"\x82\x01.",
        b"N}b.",
        b"N)R.",
        b"N)\x81.",
    ],
    ids=["INST", "OBJ", "PERSID", "EXT1", "BUILD", "REDUCE", "NEWOBJ"],
)
def test_each_way_to_run_code_is_refused(data: bytes) -> None:
    with pytest.raises(RefusedPickle):
        read_pickled(data)


@settings(max_examples=300, deadline=None)
@given(value=_values, protocol=st.integers(0, 5), data=st.data())
def test_a_damaged_pickle_is_said_to_be_one(value: Any, protocol: int, data: st.DataObject) -> None:
    whole = pickle.dumps(value, protocol)
    place = data.draw(st.integers(0, len(whole) - 1))
    changed = whole[:place] + bytes([whole[place] ^ (1 << data.draw(st.integers(0, 7)))]) + whole[place + 1 :]
    for damaged in (whole[:place], changed):
        try:
            read_pickled(damaged)
        except (ValueError, RefusedPickle):
            continue
        assert damaged == changed  # the flipped bit was in a text, say


def test_a_small_pickle_of_much_takes_no_memory() -> None:
    value: list[Any] = ["lol"]
    for _ in range(60):
        value = [value, value]
    assert isinstance(read_pickled(pickle.dumps(value)), list)
