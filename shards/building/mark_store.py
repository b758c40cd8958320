"""What came of all shards of a run, and what was skipped, on the disk: it would not fit in memory."""

import heapq
import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clipvip.shards.building.marks import MarkContent, PlacedSkip, ShardMark
from clipvip.shards.errors import Skip
from clipvip.shards.files.scratch import ScratchFile


class MarkStore:
    """The marks of shards, added in any order and gone through by shard. Memory is 8 bytes a shard."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` is on the disk to use, else that of temporary files."""
        self._file = ScratchFile(folder)
        self._places = array("q")

    def add(self, mark: ShardMark) -> None:
        """Take a mark; a later one of the same shard stands for it."""
        self._places.extend([-1] * (mark.shard + 1 - len(self._places)))
        self._places[mark.shard] = self._file.append(MarkContent.of(mark).model_dump_json().encode() + b"\n")

    def __iter__(self) -> Iterator[ShardMark]:
        for shard, at in enumerate(self._places):
            if at >= 0:
                yield MarkContent.model_validate_json(self._file.line_at(at)).mark(shard)


class SkipStore:
    """Skips in the order in which they are added, which is that of their places."""

    def __init__(self, folder: Path | None = None) -> None:
        self._file = ScratchFile(folder)

    def add(self, skip: PlacedSkip) -> None:
        row = [skip.line, skip.position, skip.skip.reason, skip.skip.what, skip.skip.detail]
        self._file.append(json.dumps(row).encode() + b"\n")

    def __iter__(self) -> Iterator[PlacedSkip]:
        for row in self._file.lines():
            line, position, *texts = json.loads(row)
            yield PlacedSkip(line, position, Skip(*texts))


@dataclass(frozen=True)
class AllSkips:
    """All skips of a run in the order of the metadata, as often as they are asked for.

    Shards are planned in that order, so that their skips need to be merged, and not sorted.
    """

    of_metadata: SkipStore
    marks: MarkStore

    def __iter__(self) -> Iterator[Skip]:
        of_shards = (skip for mark in self.marks for skip in mark.skips)
        placed = heapq.merge(self.of_metadata, of_shards, key=lambda skip: (skip.line, skip.position))
        return (skip.skip for skip in placed)
