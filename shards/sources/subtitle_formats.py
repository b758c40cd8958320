"""Bytes of a subtitle file -> what it shows when: WebVTT, SubRip, YouTube's json3 and timedtext XML.

The content tells the format, not the file's name.
"""

import html
import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple
from xml.etree import ElementTree

from clipvip.shards.errors import DatasetError

_TIME = r"(?:([0-9]{1,6}):)?([0-9]{1,2}):([0-9]{1,2})(?:[.,]([0-9]{1,9}))?"
_TIMING_LINE = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?![0-9:])")
_WORD_TIME = re.compile(rf"<{_TIME}>")
_WORD_TIME_GROUPS = 4
# Only what looks like a tag: "a < b" is text. `[^<>]` keeps the search linear on "<<<<...".
_TAG = re.compile(r"</?(?:[A-Za-z][^<>]*)?>|<[0-9][0-9:.,]*>|\{\\[^{}]*\}")
# Byte order and direction marks, zero-width spaces and control characters: invisible, and no words.
_INVISIBLE = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff\x00-\x08\x0e-\x1b\x7f]")
_LINE_END = re.compile(r"\r\n|\r|\n")
_VTT_BLOCK = re.compile(r"(NOTE|STYLE|REGION)(\s|$)")


class TimedText(NamedTuple):
    """A word or words, and the time in seconds at which they start."""

    start_seconds: float
    text: str


class Line(NamedTuple):
    """One line of a cue. `has_word_times`: its parts carry times of their own."""

    parts: list[TimedText]
    has_word_times: bool

    @property
    def text(self) -> str:
        return " ".join(part.text for part in self.parts)


class ShownCue(NamedTuple):
    """What a player shows from start to end; lines without text are kept, they tell rolling captions."""

    start_seconds: float
    end_seconds: float
    lines: list[Line]


class _Malformed(Exception):
    def __init__(self, line_number: int, problem: str) -> None:
        super().__init__(problem)
        self.line_number = line_number


def parse_shown_cues(data: bytes, *, name: str) -> list[ShownCue]:
    """The cues of a subtitle file in the order of the file; damaged cues among good ones are left out.

    Raises DatasetError with `name` and the line, where nothing can be made of it.
    """
    text = _decode(data)
    start = text.lstrip()[:1]
    try:
        if start == "{":
            return _parse_json3(text)
        if start == "<":
            return _parse_timedtext(text)
        return _parse_cue_blocks(text)
    except _Malformed as error:
        raise DatasetError(
            f"{name}, line {error.line_number}: {error}; give a .vtt, .srt, .json3 or timedtext XML file"
        ) from error


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


