"""What is said when: subtitle files -> timed words, and the words of a time span.

Which file belongs to which video is found here too. Reading the formats is `subtitle_formats`' work, tables of
clip id and text are `text_tables`'.
"""

import os
import posixpath
import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from clipvip.shards.errors import DatasetError
from clipvip.shards.object_store import list_urls
from clipvip.shards.rolling_captions import without_rolled_lines
from clipvip.shards.subtitle_formats import ShownCue, parse_shown_cues
from clipvip.shards.text_tables import load_text_table

__all__ = [
    "Cue",
    "find_subtitle_file",
    "index_subtitle_urls",
    "load_text_table",
    "parse_subtitles",
    "read_subtitles",
    "text_in_span",
    "text_in_spans",
]

# Preferred first: json3 has each line once with exact times of the words.
SUBTITLE_EXTENSIONS = (".json3", ".vtt", ".srv3", ".ytt", ".srt", ".srv2", ".srv1", ".xml")

# VIDEO_ID.en, VIDEO_ID.en-US, and VIDEO_ID.a.en as youtube-dl once named automatic captions.
_WITH_LANGUAGE = re.compile(r"(.+?)\.(?:a\.)?([A-Za-z]{2,3})(?:[-_][A-Za-z0-9]{1,12})*")


@dataclass(frozen=True, slots=True)
class Cue:
    """A word, where the file times words, else a caption as shown; `text` is never empty."""

    start_seconds: float
    end_seconds: float
    text: str


def read_subtitles(path: Path | str) -> list[Cue]:
    """The words of a subtitle file in order, each once.

    Raises:
        DatasetError: naming the file, and the line where nothing in it can be understood.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error
    return parse_subtitles(data, name=str(path))


def parse_subtitles(data: bytes, *, name: str = "subtitles") -> list[Cue]:
    """As `read_subtitles`, from the file's bytes; `name` is for messages.

    WebVTT, SubRip, YouTube's json3 and timedtext XML are told apart by content. Lines that a rolling caption
    repeats are dropped, speech that is repeated stays: see `rolling_captions`.
    """
    shown = parse_shown_cues(data, name=name)
    cues = [cue for one in without_rolled_lines(shown) for cue in _timed_words(one)]
    return sorted(cues, key=lambda cue: cue.start_seconds)


def text_in_span(cues: Sequence[Cue], start_seconds: float, end_seconds: float) -> str:
    """The text of the span [start, end): every cue whose midpoint lies in it, joined by spaces.

    A cue is a word where the file has word times. So of spans that follow each other each word goes to
    exactly one: none is lost, none is taken twice.
    """
    return text_in_spans(cues, [(start_seconds, end_seconds)])[0]


def text_in_spans(cues: Sequence[Cue], spans: Iterable[tuple[float, float]]) -> list[str]:
    """`text_in_span` of each (start, end) in seconds; the cues are gone through once for all of them."""
    texts = [cue.text for cue in cues]
    middles = [(cue.start_seconds + cue.end_seconds) / 2 for cue in cues]
    in_time = sorted(range(len(texts)), key=middles.__getitem__)
    middles.sort()

    def text(start_seconds: float, end_seconds: float) -> str:
        first, stop = bisect_left(middles, start_seconds), bisect_left(middles, end_seconds)
        return " ".join(texts[number] for number in sorted(in_time[first:stop]))

    return [text(start, end) for start, end in spans]


def find_subtitle_file(folder: Path | str, video_id: str) -> Path | None:
    """The subtitles of a video in `folder`: VIDEO_ID.vtt, VIDEO_ID.en.json3 and the like; None if there are none.

    No language beats English, that beats others; then by `SUBTITLE_EXTENSIONS`, then by name. The folder is
    listed once and the id looked up in the list, so an id can never name a path.

    Raises:
        OSError: the folder cannot be listed.
    """
    folder = os.fspath(folder)
    name = _names_by_video_id(folder, os.stat(folder).st_mtime_ns).get(video_id)
    return None if name is None else Path(folder) / name


def index_subtitle_urls(folder: str) -> dict[str, str]:
    """Video id -> URL of its subtitles in a folder of a store, chosen as `find_subtitle_file` does.

    Raises:
        DatasetError: there is no such folder, or it is empty. OSError: the store does not answer.
    """
    urls = {posixpath.basename(url): url for url in list_urls(folder, below=False)}
    return {video_id: urls[name] for video_id, name in _best_names(urls).items()}


@lru_cache(maxsize=4)
def _names_by_video_id(folder: str, _modified_ns: int) -> dict[str, str]:
    with os.scandir(folder) as entries:
        return _best_names(entry.name for entry in entries if os.path.isfile(entry.path))


def _best_names(names: Iterable[str]) -> dict[str, str]:
    best: dict[str, tuple[tuple[int, int, str], str]] = {}
    for name in names:
        stem, extension = os.path.splitext(name)
        if extension.lower() not in SUBTITLE_EXTENSIONS:
            continue
        format_rank = SUBTITLE_EXTENSIONS.index(extension.lower())
        candidates = [(stem, 0)]
        if match := _WITH_LANGUAGE.fullmatch(stem):
            candidates.append((match[1], 1 if match[2].lower() == "en" else 2))
        for video_id, language_rank in candidates:
            rank = (language_rank, format_rank, name)
            if video_id not in best or rank < best[video_id][0]:
                best[video_id] = (rank, name)
    return {video_id: name for video_id, (_, name) in best.items()}


def _timed_words(shown: ShownCue) -> list[Cue]:
    """Cues of what is shown: the parts of lines with word times, and lines without as one."""
    parts = [(part, line.has_word_times) for line in shown.lines for part in line.parts]
    if not any(timed for _, timed in parts):
        text = " ".join(part.text for part, _ in parts)
        return [Cue(shown.start_seconds, shown.end_seconds, text)] if text else []
    ends = [part.start_seconds for part, _ in parts[1:]] + [shown.end_seconds]
    return [
        Cue(part.start_seconds, max(part.start_seconds, end), part.text)
        for (part, _), end in zip(parts, ends, strict=True)
    ]
