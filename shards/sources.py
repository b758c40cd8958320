"""Read HD-VILA-100M's metadata (one video with its clips a line), and find the videos in a folder.

Decides which clips can be asked for at all; says nothing about what is inside the videos.
"""

import json
import math
import os
import posixpath
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipvip.shards.errors import DatasetError
from clipvip.shards.object_store import list_urls, parse_location
from clipvip.shards.sample import Clip, make_key
from clipvip.shards.skips import Skip

VIDEO_EXTENSIONS = frozenset(
    [
        ".3g2",
        ".3gp",
        ".asf",
        ".avi",
        ".dv",
        ".f4v",
        ".flv",
        ".m2ts",
        ".m4v",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".mts",
        ".mxf",
        ".ogv",
        ".rm",
        ".ts",
        ".vob",
        ".webm",
        ".wmv",
    ]
)

_AFTER_VIDEO_ID = re.compile(r"\.(\d{1,9})(?:\.[A-Za-z]\w*)?")
_CLIP_NUMBER = re.compile(r".*\.(\d{1,9})(?:\.[A-Za-z]\w*)?")
_CLOCK = re.compile(r"(?:(?:([0-9]{1,6}):)?([0-9]{1,6}):)?([0-9]{1,9})(?:\.([0-9]{1,12}))?")


@dataclass(frozen=True, slots=True)
class Source:
    """A video and the clips that are asked of it, in the metadata's order.

    `positions[i]` is the place of `clips[i]` in the metadata's list of clips. `skips` are the clips of this
    line that cannot be asked for, each with its place; a line that is no source at all has no `video_id`.
    """

    line: int
    video_id: str
    clips: tuple[Clip, ...] = ()
    positions: tuple[int, ...] = ()
    skips: tuple[tuple[int, Skip], ...] = ()


def read_sources(metadata: Path | str) -> Iterator[Source]:
    """Yield one `Source` per line of the JSONL file `metadata` (blank lines give none), in order.

    Whatever is wrong with a line or clip becomes a `Skip`: `bad_metadata`, `unsafe_id`, `bad_span`,
    `duplicate_clip` (the first clip with a key stays).

    Raises:
        OSError: the file cannot be read.
    """
    seen: dict[str, array[int]] = {}
    with Path(metadata).open("rb") as file:
        for line, raw in enumerate(file, start=1):
            if raw.strip():
                yield _parse_line(line, raw, seen)


def _parse_line(line: int, raw: bytes, seen: dict[str, "array[int]"]) -> Source:
    where = f"line {line}"
    try:
        entry = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return Source(line, "", skips=((0, Skip("bad_metadata", where, f"not JSON: {error}"[:200])),))
    if not isinstance(entry, dict) or not isinstance(entry.get("video_id"), str):
        detail = 'want {"video_id": "...", "clip": [...]}'
        return Source(line, "", skips=((0, Skip("bad_metadata", where, detail)),))
    video_id, listed = entry["video_id"], entry.get("clip")
    if not isinstance(listed, list):
        return Source(line, "", skips=((0, Skip("bad_metadata", where, "field 'clip' is not a list")),))
    try:
        prefix = make_key(video_id, 0).rpartition("_")[0]
        video_id.encode()
    except (DatasetError, UnicodeEncodeError):
        skip = Skip("unsafe_id", where, f"video_id {ascii(video_id)[:80]}")
        return Source(line, "", skips=tuple((position, skip) for position in range(max(1, len(listed)))))
    draft = _Draft(video_id, prefix, where, set(seen.get(prefix, ())))
    for position, clip in enumerate(listed):
        draft.add(position, clip)
    seen[prefix] = array("I", sorted(draft.numbers))
    return Source(line, video_id, tuple(draft.clips), tuple(draft.positions), tuple(draft.skips))


