"""What is said when: subtitle files -> timed words, and the words of a time span.

Which file belongs to which video is found here too. Reading the formats is `subtitle_formats`' work, tables
of clip id and text are `text_tables`'.
"""

import os
import posixpath
import re
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipvip.shards.errors import DatasetError
from clipvip.shards.files.disk_index import DiskIndex
from clipvip.shards.files.stores import is_url, list_urls
from clipvip.shards.sources.rolling_captions import without_rolled_lines
from clipvip.shards.sources.subtitle_formats import ShownCue, parse_shown_cues

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
    """The subtitles of a video in `folder`: VIDEO_ID.vtt, VIDEO_ID.en.json3 and the like; None if there are
    none.

    No language beats English, that beats others; then by `SUBTITLE_EXTENSIONS`, then by name. The id is
    looked up in a list of the folder, so it can never name a path. While files are added, the list of a large
    folder is made anew now and then, not for each look-up: `_MOST_LISTING` of the time is the most that goes
    into it.

    Raises:
        OSError: the folder cannot be listed.
    """
    name = _listing(os.fspath(folder)).names.get(video_id)
    return None if name is None else Path(folder) / name


def index_subtitles(folder: Path | str) -> Mapping[str, str]:
    """Video id -> path or URL of its subtitles in a folder, chosen as `find_subtitle_file` does. Kept on the
    disk.

    Raises:
        DatasetError: there is no such folder in a store, or it is empty.
        OSError: the folder cannot be listed, the store does not answer, or there is no room for temporary
            files.
    """
    if is_url(folder):
        urls = list_urls(str(folder), below=False)
        base = urls[0].rpartition("/")[0]
        names = _subtitle_names(posixpath.basename(url) for url in urls)
    else:
        base = os.fspath(folder)
        names = _files_of(base)
    return DiskIndex.of_pairs((video_id, f"{base}/{name}") for video_id, name in _best_first(names))


@dataclass(frozen=True, slots=True)
class _Listing:
    """What a folder held when it was last listed, and how long that took."""

    names: Mapping[str, str]
    modified_ns: int
    made_at: float
    seconds: float


_listings: dict[str, _Listing] = {}
# The most of the time that goes into listing one folder again, which others are filling.
_MOST_LISTING = 0.05
_QUICK_SECONDS = 0.005
_MOST_LISTINGS = 4


def _listing(folder: str) -> _Listing:
    modified_ns, now = os.stat(folder).st_mtime_ns, time.monotonic()
    known = _listings.get(folder)
    if known is not None:
        pause = known.seconds / _MOST_LISTING if known.seconds > _QUICK_SECONDS else 0.0
        if known.modified_ns == modified_ns or now - known.made_at < pause:
            return known
    names = DiskIndex.of_pairs(_best_first(_files_of(folder)))
    done = time.monotonic()
    _listings.pop(folder, None)
    while len(_listings) >= _MOST_LISTINGS:
        del _listings[next(iter(_listings))]
    _listings[folder] = _Listing(names, modified_ns, done, done - now)
    return _listings[folder]


def _files_of(folder: str) -> list[str]:
    with os.scandir(folder) as entries:
        return _subtitle_names(entry.name for entry in entries if os.path.isfile(entry.path))


def _subtitle_names(names: Iterable[str]) -> list[str]:
    return [name for name in names if os.path.splitext(name)[1].lower() in SUBTITLE_EXTENSIONS]


def _best_first(names: list[str]) -> Iterator[tuple[str, str]]:
    """(video id, file name) for each id that a name may be meant for; of one id the best comes first. Sorts
    `names`."""
    names.sort()
    names.sort(key=lambda name: SUBTITLE_EXTENSIONS.index(os.path.splitext(name)[1].lower()))
    yield from ((os.path.splitext(name)[0], name) for name in names)
    for is_english in (True, False):
        for name in names:
            match = _WITH_LANGUAGE.fullmatch(os.path.splitext(name)[0])
            if match is not None and (match[2].lower() == "en") == is_english:
                yield match[1], name


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
