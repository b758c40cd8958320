"""Bytes of a subtitle file -> what it shows when: WebVTT, SubRip, YouTube's json3 and timedtext XML.

The content tells the format, not the file's name.
"""

import json
import math
from collections.abc import Callable, Iterator
from typing import Any
from xml.etree import ElementTree

from clipvip.shards.errors import DatasetError
from clipvip.shards.sources.subtitle_blocks import parse_cue_blocks
from clipvip.shards.sources.subtitle_cues import Malformed, ShownCue, clean_text, make_line
from clipvip.shards.sources.subtitle_encoding import decode_subtitles


def parse_shown_cues(
    data: bytes,
    *,
    name: str,
    encoding: str | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> list[ShownCue]:
    """The cues of a subtitle file in the order of the file; damaged cues among good ones are left out.

    `encoding` is that of files that are no UTF-8, None to find it out. `warn` is told, in a line that begins
    with `name`, what was left out and what was guessed.

    Raises DatasetError with `name` and the line, where nothing can be made of it.
    """
    decoded = decode_subtitles(data, encoding)
    text = decoded.text
    start = text.lstrip()[:1]
    try:
        if start == "{":
            cues = _parse_json3(text)
        elif start == "<":
            cues = _parse_timedtext(text)
        else:
            cues = parse_cue_blocks(text, warn=lambda problem: warn(f"{name}, {problem}"))
    except Malformed as error:
        raise DatasetError(
            f"{name}, line {error.line_number}: {error}; give a .vtt, .srt, .json3 or timedtext XML file"
        ) from error
    if decoded.doubt:
        warn(f"{name}: {decoded.doubt}")
    return cues


def _parse_json3(text: str) -> list[ShownCue]:
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise Malformed(1, "JSON nested too deeply") from error
    except json.JSONDecodeError as error:
        raise Malformed(error.lineno, f"not JSON ({error.msg})") from error
    except ValueError as error:  # a number of thousands of digits
        raise Malformed(1, f"not JSON ({error})") from error
    events = content.get("events") if isinstance(content, dict) else None
    if not isinstance(events, list):
        raise Malformed(1, "JSON without the list 'events' of YouTube's json3")
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
        cues.append(ShownCue(start, end, [make_line(pieces, start, end)]))
    return cues


def _parse_timedtext(text: str) -> list[ShownCue]:
    """srv1, srv2, srv3 and ytt."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        line_number = text[: text.index("<!")].count("\n") + 1
        raise Malformed(line_number, "a document type or entity, which captions have no use for")
    try:
        root = ElementTree.fromstring(text.lstrip())
    except ElementTree.ParseError as error:
        raise Malformed(error.position[0], f"not XML ({error})") from error
    except ValueError as error:
        raise Malformed(1, f"not XML ({error})") from error
    if _tag(root) not in {"transcript", "timedtext"}:
        raise Malformed(1, f"XML of another kind (<{_tag(root)[:40]}>)")
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
