"""Undo the repetition of rolling and painted captions: every spoken word once, repeated speech kept.

YouTube's automatic captions as WebVTT roll: they show two lines, the one before and, below, the new one. Each
state is a cue, and between two states stands one of 10 ms, so a line comes in two or three cues:

    0.00 -> 1.82   my<0.16> career<0.48> in ...
    1.82 -> 1.83   my career in side projects and open
    1.83 -> 4.55   my career in side projects and open
                   source<2.24> basically<2.80> ...

Painted captions grow word by word or letter by letter, and each state is a cue: "I", "I am", "I am here". A
cue grows where it follows at once, and its text begins with all of the one before. Speech does that too, so
that it counts as painted where two steps in a row bring words that were not there before, or where such steps
are the rule in the file:

    "I", "I am", "I am here"              two steps bring a word: painted, "I am here"
    "wor", "world pe", "world peace"      two steps bring letters: painted, "world peace"
    "no", "no no", "no no no"             no step brings a word: speech, all of it stays
    "stop", "stop"                        nothing grows: speech
    "wait", "wait for me", "I come"       one step of two: speech
    "I", (a second of nothing) "I am"     does not follow at once: speech
    "I", "I<1.3> am<1.6> here" from 1.0   what is repeated has a time of its own: speech
"""

import re
from collections.abc import Sequence
from itertools import groupby, pairwise, takewhile
from typing import NamedTuple

from clipvip.shards.sources.subtitle_cues import Line, ShownCue, TimedText

# Between two states of a rolling caption YouTube puts a cue of 10 ms.
_FLASH_SECONDS = 0.05
# Cues that follow each other within this time can be states of one caption.
_STATE_GAP_SECONDS = 0.1
_LEAST_STEPS = 2
_WORD = re.compile(r"\w+")


class _Growth(NamedTuple):
    """How a cue repeats the one before, and goes on: it repeats lines, then words of the next one.

    `is_in_word`: the last word that was shown was not whole. `is_new`: the rest has a word that was not
    there.
    """

    num_lines: int
    num_words: int
    is_in_word: bool
    is_new: bool


class _Step(NamedTuple):
    """From one cue to the next: lines that have rolled up, or how the text grew, or that it is the same."""

    num_rolled: int
    growth: _Growth | None
    is_same: bool

    @property
    def goes_on(self) -> bool:
        return self.num_rolled > 0 or self.growth is not None or self.is_same

    @property
    def is_new(self) -> bool:
        return self.growth is not None and self.growth.is_new


def without_repeated_states(cues: Sequence[ShownCue]) -> list[ShownCue]:
    """Drop from each cue what the cue before already showed, if its file or its caption rolls or is painted.

    Lines at the top of a cue are old where they are those at the bottom of the cue right before it; lines
    with word times are always new. A file is rolling if it has word times, or if that overlap is the rule.
    Equal cues of ordinary length that follow each other are repeated speech, and stay.
    """
    cues = [cue for cue in cues if any(line.parts for line in cue.lines)]
    steps = [_step(before, cue) for before, cue in pairwise(cues)]
    num_following = sum(_follows(before, cue) for before, cue in pairwise(cues))
    num_rolled = sum(step.num_rolled > 0 for step in steps)
    is_rolling = _has_word_times(cues) or _is_the_rule(num_rolled, num_following)
    is_painted = _painted_steps(steps, num_following)
    if not is_rolling and not any(is_painted):
        return cues
    kept = [_text_lines(cue) for cue in cues]
    for number, (step, painted) in enumerate(zip(steps, is_painted, strict=True), start=1):
        if painted and step.growth is not None:
            growth = step.growth
            if growth.is_in_word:
                kept[number - 1] = _without_last_word(kept[number - 1])
            kept[number] = _without_first_words(kept[number][growth.num_lines :], growth.num_words)
        elif painted and step.is_same:
            kept[number] = []
        elif painted or is_rolling:
            kept[number] = kept[number][step.num_rolled :]
    return [cue._replace(lines=lines) for cue, lines in zip(cues, kept, strict=True)]


def _is_the_rule(num_repeating: int, num_following: int) -> bool:
    return num_repeating >= _LEAST_STEPS and 2 * num_repeating >= num_following


def _has_word_times(cues: Sequence[ShownCue]) -> bool:
    return any(line.has_word_times for cue in cues for line in cue.lines)


def _painted_steps(steps: Sequence[_Step], num_following: int) -> list[bool]:
    """Which steps are of a painted caption: those of a chain that brings new words often enough."""
    least = 1 if _is_the_rule(sum(step.is_new for step in steps), num_following) else _LEAST_STEPS
    painted: list[bool] = []
    for goes_on, chain in groupby(steps, key=lambda step: step.goes_on):
        chain_steps = list(chain)
        is_painted = goes_on and sum(step.is_new for step in chain_steps) >= least
        painted += [is_painted] * len(chain_steps)
    return painted


