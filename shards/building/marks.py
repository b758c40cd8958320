"""Which shards of a half-finished folder are done, and what came of each.

A mark is a small file in OUT/_state, so that a killed run loses one unit at most.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar

from pydantic import BaseModel
from upath import UPath

from clipvip.shards.errors import Skip
from clipvip.shards.files.atomic import write_json
from clipvip.shards.files.claims import STATE_FOLDER
from clipvip.shards.files.stores import Location, store_errors
from clipvip.shards.format.manifest import ShardRecord

Folder = TypeVar("Folder", Path, UPath, Location)


@dataclass(frozen=True, slots=True)
class PlacedSkip:
    """A skip and its place in the metadata, by which skips are ordered."""

    line: int
    position: int
    skip: Skip


@dataclass
class ShardMark:
    """What came of one planned shard. `record` is None where no clip of it could be had (no file then)."""

    shard: int
    record: ShardRecord | None = None
    skips: list[PlacedSkip] = field(default_factory=list)
    subtitle_warnings: list[str] = field(default_factory=list)
    num_frames: int = 0
    num_without_subtitle: int = 0


class MarkContent(BaseModel):
    """A mark as it is written; a skip is (line, position, reason, what, detail)."""

    samples: int
    bytes: int
    sha256: str
    frames: int
    without_subtitle: int
    subtitle_warnings: list[str]
    skips: list[tuple[int, int, str, str, str]]

    @classmethod
    def of(cls, mark: ShardMark) -> Self:
        record = mark.record
        return cls(
            samples=record.num_samples if record else 0,
            bytes=record.num_bytes if record else 0,
            sha256=record.sha256 if record else "",
            frames=mark.num_frames,
            without_subtitle=mark.num_without_subtitle,
            subtitle_warnings=mark.subtitle_warnings,
            skips=[(s.line, s.position, s.skip.reason, s.skip.what, s.skip.detail) for s in mark.skips],
        )

    def mark(self, shard: int) -> ShardMark:
        """The mark of that shard."""
        record = None
        if self.samples:
            record = ShardRecord(shard_name(shard), self.samples, self.bytes, self.sha256)
        skips = [PlacedSkip(line, position, Skip(*texts)) for line, position, *texts in self.skips]
        return ShardMark(shard, record, skips, self.subtitle_warnings, self.frames, self.without_subtitle)


def shard_name(shard: int) -> str:
    return f"{shard:06d}.tar"


def shard_path(out: Folder, shard: int) -> Folder:
    return out / shard_name(shard)


def _mark_path(out: Location, shard: int) -> Location:
    return out / STATE_FOLDER / f"{shard:06d}.json"


def write_mark(out: Location, mark: ShardMark) -> None:
    """Note, all or nothing, that a shard is done; its file must be in place."""
    write_json(_mark_path(out, mark.shard), MarkContent.of(mark).model_dump())


def read_mark(out: Location, shard: int) -> ShardMark | None:
    """The mark of a finished shard; None where it is not done, or its file is gone or of another length."""
    try:
        with store_errors(out):
            mark = MarkContent.model_validate_json(_mark_path(out, shard).read_bytes()).mark(shard)
            record = mark.record
            return mark if not record or shard_path(out, shard).stat().st_size == record.num_bytes else None
    except (OSError, ValueError):
        return None


def forget_shard(out: Location, shard: int) -> None:
    """Remove a shard and its mark, so that the next run makes it again. The folder must be claimed."""
    _mark_path(out, shard).unlink(missing_ok=True)
    shard_path(out, shard).unlink(missing_ok=True)
