"""What was heard -> WebVTT as `shards.sources.subtitles` reads it, with a time for each word.

00:00:01.000 --> 00:00:03.000
<00:00:01.000>so<00:00:01.400> today<00:00:02.000> we cook
"""

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from clipvip.shards.files.places import open_small
from clipvip.shards.files.stores import Location

_HEAD_BYTES = 512
_EXTENSION = ".vtt"
_UNSEEN = re.compile(r"[\s\x00-\x1f\x7f]+")


def transcript_path(folder: Location, video_id: str) -> Location:
    return folder / f"{video_id}{_EXTENSION}"


@dataclass(frozen=True, slots=True)
class Word:
    """`text` begins with a space where a word begins, and not within one."""

    start_seconds: float
    text: str


@dataclass(frozen=True, slots=True)
class Heard:
    """Some words that belong together. `words` may be empty: then only the whole has times."""

    start_seconds: float
    end_seconds: float
    text: str
    words: Sequence[Word] = ()


@dataclass(frozen=True, slots=True)
class Head:
    """What a file says of itself: the language, "" where nothing is said; what is wrong with the sound."""

    language: str = ""
    warning: str = ""


def webvtt(heard: Iterable[Heard], head: Head) -> str:
    """The file; that of a video in which nothing is said names no language."""
    cues = [cue for one in heard if (cue := _cue(one))]
    language = f"Language: {head.language}\n" if cues and head.language else ""
    warning = f"NOTE {_text(head.warning)}\n\n" if head.warning else ""
    return f"WEBVTT\n{language}\n{warning}{''.join(cues)}"


def read_head(path: Location) -> Head:
    """What the file of `webvtt` says of itself; no more of it is read."""
    with open_small(path) as file:
        lines = file.read(_HEAD_BYTES).decode("utf-8", "replace").split("\n")
    language = lines[1].removeprefix("Language: ") if len(lines) > 1 else ""
    note = lines[3 if language else 2] if len(lines) > 3 else ""
    return Head(language, html.unescape(note.removeprefix("NOTE ")) if note.startswith("NOTE ") else "")


def _cue(heard: Heard) -> str:
    """The block of a cue; "" where it has no words."""
    words = [word for word in heard.words if word.text.strip()]
    if words:
        line = "".join(f"<{_stamp(word.start_seconds)}>{_text(word.text)}" for word in words)
        # The first time stands at a word, and words are told from parts of them by their spaces.
        line = re.sub(r"^(<[0-9:.]+>) ", r"\1", line).rstrip()
    else:
        line = _text(heard.text).strip()
    if not line:
        return ""
    end_seconds = max(heard.start_seconds, heard.end_seconds)
    return f"{_stamp(heard.start_seconds)} --> {_stamp(end_seconds)}\n{line}\n\n"


def _text(text: str) -> str:
    """On one line, with the characters that mean something to WebVTT written as what they are."""
    return html.escape(_UNSEEN.sub(" ", text), quote=False)


def _stamp(seconds: float) -> str:
    milliseconds = round(1000 * seconds)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}.{rest % 1000:03d}"
