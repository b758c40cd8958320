"""Read HD-VILA-100M's metadata (one video with its clips a line), and find the videos in a folder.

Decides which clips can be asked for at all; says nothing about what is inside the videos.
"""

import math
import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import JsonValue

from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.files.disk_index import DiskIndex
from clipvip.shards.files.hashes import Repeats
from clipvip.shards.files.names import id_of
from clipvip.shards.files.stores import list_urls, parse_location
from clipvip.shards.files.text import JsonLine, json_lines
from clipvip.shards.format.clip import Clip, make_key

VIDEO_EXTENSIONS = {
    ".3g2", ".3gp", ".asf", ".avi", ".dv", ".f4v", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg",
    ".mpg", ".mts", ".mxf", ".ogv", ".rm", ".ts", ".vob", ".webm", ".wmv", ".wtv",
}  # fmt: skip

_WANTED = 'is not like {"video_id": "...", "clip": [...]}'
_AFTER_VIDEO_ID = re.compile(r"\.(\d{1,9})(?:\.[A-Za-z]\w*)?")
_CLIP_NUMBER = re.compile(r".*\.(\d{1,9})(?:\.[A-Za-z]\w*)?")
_CLOCK = re.compile(r"(?:(?:([0-9]{1,6}):)?([0-9]{1,6}):)?([0-9]{1,9})(?:\.([0-9]{1,18}))?")
# A time beyond, of 31,000 years, is none of a video.
_MOST_SECONDS = 1e12


@dataclass(frozen=True, slots=True)
class Source:
    """A video and the clips that are asked of it, in the metadata's order.

    `positions[i]` is the place of `clips[i]` in the metadata's list; `skips` are the clips that cannot be
    asked for, each with its place. A line that is no source at all has no `video_id`.
    """

    line: int
    video_id: str
    clips: tuple[Clip, ...] = ()
    positions: tuple[int, ...] = ()
    skips: tuple[tuple[int, Skip], ...] = ()


class Survey:
    """The videos and clips that a list asks for, counted; `repeats` are the clips whose key came before."""

    def __init__(self, sources: Iterable[Source]) -> None:
        """Go through the sources once; OSError where the temporary disk is full."""
        self.num_videos = self.num_clips = self.num_skips = 0
        self.repeats = Repeats(self._keys(sources))
        self.num_clips -= self.repeats.count
        self.num_skips += self.repeats.count

    def _keys(self, sources: Iterable[Source]) -> Iterator[str]:
        for source in sources:
            self.num_videos += bool(source.video_id)
            self.num_clips += len(source.clips)
            self.num_skips += len(source.skips)
            yield from (clip.key for clip in source.clips)


def survey_metadata(metadata: Path | str) -> Survey:
    """What the JSONL file `metadata` asks for. Raises OSError where it cannot be read."""
    return Survey(map(_source_of, json_lines(Path(metadata))))


def read_sources(metadata: Path | str, survey: Survey | None = None) -> Iterator[Source]:
    """Yield one `Source` per line of the JSONL file `metadata` (blank lines give none), in order.

    Whatever is wrong with a line or clip becomes a `Skip`: `bad_metadata`, `unsafe_id`, `bad_span`,
    `duplicate_clip` (the first clip with a key stays). The file is read twice, for keys that repeat; once
    where its `survey` is given. Raises OSError where it cannot be read.
    """
    repeats = (survey or survey_metadata(metadata)).repeats
    yield from without_repeats(map(_source_of, json_lines(Path(metadata))), repeats)


def without_repeats(sources: Iterable[Source], repeats: Repeats) -> Iterator[Source]:
    """The sources without the clips whose key came before, which become skips."""
    num_before = 0
    for source in sources:
        yield _without_repeats(source, repeats, num_before) if repeats.count else source
        num_before += len(source.clips)


def _without_repeats(source: Source, repeats: Repeats, num_before: int) -> Source:
    """The source, of whose clips `num_before` others stand before, without those that came before."""
    kept, skips = [], list(source.skips)
    for number, (position, clip) in enumerate(zip(source.positions, source.clips, strict=True), num_before):
        if number in repeats:
            skip = Skip("duplicate_clip", clip.clip_id[:200], f"key {clip.key} is taken")
            skips.append((position, skip))
        else:
            kept.append((position, clip))
    return replace(
        source,
        clips=tuple(clip for _, clip in kept),
        positions=tuple(position for position, _ in kept),
        skips=tuple(sorted(skips, key=lambda skip: skip[0])),
    )


