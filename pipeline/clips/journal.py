"""What `clipvip-data clips` found so far, a line for each video: an interrupted run goes on from there."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from pydantic import TypeAdapter

from clipvip.pipeline.clips.spans import Span
from clipvip.pipeline.clips.work import Divided
from clipvip.shards.errors import Skip
from clipvip.shards.files.atomic import naming
from clipvip.shards.files.disk_index import DiskIndex
from clipvip.shards.files.text import json_lines, parse_object

JOURNAL_NAME = "videos.jsonl"
_SPANS = TypeAdapter(tuple[Span, ...])


class Journal:
    """The videos that were looked into, by name, size and time: one that changes is another."""

    def __init__(self, folder: Path) -> None:
        """Open, or begin, that of a folder. What a killed run left of a line is dropped."""
        self._path = folder / JOURNAL_NAME
        self._file = self._path.open("ab")
        self._drop_torn_line()
        self.known = read_journal(folder)

    def _drop_torn_line(self) -> None:
        with self._path.open("rb") as file:
            end = sum(len(line) for line in file if line.endswith(b"\n"))  # only the last may be torn
        os.truncate(self._path, end)

    def add(self, file: str, divided: Divided) -> None:
        """Note what was found. It is on the disk when the run ends, or another process looks."""
        skip = divided.skip.as_dict() if divided.skip else None
        line = {"file": file, "spans": divided.spans, "skip": skip}
        with naming(self._path):
            self._file.write(json.dumps(line).encode() + b"\n")
            self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def read_journal(folder: Path) -> Mapping[str, str]:
    """File -> what was found, as JSON, which `parse_divided` reads; empty where there is no journal."""
    path = folder / JOURNAL_NAME

    def pairs() -> Iterator[tuple[str, str]]:
        for line in json_lines(path) if path.is_file() else ():
            if isinstance(line.value, dict) and isinstance(line.value.get("file"), str):
                yield str(line.value["file"]), json.dumps(line.value)

    return DiskIndex.of_pairs(pairs())


def parse_divided(text: str) -> Divided:
    """What `Journal.add` noted. Raises ValueError where it is something else."""
    fields = parse_object(text)
    skip = fields.get("skip")
    spans = _SPANS.validate_python(fields.get("spans"))
    return Divided(spans, None if skip is None else Skip.from_json(skip))
