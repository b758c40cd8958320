"""What subtitles of all formats become: what is shown when, in lines of words with times."""

import html
import re
from collections.abc import Iterable
from typing import NamedTuple

# Only what looks like a tag: "a < b" is text. `[^<>]` keeps the search linear on "<<<<...".
_TAG = re.compile(r"</?(?:[A-Za-z][^<>]*)?>|<[0-9][0-9:.,]*>|\{\\[^{}]*\}")
# Byte order and direction marks, zero-width spaces and control characters: invisible, and no words.
_INVISIBLE = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff\x00-\x08\x0e-\x1b\x7f]")


class TimedText(NamedTuple):
    """A word or words, and the time in seconds at which they start."""

    start_seconds: float
    text: str


class Line(NamedTuple):
    """One line of a cue. `has_word_times`: its parts carry times of their own.

    `starts_timed`: so does the first, and it is not from before the cue.
    """

    parts: list[TimedText]
    has_word_times: bool
    starts_timed: bool = False

    @property
    def text(self) -> str:
        return " ".join(part.text for part in self.parts)


class ShownCue(NamedTuple):
    """What a player shows from start to end; lines without text are kept, they tell rolling captions."""

    start_seconds: float
    end_seconds: float
    lines: list[Line]


class Malformed(Exception):
    """Nothing can be made of a file, from that line on."""

    def __init__(self, line_number: int, problem: str) -> None:
        super().__init__(problem)
        self.line_number = line_number


def clean_text(text: str) -> str:
    """Without tags, entities, invisible characters and surplus white space."""
    text = _TAG.sub("", text)
    if "&" in text:
        try:
            text = html.unescape(text)
        except ValueError:  # a character number of thousands of digits
            text = text.replace("&#", " ")
    # A lone surrogate (a JSON escape can hold one) has no UTF-8 form and would fail when written.
    text = text.encode("utf-8", "replace").decode("utf-8")
    return " ".join(_INVISIBLE.sub("", text).split())


def make_line(pieces: Iterable[tuple[float | None, str]], start: float, end: float) -> Line:
    """Join pieces of raw text, each with its time or None, to parts that begin and end at white space."""
    parts: list[tuple[float, list[str]]] = []
    has_word_times = starts_timed = False
    touches_next = False
    now = start
    for time, raw in pieces:
        has_word_times |= time is not None
        bare = _TAG.sub("", raw)
        text = clean_text(raw)
        if time is not None:
            now = min(max(now, time), max(end, now))
        touches = touches_next and not bare[:1].isspace()
        if text and parts and (time is None or touches):
            parts[-1][1].extend([text] if touches else [" ", text])
        elif text:
            starts_timed |= not parts and time is not None and time >= start
            parts.append((now, [text]))
        if bare:
            touches_next = not bare[-1].isspace()
    timed = [TimedText(at, "".join(texts)) for at, texts in parts]
    return Line(timed, has_word_times, starts_timed)
