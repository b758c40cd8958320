"""Names of videos and clips: what is one name, and what is one at all."""

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipvip.shards.files.names import id_of, same_name, spellings


@given(st.text())
def test_all_spellings_of_a_name_are_the_same(name: str) -> None:
    assert spellings(name)[0] == name
    assert {unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name), name} == set(
        spellings(name)
    )
    assert len({same_name(one) for one in spellings(name)}) == 1


@pytest.mark.parametrize(
    ("value", "name"),
    [
        *[(123, "123"), (123.0, "123"), (-1, "-1"), (0.0, "0"), ("123", "123"), ("0123", "0123")],
        *[("123.0", "123.0"), (1.5, 1.5), (True, True), (None, None), (2.0**60, 2.0**60), (1e400, 1e400)],
        *[([1], [1]), (2**70, str(2**70))],
    ],
)  # fmt: skip
def test_whole_numbers_are_ids_and_nothing_else_becomes_one(value: Any, name: Any) -> None:
    assert id_of(value) == name and type(id_of(value)) is type(name)