@dataclass
class _Draft:
    """The clips of one line while they are looked at."""

    video_id: str
    prefix: str  # of keys
    where: str
    numbers: set[int]
    clips: list[Clip] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    skips: list[tuple[int, Skip]] = field(default_factory=list)

    def add(self, position: int, entry: Any) -> None:
        clip = self._clip_or_skip(position, entry)
        if isinstance(clip, Skip):
            self.skips.append((position, clip))
        else:
            self.clips.append(clip)
            self.positions.append(position)

    def _clip_or_skip(self, position: int, entry: Any) -> Clip | Skip:
        where = f"{self.where}, clip {position}"
        if not isinstance(entry, dict) or not isinstance(entry.get("clip_id"), str) or "span" not in entry:
            return Skip("bad_metadata", where, 'want {"clip_id": "...", "span": [start, end]}')
        clip_id = entry["clip_id"]
        try:
            clip_id.encode()
        except UnicodeEncodeError:
            return Skip("unsafe_id", where, f"clip_id {ascii(clip_id)[:80]}")
        span = parse_span(entry["span"])
        if span is None:
            return Skip("bad_span", clip_id[:200], f"span {ascii(entry['span'])[:80]}")
        number = clip_number(self.video_id, clip_id, position)
        key = f"{self.prefix}_{number:05d}"
        if number in self.numbers:
            return Skip("duplicate_clip", clip_id[:200], f"key {key} is taken")
        self.numbers.add(number)
        return Clip(key, self.video_id, clip_id, *span)


def clip_number(video_id: str, clip_id: str, position: int) -> int:
    """The number in a clip id (`QMi8x8o55Ns.16.mp4` is 16), else `position`."""
    if clip_id.startswith(video_id):
        match = _AFTER_VIDEO_ID.fullmatch(clip_id, len(video_id))
    else:
        match = _CLIP_NUMBER.fullmatch(clip_id)
    return int(match[1]) if match else position


def parse_span(span: Any) -> tuple[float, float] | None:
    """(start, end) in seconds of ["00:00:17.759", "00:00:23.279"] or [17.759, 23.279]; None if it is no span.

    A span is finite, not negative, and ends after it starts.
    """
    if not isinstance(span, list) or len(span) != 2:
        return None
    start, end = (_parse_time(time) for time in span)
    return (start, end) if start is not None and end is not None and start < end else None


def _parse_time(time: Any) -> float | None:
    if isinstance(time, str):
        match = _CLOCK.fullmatch(time.strip())
        if match is None:
            return None
        hours, minutes, seconds, fraction = match.groups(default="")
        whole = int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds)
        # One division of integers, so that "17.759" is the float 17.759.
        return int(f"{whole}{fraction}") / 10 ** len(fraction)
    if isinstance(time, bool) or not isinstance(time, int | float):
        return None
    try:
        seconds_given = float(time)
    except OverflowError:
        return None
    return seconds_given if math.isfinite(seconds_given) and seconds_given >= 0 else None


def index_videos(folder: Path | str) -> dict[str, str]:
    """Video id -> path or URL, for every video file in `folder` and below; the id is the name without its extension.

    The folder is walked once, and an id is only ever looked up here, never joined to a path. Of files with
    one id the first by path wins.

    Raises:
        DatasetError: `folder` is no folder; as `parse_location`.
        OSError: a store does not answer.
    """
    place = parse_location(str(folder))
    if not isinstance(place, Path):
        names = [(url, *posixpath.splitext(posixpath.basename(url))) for url in list_urls(str(folder))]
        videos = [(stem, url) for url, stem, extension in names if extension.lower() in VIDEO_EXTENSIONS]
        return dict(reversed(videos))
    if not place.is_dir():
        raise DatasetError(f"{place}: no such folder of videos")
    found: dict[str, str] = {}
    for root, folders, files in os.walk(place):
        folders.sort()
        for name in sorted(files):
            stem, extension = os.path.splitext(name)
            path = os.path.join(root, name)
            if extension.lower() in VIDEO_EXTENSIONS and os.path.isfile(path):
                found.setdefault(stem, path)
    return found