def _source_of(json_line: JsonLine) -> Source:
    line, entry = json_line.number, json_line.value
    where = f"line {line}"
    fields = entry if isinstance(entry, dict) else {}
    video_id, listed = id_of(fields.get("video_id")), fields.get("clip")
    if not isinstance(video_id, str) or not isinstance(listed, list):
        detail = "field 'clip' is not a list" if isinstance(video_id, str) else _WANTED
        if json_line.problem:
            detail = f"not JSON: {json_line.problem}"[:200]
        return Source(line, "", skips=((0, Skip("bad_metadata", where, detail)),))
    try:
        prefix = make_key(video_id, 0).rpartition("_")[0]
        video_id.encode()
    except (DatasetError, UnicodeEncodeError):
        skip = Skip("unsafe_id", where, f"video_id {ascii(video_id)[:80]}")
        return Source(line, "", skips=tuple((position, skip) for position in range(max(1, len(listed)))))
    clips, positions, skips = list[Clip](), list[int](), list[tuple[int, Skip]]()
    for position, clip_entry in enumerate(listed):
        clip = _clip_or_skip(video_id, prefix, f"{where}, clip {position}", position, clip_entry)
        if isinstance(clip, Skip):
            skips.append((position, clip))
        else:
            clips.append(clip)
            positions.append(position)
    return Source(line, video_id, tuple(clips), tuple(positions), tuple(skips))


def _clip_or_skip(video_id: str, prefix: str, where: str, position: int, entry: JsonValue) -> Clip | Skip:
    """The clip at `position` of a video's list; `prefix` begins its key."""
    fields = entry if isinstance(entry, dict) else {}
    clip_id = id_of(fields.get("clip_id"))
    if not isinstance(clip_id, str) or "span" not in fields:
        return Skip("bad_metadata", where, 'is not like {"clip_id": "...", "span": [start, end]}')
    try:
        clip_id.encode()
    except UnicodeEncodeError:
        return Skip("unsafe_id", where, f"clip_id {ascii(clip_id)[:80]}")
    span = parse_span(fields["span"])
    if span is None:
        return Skip("bad_span", clip_id[:200], f"span {ascii(fields['span'])[:80]}")
    return Clip(f"{prefix}_{clip_number(video_id, clip_id, position):05d}", video_id, clip_id, *span)


def clip_number(video_id: str, clip_id: str, position: int) -> int:
    """The number in a clip id (`QMi8x8o55Ns.16.mp4` is 16), else `position`."""
    if clip_id.startswith(video_id):
        match = _AFTER_VIDEO_ID.fullmatch(clip_id, len(video_id))
    else:
        match = _CLIP_NUMBER.fullmatch(clip_id)
    return int(match[1]) if match else position


def parse_span(span: JsonValue) -> tuple[float, float] | None:
    """(start, end) in seconds of ["00:00:17.759", "00:00:23.279"] or [17.759, 23.279].

    None where it is no time of a video, or does not end after it starts.
    """
    if not isinstance(span, list) or len(span) != 2:
        return None
    start, end = (_parse_time(time) for time in span)
    return (start, end) if start is not None and end is not None and start < end else None


def _parse_time(time: JsonValue) -> float | None:
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
    return seconds_given if 0 <= seconds_given < _MOST_SECONDS else None


def index_videos(folder: Path | str) -> Mapping[str, str]:
    """Video id -> path or URL, for every video file in `folder` and below; the id is the name's stem.

    An id is only ever looked up here, never joined to a path. Of files with one id the first by path wins.
    The paths are kept on the disk; of one folder all names are in memory at a time.

    Raises:
        DatasetError: `folder` is no folder; as `parse_location`.
        OSError: a store does not answer, or there is no room for temporary files.
    """
    paths = video_paths(folder)
    return DiskIndex.of_pairs((posixpath.splitext(posixpath.basename(path))[0], path) for path in paths)


def video_paths(folder: Path | str) -> Iterator[str]:
    """The path or URL of every video file in `folder` and below, in order. Raises as `index_videos`."""
    place = parse_location(str(folder))
    if not isinstance(place, Path):
        return (url for url in list_urls(str(folder)) if _is_video_name(url))
    if not place.is_dir():
        raise DatasetError(f"{place}: no such folder of videos")
    return _video_files(str(place))


def whole_videos(ids: Iterable[str]) -> Iterator[Source]:
    """Yield a source for each video id, with one clip that is all of it."""
    for line, video_id in enumerate(ids, start=1):
        try:
            key = make_key(video_id, 0)
            video_id.encode()
        except (DatasetError, UnicodeEncodeError):
            yield Source(line, "", skips=((0, Skip("unsafe_id", "video", ascii(video_id)[1:81])),))
        else:
            yield Source(line, video_id, (Clip(key, video_id, video_id, 0.0, math.inf),), (0,))


def _is_video_name(name: str) -> bool:
    return posixpath.splitext(name)[1].lower() in VIDEO_EXTENSIONS


def _video_files(folder: str) -> Iterator[str]:
    """The video files of a folder, by name, then those of its folders; links to folders are not followed."""
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        names, folders = [], []
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.name)
                    elif _is_video_name(entry.name) and _is_file(entry):
                        names.append(entry.name)
        except (PermissionError, FileNotFoundError):  # a folder of others, or gone since
            if here == folder:
                raise
        yield from (os.path.join(here, name) for name in sorted(names))
        waiting += [os.path.join(here, name) for name in sorted(folders, reverse=True)]


def _is_file(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False
