"""Captions that grow word by word are said once; speech that repeats itself stays."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clipvip.shards.sources.subtitles import parse_subtitles


def _said(states: list[str], *, seconds: float = 0.5, gap: float = 0.0, overlap: bool = False) -> str:
    """What is heard of cues that follow each other; with `overlap` all stay to the end."""
    vtt = "WEBVTT\n\n"
    for number, state in enumerate(states):
        start = number * seconds
        end = len(states) * seconds if overlap else start + seconds - gap
        times = " --> ".join(f"{int(t // 60):02d}:{t % 60:06.3f}" for t in (start, end))
        vtt += f"{times}\n{state}\n\n"
    return " ".join(cue.text for cue in parse_subtitles(vtt.encode()))


PAINTED = {
    "words": (["I", "I am", "I am here"], "I am here"),
    "a word that comes again": (["I", "I think", "I think I", "I think I am"], "I think I am"),
    "letters": (["H", "He", "Hel", "Hell", "Hello", "Hello w", "Hello world"], "Hello world"),
    "parts of words": (["wor", "world pe", "world peace"], "world peace"),
    "no spaces": (["我", "我在", "我在这里"], "我在这里"),
    "a last state that is held": (["I", "I am", "I am here", "I am here"], "I am here"),
    "lines, and rolling up": (
        ["I", "I am", "I am here", "I am here\nYou", "I am here\nYou are", "You are\nHe", "You are\nHe is"],
        "I am here You are He is",
    ),
    "two states each": (["I am", "I am here", "You are", "You are there"], "I am here You are there"),
    "with times of words": (
        ["I<00:00.400> am", "I am <00:00.900>here", "I am here <00:01.300>now"],
        "I am here now",
    ),
    "among others": (
        ["good day", "I", "I am", "I am here", "bye now", "and good night"],
        "good day I am here bye now and good night",
    ),
}


@pytest.mark.parametrize("kind", PAINTED)
@pytest.mark.parametrize("how", [{}, {"gap": 0.04}, {"gap": 0.1}, {"overlap": True}, {"seconds": 2.0}])
def test_painted_captions_are_said_once(kind: str, how: dict[str, float]) -> None:
    states, text = PAINTED[kind]
    if kind == "with times of words" and how not in ({}, {"gap": 0.04}, {"gap": 0.1}):
        return  # the times of its words are those of cues of half a second
    assert _said(states, **how) == text  # type: ignore[arg-type]


def test_each_word_has_the_time_of_its_state() -> None:
    vtt = "WEBVTT\n\n00:00.500 --> 00:01.000\nI\n\n00:01.000 --> 00:01.500\nI am\n\n"
    vtt += "00:01.500 --> 00:02.000\nI am here\n"
    assert [(cue.start_seconds, cue.end_seconds, cue.text) for cue in parse_subtitles(vtt.encode())] == [
        (0.5, 1.0, "I"),
        (1.0, 1.5, "am"),
        (1.5, 2.0, "here"),
    ]


_STATES = ("I", "I am", "I am here")
FILES = {
    "srt": "".join(f"{n}\n00:00:0{n},000 --> 00:00:0{n + 1},000\n{s}\n\n" for n, s in enumerate(_STATES, 1)),
    "json3": json.dumps(
        {
            "events": [
                {"tStartMs": 1000 * n, "dDurationMs": 1000, "segs": [{"utf8": s}]}
                for n, s in enumerate(_STATES, 1)
            ]
        }
    ),
    "srv3": "<timedtext><body>"
    + "".join(f'<p t="{n}000" d="1000">{s}</p>' for n, s in enumerate(_STATES, 1))
    + "</body></timedtext>",
}


@pytest.mark.parametrize("form", FILES)
def test_painted_captions_of_all_formats(form: str) -> None:
    found = parse_subtitles(FILES[form].encode())
    assert [(cue.start_seconds, cue.text) for cue in found] == [(1.0, "I"), (2.0, "am"), (3.0, "here")]


@pytest.mark.parametrize(
    "states",
    [
        ["no", "no no"],
        ["no", "no no", "no no no"],
        ["stop", "stop"],
        ["No.", "No, no.", "No, no, no!"],
        ["ha", "haha", "hahaha"],
        ["好", "好好", "好好好"],
        ["wait", "wait for me", "I come"],
        ["row", "row row", "row row row your boat"],
        ["go", "go", "go on", "come"],
    ],
)
def test_repeated_speech_stays(states: list[str]) -> None:
    assert _said(states) == " ".join(states)


def test_words_with_times_of_their_own_are_said_anew() -> None:
    states = [
        "I",
        "I<00:00.700> am",
        "I<00:01.200> am<00:01.400> here",
        "I<00:01.600> am<00:01.700> here now",
    ]
    assert _said(states) == "I I am I am here I am here now"


def test_what_does_not_follow_at_once_is_speech() -> None:
    assert _said(["I", "I am", "I am here"], seconds=2.0, gap=1.0) == "I I am I am here"


_WORDS = st.lists(st.text("abcdefgh", min_size=1, max_size=3), min_size=3, max_size=8, unique=True)


@given(st.lists(_WORDS, min_size=1, max_size=4))
@settings(deadline=None)
def test_sentences_painted_word_by_word_come_out_whole(sentences: list[list[str]]) -> None:
    # Each sentence begins with a word of its own.
    whole = [[f"S{number}", *words] for number, words in enumerate(sentences)]
    states = [" ".join(words[: place + 1]) for words in whole for place in range(len(words))]
    assert _said(states) == " ".join(" ".join(words) for words in whole)


@given(st.lists(st.sampled_from(["no", "no no", "stop", "stop stop", "no no no"]), max_size=8))
@example(["no", "no no", "no no no", "stop", "stop stop"])
@settings(deadline=None)
def test_nothing_of_repeated_words_is_lost(states: list[str]) -> None:
    assert _said(states) == " ".join(states)


def test_words_with_times_from_before_are_still_shown() -> None:
    states = ["<00:00.000>I", "<00:00.000>I<00:00.500> am", "<00:00.000>I<00:00.500> am<00:01.000> here"]
    assert _said(states) == "I am here"
