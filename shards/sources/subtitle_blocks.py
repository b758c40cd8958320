"""Cues between blank lines: WebVTT and SubRip.

A line that is wholly times (`00:01.000 --> 00:02.000`, and settings such as `align:start`) begins a cue; any
other line with an arrow inside a cue is text of it. Times with something else behind them, or times that are
damaged, count as such only where times are to be expected: after a blank line or SubRip's counter.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from clipvip.shards.sources.subtitle_cues import Malformed, ShownCue, clean_text, make_line

_TIME = r"(?:([0-9]{1,6}):)?([0-9]{1,2}):([0-9]{1,2})(?:[.,]([0-9]{1,9}))?"
_TIMES = rf"\s*{_TIME}\s*-->\s*{_TIME}"
_TIMING_LINE = re.compile(rf"{_TIMES}(?:\s+[^\s:]+:\S*)*\s*$")
_TIMES_AND_MORE = re.compile(rf"{_TIMES}(?![0-9:])")
_LOOKS_TIMED = re.compile(r"[0-9]\s*[:;]\s*[0-9]")
_WORD_TIME = re.compile(rf"<{_TIME}>")
_TIME_GROUPS = 4
_LINE_END = re.compile(r"\r\n|\r|\n")
_VTT_BLOCK = re.compile(r"(NOTE|STYLE|REGION)(\s|$)")
_Seconds = Callable[[Iterable[str | None]], float]


def parse_cue_blocks(text: str, *, warn: Callable[[str], None]) -> list[ShownCue]:
    """The cues of a WebVTT or SubRip file; `warn` is told of damaged ones, which are left out.

    Raises Malformed where there is no cue.
    """
    lines = _LINE_END.split(text)
    is_vtt = text.lstrip().startswith("WEBVTT")
    times = {number: match for number, match in _timing_lines(lines)}
    seconds = _clock([match[group] for match in times.values() for group in (_TIME_GROUPS, 2 * _TIME_GROUPS)])
    cues: list[ShownCue] = []
    body: list[str] | None = None  # lines of the open cue
    span = (0.0, 0.0)
    damaged: list[int] = []
    bad_line_number = 0

    def close(next_is_cue: bool) -> None:
        nonlocal body
        if body is not None:
            if next_is_cue and not is_vtt and body and body[-1].strip().isdecimal():
                body.pop()  # SubRip's counter of the cue that follows
            cues.append(ShownCue(*span, [make_line(_split_at_word_times(r, seconds), *span) for r in body]))
        body = None

    for number, line in enumerate(lines, start=1):
        if number in times:
            close(next_is_cue=True)
            groups = times[number].groups()
            start = seconds(groups[:_TIME_GROUPS])
            span = (start, max(start, seconds(groups[_TIME_GROUPS:])))
            body = []
        elif "-->" in line and (body is None or _is_damaged_time(lines, number)):
            bad_line_number = bad_line_number or number
            if _LOOKS_TIMED.search(line):
                damaged.append(number)
            close(next_is_cue=True)
        elif body is None:
            continue  # the header, a note, a style sheet, an identifier
        elif line:
            # An empty line right after the times is tolerated, so what follows may still be another block.
            before_times = number + 1 in times
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
    if damaged:
        warn(f"line {damaged[0]}: times that cannot be read; cues left out: {len(damaged)}")
    return cues


def _timing_lines(lines: Sequence[str]) -> Iterator[tuple[int, re.Match[str]]]:
    """Number and match of each line that begins a cue."""
    for number, line in enumerate(lines, start=1):
        if "-->" in line:
            match = _TIMING_LINE.match(line)
            if match is None and _is_after_gap(lines, number):
                match = _TIMES_AND_MORE.match(line)
            if match is not None:
                yield number, match


def _is_after_gap(lines: Sequence[str], number: int) -> bool:
    """Whether times are to be expected at a line: before it is nothing, a blank line or a counter."""
    before = lines[number - 2].strip() if number > 1 else ""
    return not before or before.isdecimal()


def _is_damaged_time(lines: Sequence[str], number: int) -> bool:
    """Whether a line with an arrow was to be times: it has some of a clock, or stands after a counter."""
    is_after_counter = number > 2 and bool(lines[number - 2].strip()) and not lines[number - 3].strip()
    return _is_after_gap(lines, number) and (
        is_after_counter or _LOOKS_TIMED.search(lines[number - 1]) is not None
    )


def _clock(fractions: Sequence[str | None]) -> _Seconds:
    """How the times of a file are read, by the digits behind the point or comma of all of them.

    Some programs round up to `00:00:01,1000`, which is 2 s. Four digits are milliseconds where the others are
    three, or where all are 1000; else they are a decimal fraction, as other numbers of digits are.
    """
    given = {fraction for fraction in fractions if fraction}
    long = {fraction for fraction in given if len(fraction) == 4}
    others_are_milliseconds = all(len(fraction) == 3 for fraction in given - long) and len(given) > len(long)
    are_milliseconds = not any(fraction.startswith("0") for fraction in long) and (
        others_are_milliseconds or given == {"1000"}
    )

    def seconds(groups: Iterable[str | None]) -> float:
        hours, minutes, whole, fraction = (group or "0" for group in groups)
        # Whole milliseconds as one integer: equal stamps in different places stay equal.
        if are_milliseconds and len(fraction) == 4:
            milliseconds = int(fraction)
        else:
            milliseconds = int(float("0." + fraction) * 1000 + 0.5)
        return (((int(hours) * 60 + int(minutes)) * 60 + int(whole)) * 1000 + milliseconds) / 1000

    return seconds


def _no_times(lines: Sequence[str], bad_line_number: int) -> Malformed:
    first_text = next((n for n, line in enumerate(lines, start=1) if line.strip()), 0)
    if not first_text:
        return Malformed(1, "the file is empty")
    number = bad_line_number or first_text
    shown = clean_text(lines[number - 1])[:60]
    return Malformed(number, f"no times like '00:00:01.000 --> 00:00:02.000', found {shown!r}")


def _split_at_word_times(raw: str, seconds: _Seconds) -> Iterator[tuple[float | None, str]]:
    """`my<00:00:00.160><c> career</c>` -> (None, "my"), (0.16, "<c> career</c>")."""
    pieces = _WORD_TIME.split(raw)
    yield None, pieces[0]
    for first in range(1, len(pieces), _TIME_GROUPS + 1):
        yield seconds(pieces[first : first + _TIME_GROUPS]), pieces[first + _TIME_GROUPS]
