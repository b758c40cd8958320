"""How a video is divided into clips: even pieces, from cut to cut, or by what is said in it.

All times are in seconds; spans are (start, end), in order of time.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

from clipvip.shards.sources.subtitles import Cue

Span = tuple[float, float]

# Speakers breathe for less, and stop to show something for longer.
_PAUSE_SECONDS = 1.0
_SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？")
_CLOSING = "\"'”’»)]】」』 "
_LEAST_SECONDS = 0.01


def pieces(start: float, end: float, *, seconds: float, shortest: float) -> list[Span]:
    """Pieces of `seconds`; a rest that is shorter than `shortest` goes with the piece before it."""
    num_whole = math.floor((end - start) / seconds)
    edges = [start + number * seconds for number in range(num_whole + 1)]
    if num_whole and end - edges[-1] < shortest:
        edges.pop()
    return list(itertools.pairwise([*edges, end]))


def shots(cuts: Iterable[float], start: float, end: float, *, seconds: float, shortest: float) -> list[Span]:
    """From cut to cut, what is longer than `seconds` in equal parts.

    A shot that is shorter than `shortest` goes with the next one, the last with the one before.
    """
    edges = [start]
    for cut in cuts:
        if cut - edges[-1] >= shortest and end - cut >= shortest:
            edges.append(cut)
    return [part for span in itertools.pairwise([*edges, end]) for part in _equal_parts(*span, seconds)]


def _equal_parts(start: float, end: float, seconds: float) -> Iterator[Span]:
    count = max(1, math.ceil((end - start) / seconds))
    edges = [start + (end - start) * number / count for number in range(count)]
    return itertools.pairwise([*edges, end])


def sentences(cues: Sequence[Cue], *, seconds: float, shortest: float) -> list[Span]:
    """The spans of sentences, made of whole cues, since a cue goes to one clip.

    A sentence ends where its punctuation or a pause says so, or where it would be longer than `seconds`.
    Without a pause one that is shorter than `shortest` goes on with the next.
    """
    found: list[Span] = []
    said: list[Cue] = []
    for cue, following in itertools.zip_longest(cues, cues[1:]):
        said.append(cue)
        start, end = said[0].start_seconds, max(one.end_seconds for one in said)
        if following is not None:
            is_over = cue.text.rstrip(_CLOSING).endswith(_SENTENCE_ENDS) and end - start >= shortest
            pauses = following.start_seconds - end > _PAUSE_SECONDS
            too_long = max(end, following.end_seconds) - start > seconds
            if not (is_over or pauses or too_long):
                continue
        latest = math.inf if following is None else following.start_seconds
        # The middle of each cue is inside, also of one without a length.
        least = max((one.start_seconds + one.end_seconds) / 2 for one in said) + _LEAST_SECONDS
        found.append((start, max(end, least, min(start + shortest, latest))))
        said = []
    return found


def inside(spans: Iterable[Span], end: float) -> list[Span]:
    """The spans up to the end of a video, in milliseconds."""
    rounded = ((round(first, 3), round(min(last, end), 3)) for first, last in spans if first < end)
    return [(first, last) for first, last in rounded if first < last]
