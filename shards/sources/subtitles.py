"""What is said when: subtitle files -> timed words, the words of a time span, and which file is whose."""

import os
import posixpath
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipvip.shards.errors import DatasetError
from clipvip.shards.files.disk_index import DiskIndex
from clipvip.shards.files.stores import is_url, list_urls, local_copy
from clipvip.shards.sources.rolling_captions import without_repeated_states
from clipvip.shards.sources.subtitle_cues import ShownCue
from clipvip.shards.sources.subtitle_formats import parse_shown_cues

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


def read_subtitles(
    path: str | Path,
    *,
    name: str = "",
    encoding: str | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> list[Cue]:
    """The words of a subtitle file, or of one behind a URL, in order, each once.

    `name` is what messages call it instead of its path. `encoding` is that of files that are no UTF-8 (such
    as "cp1251"); without it, it is found out. `warn` is told, in a line that begins with the name, of damaged
    cues, which are left out, and of encodings that were guessed.

    Raises:
        DatasetError: naming the file, and the line where nothing in it can be understood.
    """
    name = name or str(path)
    try:
        with local_copy(str(path)) as file:
            data = Path(file).read_bytes()
    except OSError as error:
        raise DatasetError(f"{name}: cannot be read ({error.strerror or error})") from error
    return parse_subtitles(data, name=name, encoding=encoding, warn=warn)


def parse_subtitles(
    data: bytes,
    *,
    name: str = "subtitles",
    encoding: str | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> list[Cue]:
    """As `read_subtitles`, from the file's bytes, whose content tells the format; `name` is for messages.

    What a rolling or painted caption repeats is dropped, speech that is repeated stays: see
    `rolling_captions`.
    """
    shown = parse_shown_cues(data, name=name, encoding=encoding, warn=warn)
    cues = [cue for one in without_repeated_states(shown) for cue in _timed_words(one)]
    return sorted(cues, key=lambda cue: cue.start_seconds)


def text_in_span(cues: Sequence[Cue], start_seconds: float, end_seconds: float) -> str:
    """The text of the span [start, end): every cue whose midpoint lies in it, joined by spaces.

    So of spans that follow each other each cue goes to exactly one.
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


def index_subtitles(folder: Path | str) -> Mapping[str, str]:
    """Video id -> path or URL of its subtitles in a folder: VIDEO_ID.vtt, VIDEO_ID.en.json3 and the like.

    No language beats English, that beats others; then by `SUBTITLE_EXTENSIONS`, then by name. The index is
    kept on the disk.

    Raises:
        DatasetError: there is no such folder in a store, or it is empty.
        OSError: it cannot be listed, or there is no room for temporary files.
    """
    if is_url(folder):
        urls = list_urls(str(folder), below=False)
        base, names = urls[0].rpartition("/")[0], [posixpath.basename(url) for url in urls]
    else:
        base = os.fspath(folder)
        with os.scandir(base) as entries:
            names = [entry.name for entry in entries if os.path.isfile(entry.path)]
    return DiskIndex.of_pairs((video_id, f"{base}/{name}") for video_id, name in _best_first(names))


def _best_first(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(video id, file name) for each id that a name may be meant for; of one id the best comes first."""
    names = [name for name in names if os.path.splitext(name)[1].lower() in SUBTITLE_EXTENSIONS]
    names.sort(key=lambda name: (SUBTITLE_EXTENSIONS.index(os.path.splitext(name)[1].lower()), name))
    yield from ((os.path.splitext(name)[0], name) for name in names)
    for is_english in (True, False):
        for name in names:
            match = _WITH_LANGUAGE.fullmatch(os.path.splitext(name)[0])
            if match is not None and (match[2].lower() == "en") == is_english:
                yield match[1], name


def _timed_words(shown: ShownCue) -> list[Cue]:
    """The parts of lines with word times, and lines without as one."""
    parts = [(part, line.has_word_times) for line in shown.lines for part in line.parts]
    if not any(timed for _, timed in parts):
        text = " ".join(part.text for part, _ in parts)
        return [Cue(shown.start_seconds, shown.end_seconds, text)] if text else []
    ends = [part.start_seconds for part, _ in parts[1:]] + [shown.end_seconds]
    return [
        Cue(part.start_seconds, max(part.start_seconds, end), part.text)
        for (part, _), end in zip(parts, ends, strict=True)
    ]
