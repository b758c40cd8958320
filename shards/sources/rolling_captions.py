"""Undo the repetition of rolling captions: every spoken line once, speech that is repeated kept.

YouTube's automatic captions as WebVTT show two lines: the one before and, below, the new one. Each state is a
cue, and between two states stands one of 10 ms, so a line comes in two or three cues:

    0.00 -> 1.82   my<0.16> career<0.48> in ...
    1.82 -> 1.83   my career in side projects and open
    1.83 -> 4.55   my career in side projects and open
                   source<2.24> basically<2.80> ...
"""

from collections.abc import Sequence
from itertools import pairwise, takewhile

from clipvip.shards.sources.subtitle_formats import Line, ShownCue

# Between two states of a rolling caption YouTube puts a cue of 10 ms.
_FLASH_SECONDS = 0.05
# Cues that follow each other within this time can be states of one rolling caption.
_ROLLING_GAP_SECONDS = 0.1


def without_rolled_lines(cues: Sequence[ShownCue]) -> list[ShownCue]:
    """Drop from each cue the lines that the cue before already showed, if the file has rolling captions.

    Lines at the top of a cue are old where they are those at the bottom of the cue right before it; lines
    with word times are always new. A file is rolling if it has word times, or if that overlap is the rule.
    Equal cues of ordinary length that follow each other are repeated speech, and stay.
    """
    cues = [cue for cue in cues if any(line.parts for line in cue.lines)]
    overlaps = [0, *(_rolled_lines(before, cue) for before, cue in pairwise(cues))]
    if not _is_rolling(cues, overlaps):
        return list(cues)
    return [
        cue._replace(lines=_text_lines(cue)[num_old:]) for cue, num_old in zip(cues, overlaps, strict=True)
    ]


def _text_lines(cue: ShownCue) -> list[Line]:
    return [line for line in cue.lines if line.parts]


def _follows(before: ShownCue, cue: ShownCue) -> bool:
    gap = cue.start_seconds - before.end_seconds
    return gap <= _ROLLING_GAP_SECONDS and cue.start_seconds >= before.start_seconds


def _rolled_lines(before: ShownCue, cue: ShownCue) -> int:
    """How many lines at the top of `cue` are still those from the bottom of `before`."""
    if not _follows(before, cue):
        return 0
    old = [line.text for line in _text_lines(before)]
    # From its first line with word times on all of a cue is new.
    new = [line.text for line in takewhile(lambda line: not line.has_word_times, _text_lines(cue))]
    size = _overlap(old, new)
    return 0 if size == len(_text_lines(cue)) and not _is_settled_state(before, cue) else size


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


def _is_rolling(cues: Sequence[ShownCue], overlaps: Sequence[int]) -> bool:
    if any(line.has_word_times for cue in cues for line in cue.lines):
        return True
    num_following = sum(_follows(a, b) for a, b in pairwise(cues))
    num_rolled = sum(overlap > 0 for overlap in overlaps)
    return num_rolled >= 2 and 2 * num_rolled >= num_following
