"""How a video is divided: pieces, shots and sentences."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipvip.pipeline.clips.spans import inside, pieces, sentences, shots
from clipvip.shards.sources.subtitles import Cue, text_in_spans

SECONDS = st.floats(0.5, 30)


def rounded(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(round(start, 3), round(end, 3)) for start, end in spans]


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (16.0, [(0, 8), (8, 16)]),
        (16.5, [(0, 8), (8, 16.5)]),
        (17.0, [(0, 8), (8, 16), (16, 17)]),
        (0.4, [(0, 0.4)]),
        (8.0, [(0, 8)]),
    ],
)
def test_pieces(end: float, expected: list[tuple[float, float]]) -> None:
    assert pieces(0, end, seconds=8, shortest=1) == expected


def test_shots() -> None:
    limits = {"seconds": 10.0, "shortest": 1.0}
    assert shots([3.0, 3.5, 9.0, 9.8], 0, 10, **limits) == [(0, 3), (3, 9), (9, 10)]
    assert shots([9.5], 0, 10, **limits) == [(0, 10)]
    assert rounded(shots([5], 0, 30, **limits)) == [(0, 5), (5, 13.333), (13.333, 21.667), (21.667, 30)]
    assert shots([], 0.5, 0.9, **limits) == [(0.5, 0.9)]


@given(start=st.floats(0, 5), length=st.floats(0.1, 500), cuts=st.lists(st.floats(0, 500)), seconds=SECONDS)
def test_nothing_is_left_out_and_nothing_too_long(
    start: float, length: float, cuts: list[float], seconds: float
) -> None:
    shortest, end = 0.5, start + length
    for spans, longest in (
        (pieces(start, end, seconds=seconds, shortest=shortest), seconds + shortest),
        (shots(sorted(cuts), start, end, seconds=seconds, shortest=shortest), seconds),
    ):
        assert spans[0][0] == start and spans[-1][1] == end
        assert all(first[1] == second[0] for first, second in itertools.pairwise(spans))
        assert all(0 < last - first <= longest + 1e-6 for first, last in spans)
        if length > 2 * shortest and seconds >= 2 * shortest:
            assert min(last - first for first, last in spans) >= shortest - 1e-6


def said(text: str, *, gap: float = 0.0) -> list[Cue]:
    """Words of half a second; | is a pause."""
    cues, at = list[Cue](), 0.0
    for word in text.split():
        if word == "|":
            at += 2.0
        else:
            cues.append(Cue(at, at + 0.5, word))
            at += 0.5 + gap
    return cues


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("we cut it. then we mix it! done now", ["we cut it.", "then we mix it!", "done now"]),
        ("we cut it | then mix", ["we cut it", "then mix"]),
        ('so "cut." then "mix?" ok', ['so "cut."', 'then "mix?"', "ok"]),
        ("no. no. no. no.", ["no. no.", "no. no."]),
        ("one two three four five six seven eight nine", ["one two three four five six", "seven eight nine"]),
        ("好！ 今天 做饭。 谢谢", ["好！ 今天 做饭。", "谢谢"]),
        ("oh! | yes", ["oh!", "yes"]),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    cues = said(text)
    spans = sentences(cues, seconds=3, shortest=1)
    assert text_in_spans(cues, spans) == expected


def test_short_ones_are_shown_longer_where_there_is_room() -> None:
    assert sentences(said("oh! | yes"), seconds=3, shortest=1) == [(0, 1), (2.5, 3.5)]
    one_word = [Cue(2.0, 2.0, "hm")]
    ((start, end),) = sentences(one_word, seconds=3, shortest=0)
    assert start == 2.0 < end
    assert sentences([], seconds=3, shortest=1) == []


CUES = st.lists(
    st.builds(
        lambda start, length, text: Cue(start, start + length, text),
        st.floats(0, 100),
        st.floats(0, 9),
        st.sampled_from(["a", "b.", "c?", "[Music]"]),
    ),
    max_size=30,
).map(lambda cues: sorted(cues, key=lambda cue: cue.start_seconds))


@given(cues=CUES, seconds=SECONDS)
def test_each_word_is_in_a_clip(cues: list[Cue], seconds: float) -> None:
    spans = sentences(cues, seconds=seconds, shortest=0.5)
    starts = [start for start, _ in spans]
    assert starts == sorted(starts)
    words = [cue.text for cue in cues]
    found = " ".join(text_in_spans(cues, spans)).split()
    assert all(found.count(word) >= words.count(word) for word in set(words))


def test_spans_end_with_the_video() -> None:
    assert inside([(0, 1.23456), (2, 9), (8, 10)], 8) == [(0, 1.235), (2, 8)]
    assert inside([(0, math.inf)], 3.0001) == [(0, 3.0)]