def _decode(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    text = data.decode("utf-8-sig", "replace")
    num_bad = text.count("\ufffd")
    if num_bad and 2 * num_bad > sum(character > "\x7f" for character in text):
        return data.decode("cp1252", "replace")  # what old subtitle editors wrote
    return text


def _seconds(groups: Iterable[str | None]) -> float:
    hours, minutes, seconds, fraction = (group or "0" for group in groups)
    # Whole milliseconds as one integer: equal stamps in different places stay equal.
    milliseconds = int(float("0." + fraction) * 1000 + 0.5)
    return (((int(hours) * 60 + int(minutes)) * 60 + int(seconds)) * 1000 + milliseconds) / 1000


def _parse_cue_blocks(text: str) -> list[ShownCue]:
    lines = _LINE_END.split(text)
    is_vtt = text.lstrip().startswith("WEBVTT")
    cues: list[ShownCue] = []
    body: list[str] | None = None  # lines of the open cue
    span = (0.0, 0.0)
    bad_line_number = 0

    def close(next_is_cue: bool) -> None:
        nonlocal body
        if body is not None:
            if next_is_cue and not is_vtt and body and body[-1].strip().isdecimal():
                body.pop()  # SubRip's counter of the cue that follows
            cues.append(ShownCue(*span, [_line(_split_at_word_times(raw), *span) for raw in body]))
        body = None

    for number, line in enumerate(lines, start=1):
        if "-->" in line:
            close(next_is_cue=True)
            match = _TIMING_LINE.match(line)
            if match is None:
                bad_line_number = bad_line_number or number
            else:
                start = _seconds(match.groups()[:_WORD_TIME_GROUPS])
                span = (start, max(start, _seconds(match.groups()[_WORD_TIME_GROUPS:])))
                body = []
        elif body is None:
            continue  # the header, a note, a style sheet, an identifier
        elif line:
            # An empty line right after the times is tolerated, so what follows may still be another block.
            before_times = number < len(lines) and "-->" in lines[number]
            is_late = is_vtt and not body and lines[number - 2] == ""
            if is_late and (before_times or _VTT_BLOCK.match(line)):
                close(next_is_cue=before_times)
            else:
                body.append(line)
        elif is_vtt and body:
            close(next_is_cue=False)
    close(next_is_cue=False)
    if not cues and (bad_line_number or not is_vtt):
        raise _no_times(lines, bad_line_number)
    return cues


def _no_times(lines: list[str], bad_line_number: int) -> _Malformed:
    first_text = next((n for n, line in enumerate(lines, start=1) if line.strip()), 0)
    if not first_text:
        return _Malformed(1, "the file is empty")
    number = bad_line_number or first_text
    shown = clean_text(lines[number - 1])[:60]
    return _Malformed(number, f"no times like '00:00:01.000 --> 00:00:02.000', found {shown!r}")


def _split_at_word_times(raw: str) -> Iterator[tuple[float | None, str]]:
    """`my<00:00:00.160><c> career</c>` -> (None, "my"), (0.16, "<c> career</c>")."""
    pieces = _WORD_TIME.split(raw)
    yield None, pieces[0]
    for first in range(1, len(pieces), _WORD_TIME_GROUPS + 1):
        yield _seconds(pieces[first : first + _WORD_TIME_GROUPS]), pieces[first + _WORD_TIME_GROUPS]


def _line(pieces: Iterable[tuple[float | None, str]], start: float, end: float) -> Line:
    """Join pieces of raw text, each with its time or None, to parts that begin and end at white space."""
    parts: list[tuple[float, list[str]]] = []
    has_word_times = False
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
            parts.append((now, [text]))
        if bare:
            touches_next = not bare[-1].isspace()
    return Line([TimedText(at, "".join(texts)) for at, texts in parts], has_word_times)


def _parse_json3(text: str) -> list[ShownCue]:
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise _Malformed(1, "JSON nested too deeply") from error
    except json.JSONDecodeError as error:
        raise _Malformed(error.lineno, f"not JSON ({error.msg})") from error
    except ValueError as error:  # a number of thousands of digits
        raise _Malformed(1, f"not JSON ({error})") from error
    events = content.get("events") if isinstance(content, dict) else None
    if not isinstance(events, list):
        raise _Malformed(1, "JSON without the list 'events' of YouTube's json3")
    spoken: list[tuple[float, float | None, list[tuple[float | None, str]]]] = []
    for event in events:
        start = _milliseconds(event.get("tStartMs")) if isinstance(event, dict) else None
        segments = event.get("segs") if isinstance(event, dict) else None
        if start is None or not isinstance(segments, list):
            continue  # windows and pens, which say how and not what
        pieces: list[tuple[float | None, str]] = []
        for segment in segments:
            if isinstance(segment, dict) and isinstance(segment.get("utf8"), str):
                offset = _milliseconds(segment.get("tOffsetMs"))
                pieces.append((_after(start, offset), segment["utf8"]))
        spoken.append((start, _milliseconds(event.get("dDurationMs")), pieces))
    return _cues_of_events(spoken)


def _milliseconds(value: Any, per_second: int = 1000) -> float | None:
    """A time, as a number or its digits, in seconds; None where it is no sound time."""
    try:
        seconds = float(value) / per_second
    except (TypeError, ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _after(start: float, offset: float | None) -> float | None:
    return None if offset is None else round(start + offset, 3)


def _cues_of_events(
    events: list[tuple[float, float | None, list[tuple[float | None, str]]]],
) -> list[ShownCue]:
    """Cues from (start, duration or None, pieces).

    Events with word times stay on the screen during the next: they, and those without duration, end there.
    """
    cues: list[ShownCue] = []
    events = [event for event in events if any(clean_text(raw) for _, raw in event[2])]
    for index, (start, duration, pieces) in enumerate(events):
        end = round(start + (duration or 0.0), 3)
        following = events[index + 1][0] if index + 1 < len(events) else end
        if following > start and (duration is None or any(time is not None for time, _ in pieces)):
            end = following if duration is None else min(end, following)
        cues.append(ShownCue(start, end, [_line(pieces, start, end)]))
    return cues


def _parse_timedtext(text: str) -> list[ShownCue]:
    """srv1, srv2, srv3 and ytt."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        line_number = text[: text.index("<!")].count("\n") + 1
        raise _Malformed(line_number, "a document type or entity, which captions have no use for")
    try:
        root = ElementTree.fromstring(text.lstrip())
    except ElementTree.ParseError as error:
        raise _Malformed(error.position[0], f"not XML ({error})") from error
    except ValueError as error:
        raise _Malformed(1, f"not XML ({error})") from error
    if _tag(root) not in {"transcript", "timedtext"}:
        raise _Malformed(1, f"XML of another kind (<{_tag(root)[:40]}>)")
    events = []
    for element in root.iter():
        times = _times_of_element(element)
        if times is not None:
            events.append((*times, list(_pieces_of_element(element, times[0]))))
    return _cues_of_events(events)


def _times_of_element(element: ElementTree.Element) -> tuple[float, float | None] | None:
    """Start and duration of a caption; None for an element that is none."""
    if _tag(element) not in {"text", "p"}:
        return None
    if "start" in element.attrib:  # srv1 counts in seconds, the later ones in milliseconds
        start, duration = (_milliseconds(element.get(name), 1) for name in ("start", "dur"))
    else:
        start, duration = _milliseconds(element.get("t")), _milliseconds(element.get("d"))
    return None if start is None else (start, duration)


def _tag(element: ElementTree.Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _pieces_of_element(element: ElementTree.Element, start: float) -> Iterator[tuple[float | None, str]]:
    yield None, element.text or ""
    for child in element:
        offset = _milliseconds(child.get("t")) if _tag(child) == "s" else None
        yield _after(start, offset), _text_within(child)
        yield None, child.tail or ""


def _text_within(element: ElementTree.Element) -> str:
    """Its text without that of captions inside of it."""
    texts: list[str] = []
    waiting: list[ElementTree.Element | str] = [element]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            texts.append(one)
        elif _times_of_element(one) is None:
            texts.append(one.text or "")
            for child in reversed(one):
                waiting += [child.tail or "", child]
    return "".join(texts)
