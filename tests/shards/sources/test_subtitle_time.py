"""Subtitles are read in linear time, whatever is in them: twice the size takes about twice as long."""

import json
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipvip.shards.errors import DatasetError
from clipvip.shards.sources.rolling_captions import without_repeated_states
from clipvip.shards.sources.subtitle_cues import Line, ShownCue, TimedText
from clipvip.shards.sources.subtitles import Cue, parse_subtitles, text_in_span, text_in_spans

_HEAD = "WEBVTT\n\n"
_TIMES = "00:00:01.000 --> 00:00:05.000\n"
_LATER = "00:00:05.000 --> 00:00:09.000\n"


def _two(first: str, second: str) -> str:
    return f"{_HEAD}{_TIMES}{first}\n{_LATER}{second}"


def _one(line: str) -> str:
    return f"{_HEAD}{_TIMES}{line}\n"


def _xml(inside: str) -> str:
    return f"<timedtext>{inside}</timedtext>"


def _json3(segments: int, **more: int) -> str:
    return json.dumps({"events": [{"tStartMs": 0, "segs": [{"utf8": "a", **more}] * segments}]})


_P = '<p t="1000" d="500">'

# Some 2n bytes, out of which a parser has once made n² steps, or might.
SHAPES: dict[str, Callable[[int], str]] = {
    "two cues of equal lines, and one line more": lambda n: _two("a\n" * n + "b\n", "a\n" * n),
    "two cues of equal lines but for the first": lambda n: _two("a\n" * n, "b\n" + "a\n" * n),
    "two cues whose lines take turns": lambda n: _two("a\nb\n" * (n // 2) + "a\na\n", "a\nb\n" * (n // 2)),
    "many cues in one moment": lambda n: _HEAD + f"{_TIMES}a\n\n" * (n // 16),
    "one line of word times": lambda n: _one("<00:00:01.500>a" * (n // 8)),
    "one line of tags": lambda n: _one("<c>a</c>" * (n // 4)),
    "tags that never end": lambda n: _one("<a" * n),
    "styles that never end": lambda n: _one("{\\" * n),
    "spaces before a damaged time": lambda n: f"{_TIMES}a\n\n{' ' * 2 * n}00:00:0x --> \n",
    "arrows": lambda n: _TIMES + "-->\n" * (n // 2),
    "arrows between texts": lambda n: _TIMES + "x --> y\n" * (n // 4),
    "times after numbers": lambda n: _TIMES + "1\n1:1 --> z\n" * (n // 6),
    "settings that never end": lambda n: _TIMES + f"a\n\n{_TIMES.strip()}{' a:b' * (n // 2)} x\n",
    "spaces after times": lambda n: _TIMES + f"a\n\n{_TIMES.strip()}{' ' * 2 * n}x\n",
    "two cues of which the last line grows": lambda n: _two("a\n" * n + "b\n\n", "a\n" * n + "bc\n"),
    "two cues of which the only word grows": lambda n: _two("a" * n + "\n\n", "a" * n + "b\n"),
    "many cues that grow": lambda n: (
        _HEAD
        + "".join(
            f"00:{n // 60:02d}:{n % 60:02d}.000 --> 00:{n // 60:02d}:{n % 60:02d}.999\n{'a ' * n}\n\n"
            for n in range(int(1.4 * n**0.5))
        )
    ),
    "numbers": lambda n: _TIMES + "1\n" * n,
    "entities": lambda n: _one("&amp" * (n // 2) + "&#" + "9" * n),
    "captions in each other": lambda n: _xml(_P * (n // 10) + "x" + "</p>" * (n // 10)),
    "spans in each other": lambda n: _xml(_P + "<s>a" * (n // 4) + "</s>" * (n // 4) + "</p>"),
    "one caption of many spans": lambda n: _xml(_P + "<s>a</s>" * (n // 4) + "</p>"),
    "one caption of many words": lambda n: _json3(n // 8),
    "one caption of words with one time": lambda n: _json3(n // 8, tOffsetMs=0),
    "a time of many digits": lambda n: json.dumps({"events": [{"tStartMs": "1" * 2 * n, "segs": []}]}),
    "many brackets": lambda n: '{"events": ' + "[" * 2 * n,
}


def _seconds(text: str, rounds: int = 1) -> float:
    data = text.encode()
    best = float("inf")
    for _ in range(rounds):
        started = time.process_time()
        with suppress(DatasetError):  # to be refused in time is as good
            parse_subtitles(data)
        best = min(best, time.process_time() - started)
    return best


@pytest.mark.parametrize("shape", SHAPES)
def test_eight_times_the_size_takes_about_eight_times_as_long(shape: str) -> None:
    small, large = SHAPES[shape](4_000), SHAPES[shape](32_000)
    # Quadratic is 64 times, and was seconds; in a process with much memory, collecting garbage takes a share
    # of any.
    assert _seconds(large) < 1 or _seconds(large, rounds=3) < 30 * _seconds(small, rounds=3)


def test_the_words_of_captions_in_each_other_are_said_once() -> None:
    xml = "<timedtext><p t='1000' d='500'>a<p t='2000' d='500'>b<s>c</s></p>d</p></timedtext>"
    assert [(cue.start_seconds, cue.text) for cue in parse_subtitles(xml.encode())] == [
        (1.0, "ad"),
        (2.0, "bc"),
    ]


def _cue(start: float, end: float, lines: list[str]) -> ShownCue:
    """Lines of text; an upper-case one has word times, an empty one has no text."""
    return ShownCue(
        start,
        end,
        [Line([TimedText(start, text.lower())] if text else [], text.isupper()) for text in lines],
    )


@given(
    st.lists(st.sampled_from("ab"), max_size=8), st.lists(st.sampled_from(["a", "b", "A", ""]), max_size=8)
)
@settings(deadline=None, max_examples=300)
def test_the_longest_overlap_is_dropped(old: list[str], new: list[str]) -> None:
    # The third cue makes the file one of rolling captions.
    cues = [_cue(0, 0.01, old), _cue(0.01, 0.02, new), _cue(9, 10, ["A"])]
    shown = [text for text in new if text]
    timed = next((place for place, text in enumerate(shown) if text.isupper()), len(shown))
    overlap = next((size for size in range(min(len(old), timed), 0, -1) if old[-size:] == shown[:size]), 0)
    kept = {cue.start_seconds: [line.text for line in cue.lines] for cue in without_repeated_states(cues)}
    assert kept.get(0.01, []) == ([text.lower() for text in shown[overlap:]])


_TIME = st.integers(0, 12).map(lambda number: number / 2)


@given(
    st.lists(st.builds(Cue, _TIME, _TIME, st.sampled_from("abc")), max_size=12),
    st.lists(st.tuples(_TIME, _TIME)),
)
def test_all_spans_at_once_as_each_alone(cues: list[Cue], spans: list[tuple[float, float]]) -> None:
    expected = [
        " ".join(cue.text for cue in cues if start <= (cue.start_seconds + cue.end_seconds) / 2 < end)
        for start, end in spans
    ]
    assert text_in_spans(cues, spans) == expected == [text_in_span(cues, *span) for span in spans]


def test_a_video_of_many_clips_takes_its_words_in_time() -> None:
    cues = [Cue(number, number + 1.0, "a") for number in range(40_000)]
    started = time.process_time()
    texts = text_in_spans(cues, [(number, number + 2.0) for number in range(40_000)])
    assert texts[0] == "a a" and time.process_time() - started < 5  # each span alone: minutes
