"""Shards of others as a source of clips: each sample is a clip, whole, under a key of ours."""

import glob
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.files.hashes import Repeats
from clipvip.shards.format.clip import Clip, make_key, video_of_key
from clipvip.shards.sources.hdvila import Source
from clipvip.shards.tar.index import SampleSpan, ShardFile
from clipvip.shards.tar.reader import empty_shard, is_clip, list_shards


@dataclass(frozen=True, slots=True)
class ForeignSource(Source):
    """A sample of others: its place in the tar file `file`. `clips` is one, or none where it has no key."""

    file: str = ""
    span: SampleSpan | None = None


def find_shards(given: Iterable[str]) -> list[Path]:
    """The tar files that folders, file names and patterns (`clips/*.tar`) name, each once, in order.

    Raises DatasetError where one names nothing.
    """
    found: dict[Path, None] = {}
    for name in given:
        path = Path(name)
        matches = [path] if path.exists() else [Path(match) for match in sorted(glob.glob(name))]
        if not matches:
            raise DatasetError(f"{name}: no such shards; give a folder, a .tar file, or a pattern of these")
        for match in matches:
            found.update(dict.fromkeys(list_shards(match) if match.is_dir() else [match]))
    return list(found)


def identity_of(shards: Sequence[Path]) -> str:
    """What tells these shards from others: a hash of their names and sizes, since reading all takes days."""
    sizes = "".join(f"{path.name} {path.stat().st_size}\n" for path in shards)
    return hashlib.sha256(sizes.encode()).hexdigest()


class ForeignSurvey:
    """The clips that shards hold, counted; `repeats` are those whose key came before."""

    def __init__(self, shards: Sequence[Path]) -> None:
        """Go through the headers once."""
        self.num_clips = 0
        self.repeats = Repeats(self._keys(shards))
        self.num_clips -= self.repeats.count

    def _keys(self, shards: Sequence[Path]) -> Iterator[str]:
        for source in _sources(shards):
            self.num_clips += len(source.clips)
            yield from (clip.key for clip in source.clips)


def read_foreign_sources(shards: Sequence[Path], survey: ForeignSurvey) -> Iterator[Source]:
    """Yield a source for each sample, in order, with the number of the sample for its line.

    Reasons of skips: `unsafe_id` (a key that none of ours can be made of), `duplicate_clip`,
    `unreadable_shard` (damaged from there on; what is before it is taken), `empty_shard` (nothing in it is
    a video, a picture or a record).
    """
    number = 0
    for source in _sources(shards):
        if source.clips:
            (clip,) = source.clips
            if number in survey.repeats:
                skip = Skip("duplicate_clip", clip.clip_id[:200], f"key {clip.key} is taken")
                source = Source(source.line, source.video_id, skips=((0, skip),))
            number += 1
        yield source


def _sources(shards: Sequence[Path]) -> Iterator[Source]:
    line = 0
    for path in shards:
        num_before = line
        try:
            with ShardFile(path) as shard:
                for span in filter(is_clip, shard.spans()):
                    line += 1
                    yield _source_of(line, path, span)
            skip = None if line > num_before else empty_shard(path)
        except DatasetError as error:
            skip = Skip("unreadable_shard", path.name, str(error))
        if skip is not None:
            line += 1
            yield Source(line, "", skips=((0, skip),))


def _source_of(line: int, path: Path, span: SampleSpan) -> Source:
    # Folders in keys become a part of the name; `make_key` tells apart what it has to rewrite.
    name = span.key.replace("/", "~")
    video_id, number = video_of_key(name), 0
    try:
        if video_id != name:
            number = int(name.rpartition("_")[2])
        key = make_key(video_id, number)
        if key != name and video_id != name:  # `v_7` is no key of ours, and may stand beside `v_00007`
            video_id, number = name, 0
            key = make_key(video_id, number)
    except (DatasetError, ValueError):
        skip = Skip("unsafe_id", f"{path.name}, sample {line}", f"key {ascii(span.key)[:80]}")
        return Source(line, "", skips=((0, skip),))
    clip = Clip(key, video_id, span.key, 0.0, float("inf"))
    return ForeignSource(line, video_id, (clip,), (0,), file=str(path.absolute()), span=span)