def _text_lines(cue: ShownCue) -> list[Line]:
    return [line for line in cue.lines if line.parts]


def _follows(before: ShownCue, cue: ShownCue) -> bool:
    gap = cue.start_seconds - before.end_seconds
    # In whole milliseconds, as files have them: 1.1 s is more than 0.1 s behind 1.0 s in binary.
    return round(gap, 3) <= _STATE_GAP_SECONDS and cue.start_seconds >= before.start_seconds


def _step(before: ShownCue, cue: ShownCue) -> _Step:
    if not _follows(before, cue):
        return _Step(0, None, False)
    old, new = ([line.text for line in _text_lines(one)] for one in (before, cue))
    # From its first line with word times on all of a cue is new.
    plain = [line.text for line in takewhile(lambda line: not line.has_word_times, _text_lines(cue))]
    size = _overlap(old, plain)
    num_rolled = 0 if size == len(new) and not _is_settled_state(before, cue) else size
    growth = _growth(old, new)
    if growth is not None and _is_said_anew(cue, growth):
        growth = None
    return _Step(num_rolled, growth, old == new)


def _growth(old: Sequence[str], new: Sequence[str]) -> _Growth | None:
    """How lines grew to others; None where they did not."""
    num_lines = _overlap(old[:-1], new)
    if num_lines == len(new) or new[num_lines] == old[-1] or not new[num_lines].startswith(old[-1]):
        return None
    rest = " ".join([new[num_lines][len(old[-1]) :], *new[num_lines + 1 :]])
    is_in_word = not rest[0].isspace()
    shown = " ".join(old)
    # Of a word that goes on the letters count: "ha", "haha" is speech.
    parts = _letters if is_in_word else _words
    num_words = len(old[-1].split()) - is_in_word
    return _Growth(num_lines, num_words, is_in_word, is_new=not parts(rest) <= parts(shown))


def _is_said_anew(cue: ShownCue, growth: _Growth) -> bool:
    """Whether what a cue repeats has word times of its own, none of them from before the cue."""
    line = _text_lines(cue)[growth.num_lines]
    num_left = growth.num_words + growth.is_in_word
    for part in line.parts:
        if num_left > 0 and part.start_seconds > cue.start_seconds:
            return True
        num_left -= len(part.text.split())
    return line.starts_timed


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.casefold()))


def _letters(text: str) -> set[str]:
    return {letter for letter in text.casefold() if letter.isalnum()}


def _without_first_words(lines: Sequence[Line], count: int) -> list[Line]:
    """The lines without so many words at the start of the first."""
    parts: list[TimedText] = []
    for part in lines[0].parts:
        words = part.text.split()
        if words[count:]:
            parts.append(part._replace(text=" ".join(words[count:])))
        count = max(0, count - len(words))
    return [lines[0]._replace(parts=parts), *lines[1:]]


def _without_last_word(lines: Sequence[Line]) -> list[Line]:
    """The lines without the word that the last one ends with, if there is any."""
    if not lines or not lines[-1].parts:
        return list(lines)
    *parts, last = lines[-1].parts
    words = last.text.split()[:-1]
    parts += [last._replace(text=" ".join(words))] if words else []
    return [*lines[:-1], lines[-1]._replace(parts=parts)]


def _overlap(old_lines: Sequence[str], new_lines: Sequence[str]) -> int:
    """The most lines that the old ones end with and the new ones begin with, in linear time.

    `borders[k]`: the length of the longest proper prefix of new[: k + 1] that it also ends with (Knuth,
    Morris and Pratt), to go on with where the line after a match differs.
    """
    numbers: dict[str, int] = {}  # each line is compared as text once
    new, old = (
        [numbers.setdefault(line, len(numbers)) for line in lines] for lines in (new_lines, old_lines)
    )
    borders = [0] * len(new)
    for place in range(1, len(new)):
        borders[place] = _grown(new, borders, borders[place - 1], new[place])
    size = 0
    for line in old:
        size = _grown(new, borders, size, line)
    return size


def _grown(new: Sequence[int], borders: Sequence[int], size: int, line: int) -> int:
    """The longest match after one more line, where new[:size] was the longest before it."""
    while size and (size == len(new) or new[size] != line):
        size = borders[size - 1]
    return size + 1 if new and new[size] == line else 0


def _is_settled_state(before: ShownCue, cue: ShownCue) -> bool:
    """Whether a cue with nothing new is a state of a rolling caption, and not the same words said again."""
    return (
        min(before.end_seconds - before.start_seconds, cue.end_seconds - cue.start_seconds) <= _FLASH_SECONDS
        or any(line.has_word_times for line in before.lines)
        or any(not line.parts for line in cue.lines)
        or len(_text_lines(before)) > len(_text_lines(cue))
    )
