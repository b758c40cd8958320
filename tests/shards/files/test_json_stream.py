"""JSON that is read piece by piece: the same values as at once, wherever the pieces end."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipvip.shards.files import json_stream
from clipvip.shards.files.json_stream import json_entries

VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
FILES = st.lists(VALUES, max_size=5) | st.dictionaries(st.text(max_size=5), VALUES, max_size=5)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("json") / "file.json"


@settings(max_examples=300)
@given(value=FILES, size=st.integers(1, 40), indent=st.none() | st.just(2), ascii_only=st.booleans())
def test_the_same_values_as_at_once(
    file: Path, value: object, size: int, indent: int | None, ascii_only: bool
) -> None:
    file.write_text(json.dumps(value, indent=indent, ensure_ascii=ascii_only), errors="surrogatepass")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_READ_CHARACTERS", size)
        found = list(json_entries(file))
    assert found == (list(value.items()) if isinstance(value, dict) else [(None, item) for item in value])


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


@settings(max_examples=300)
@given(
    value=FILES,
    size=st.integers(1, 40),
    cut=st.integers(1, 10),
    more=st.sampled_from(["", "x", "}", ",", "[1"]),
)
def test_damage_is_an_error(file: Path, value: object, size: int, cut: int, more: str) -> None:
    text = json.dumps(value)[:-cut] + more
    file.write_text(text)
    if is_json(text):
        return
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ValueError):
        patch.setattr(json_stream, "_READ_CHARACTERS", size)
        list(json_entries(file))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("3", "neither an object nor a list"),
        ("[1] 2", "more follows"),
        ('{"a": 1 "b": 2}', "has no ','"),
        ("{1: 2}", "without a name"),
        ('{"a" 1}', "has no ':'"),
        ('{"a": ' + "[" * 100_000, "recursion"),
    ],
)
def test_what_is_wrong_is_said(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        list(json_entries(file))


def test_a_value_without_an_end_is_not_all_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "_MOST_CHARACTERS", 1000)
    monkeypatch.setattr(json_stream, "_READ_CHARACTERS", 100)
    file.write_text('["' + "a" * 10_000)
    with pytest.raises(ValueError, match="longer than 1,000 characters"):
        list(json_entries(file))
