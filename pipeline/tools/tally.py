"""What worker processes of `clipvip-data stats` do: add up a shard and its captions, without reading pixels.

Numbers are whole (milliseconds, bytes), so that sums do not depend on the order in which shards are done.
"""

import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clipvip.shards.errors import DatasetError
from clipvip.shards.files.hashes import key_hashes
from clipvip.shards.files.places import size_of
from clipvip.shards.files.stores import Location
from clipvip.shards.format.captions import captions_path, read_caption_file
from clipvip.shards.format.clip import video_of_key
from clipvip.shards.tar.index import SampleSpan, ShardFile
from clipvip.shards.tar.reader import read_record

_MAX_BINS = 10_000
_MAX_SIZES = 1_000
_QUANTILES = {"p05": 0.05, "median": 0.5, "p95": 0.95}


@dataclass
class Distribution:
    """Of whole numbers: exact count, sum and extremes, and how many lie in each of 10,000 equal bins."""

    bin_width: int = 1
    count: int = 0
    total: int = 0
    least: int = sys.maxsize
    most: int = -1
    bins: Counter[int] = field(default_factory=Counter)

    def add(self, value: int) -> None:
        self.count += 1
        self.total += value
        self.least, self.most = min(self.least, value), max(self.most, value)
        self.bins[min(value // self.bin_width, _MAX_BINS)] += 1

    def add_all(self, other: "Distribution") -> None:
        self.count, self.total = self.count + other.count, self.total + other.total
        self.least, self.most = min(self.least, other.least), max(self.most, other.most)
        self.bins.update(other.bins)

    def quantile(self, part: float) -> int:
        """The lower end of the bin that `part` of the values lie up to; never below all values."""
        seen = 0
        for number in sorted(self.bins):
            seen += self.bins[number]
            if seen >= part * self.count:
                return max(number * self.bin_width, self.least)
        return 0

    def summary(self, *, unit: float = 1) -> dict[str, float | int] | None:
        """Mean, quantiles (of bins) and extremes, divided by `unit`; None without values."""
        if not self.count:
            return None
        values = {"mean": self.total / self.count, "min": self.least, "max": self.most}
        values |= {name: self.quantile(part) for name, part in _QUANTILES.items()}
        return {name: round(value / unit, 3) for name, value in values.items()}


@dataclass
class Tally:
    """Everything that is added up. `missing_captions` are caption files that are not there or damaged."""

    shards: int = 0
    bytes: int = 0
    unreadable_shards: int = 0
    unreadable_clips: int = 0
    clips_without_subtitle: int = 0
    clip_milliseconds: Distribution = field(default_factory=lambda: Distribution(bin_width=100))
    frames: Distribution = field(default_factory=Distribution)
    clip_bytes: Distribution = field(default_factory=lambda: Distribution(bin_width=1000))
    subtitle_words: Distribution = field(default_factory=Distribution)
    caption_words: Distribution = field(default_factory=Distribution)
    missing_captions: int = 0
    captions_by_folder: Counter[str] = field(default_factory=Counter)
    captions_skipped: Counter[str] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)
    source_sizes: Counter[str] = field(default_factory=Counter)

    def add_all(self, other: "Tally") -> None:
        """Add what another shard has."""
        for name, value in vars(other).items():
            mine: Any = getattr(self, name)
            if isinstance(value, int):
                setattr(self, name, mine + value)
            elif isinstance(value, Distribution):
                mine.add_all(value)
            else:
                mine.update(value)
        for sizes in (self.sizes, self.source_sizes):
            if len(sizes) > 2 * _MAX_SIZES:  # keep the most frequent, and the rest as one
                for name, count in sizes.most_common()[_MAX_SIZES:]:
                    del sizes[name]
                    sizes["other"] += count


def tally_shard(task: tuple[int, Location, tuple[Location, ...]]) -> tuple[Tally, np.ndarray]:
    """The sums of a shard (number, path, folders of captions), and a hash for each different video."""
    _, path, folders = task
    tally = Tally(shards=1, bytes=size_of(path))
    videos: dict[str, None] = {}
    is_empty = True
    try:
        with ShardFile(path) as shard:
            for span in shard.spans():
                is_empty = False
                if span.extension or span.foreign_extension:
                    videos[video_of_key(span.key)] = None
                _add_clip(tally, shard, span)
    except DatasetError:
        tally.unreadable_shards = 1
    tally.unreadable_shards |= is_empty
    for folder in folders:
        _add_captions(tally, folder, captions_path(folder, path.stem))
    return tally, key_hashes(videos)


def _add_clip(tally: Tally, shard: ShardFile, span: SampleSpan) -> None:
    try:
        extension, record, _ = read_record(shard, span)
    except DatasetError:
        tally.unreadable_clips += 1
        return
    start, end = record.span_seconds
    tally.clip_milliseconds.add(max(0, round(1000 * (end - start))))
    tally.frames.add(len(record.frame_seconds))
    tally.clip_bytes.add(span.members[extension][1])
    words = len((record.subtitle or " ".join(record.sentences or [])).split())
    tally.clips_without_subtitle += not words
    tally.subtitle_words.add(words)
    tally.sizes[f"{record.width}x{record.height}"] += 1
    tally.source_sizes[f"{record.source_width}x{record.source_height}"] += 1


def _add_captions(tally: Tally, folder: Location, path: Location) -> None:
    try:
        content = read_caption_file(path)
    except DatasetError:
        tally.missing_captions += 1
        return
    for captions in content.all_captions().values():
        for caption in captions:
            tally.caption_words.add(len(caption.split()))
        tally.captions_by_folder[str(folder)] += len(captions)
    tally.captions_skipped.update(skip.reason for skip in content.skips)
