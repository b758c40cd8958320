"""Texts that are found in others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipvip.analysis.text_overlap import NEAR, Overlap, TextIndex, words_of

TEXTS = ["A man is singing.", "a brown dog runs over the wet grass to its owner", "two people talk"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a man, is SINGING", Overlap(0, 1.0, is_exact=True)),
        ("Ａ man is singing", Overlap(0, 1.0, is_exact=True)),
        ("and so a man is singing now", None),
        ("two people talk of it", None),
        # 9 runs, of which one other word in the middle breaks three, at the end one.
        ("a brown dog runs over the wet grass to its mistress", Overlap(1, 8 / 9, is_exact=False)),
        ("a brown dog runs over the dry grass to its owner", None),
        ("well, a brown dog runs over the wet grass to its owner, you see", Overlap(1, 1, is_exact=False)),
        ("", None),
        ("...", None),
    ],
)
def test_same_words_and_most_runs_are_found(text: str, found: Overlap | None) -> None:
    assert TextIndex(TEXTS).find(text) == found


@given(st.lists(st.text("abc ", max_size=40), max_size=6), st.text("abc ", max_size=40))
def test_a_text_is_found_by_its_words_whatever_stands_around(texts: list[str], text: str) -> None:
    index = TextIndex([*texts, text])
    words = words_of(text)
    found = index.find(f"  {text.upper()}!")
    assert (found is not None and found.is_exact) == bool(words)
    longer = index.find(f"x {text} y")
    if len({tuple(words[n : n + 3]) for n in range(len(words) - 2)}) >= 4:
        assert longer is not None and longer.share >= NEAR
