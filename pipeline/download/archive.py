"""What a folder of downloaded videos remembers: which were fetched, which never can be, which to try again.

`archive.jsonl` has one line per video. A run appends to it as outcomes come, and a video's files take their
final names just before, by a journal that makes the two one step.
"""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Self

from clipvip.shards.errors import DatasetError
from clipvip.shards.files.atomic import atomic_path, flush_folder, write_json
from clipvip.shards.files.claims import STATE_FOLDER

ARCHIVE_NAME = "archive.jsonl"
FETCHED, PERMANENT, PASSING = "fetched", "permanent", "passing"
_OUTCOMES = {name: name for name in (FETCHED, PERMANENT, PASSING)}  # one string for millions of lines
_WORK_FOLDER = "fetching"
_JOURNAL_NAME = "journal.json"


@dataclass(frozen=True, slots=True)
class Subtitles:
    """A subtitle file of a video; `kind` is `manual` or `automatic`."""

    language: str
    kind: str
    file: str


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of one video: its files, or why there are none.

    `outcome` is `fetched`; `permanent`: it cannot be had, `reason` and `detail` say why; or `passing`: it
    could not be had this time. Sizes are those of the picture as coded.
    """

    video_id: str
    url: str
    outcome: str
    video: str = ""
    num_bytes: int = 0
    width: int = 0
    height: int = 0
    subtitles: tuple[Subtitles, ...] = ()
    reason: str = ""
    detail: str = ""

    def as_dict(self) -> dict[str, object]:
        return {name: value for name, value in asdict(self).items() if value or name == "subtitles"}

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Self:
        subtitles = tuple(Subtitles(**one) for one in row.pop("subtitles", ()))
        entry = cls(**row, subtitles=subtitles)
        if entry.outcome not in _OUTCOMES:
            raise ValueError(f"outcome {entry.outcome!r}")
        return entry


def read_outcomes(folder: Path) -> dict[str, str]:
    """Video id -> `fetched`, `permanent` or `passing`, of each video that was tried; only reads.

    Raises:
        DatasetError: a line that is not the last cannot be read.
    """
    path = folder / ARCHIVE_NAME
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        return {entry.video_id: entry.outcome for entry, _, _ in _entries(file, path)}


def _entries(file: IO[bytes], path: Path) -> Iterator[tuple[Entry, int, int]]:
    """Each entry with the bytes [start, end) of its line; a last line that was cut off is left out."""
    end = 0
    for number, line in enumerate(file, start=1):
        if not line.endswith(b"\n"):
            return
        start, end = end, end + len(line)
        try:
            yield Entry.from_dict(json.loads(line)), start, end
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise DatasetError(f"{path}: line {number} is damaged ({error}); remove that line") from error


class Archive:
    """The archive of a folder, for one run at a time (the caller holds the folder's lock).

    Of each video only the outcome and the place of its line is kept in memory.
    """

    def __init__(self, folder: Path) -> None:
        """Read what is there; a last line that was cut off when a run was killed is dropped.

        Raises:
            DatasetError: another line cannot be read.
        """
        self._folder = folder
        self._path = folder / ARCHIVE_NAME
        self._lines: dict[str, tuple[str, int]] = {}
        self._path.touch()
        self._file = self._path.open("r+b")
        end = 0
        for entry, start, stop in _entries(self._file, self._path):
            self._lines[entry.video_id] = (_OUTCOMES[entry.outcome], start)
            end = stop
        self._file.truncate(end)
        for journal in sorted((folder / STATE_FOLDER / _WORK_FOLDER).glob(f"*/{_JOURNAL_NAME}")):
            self._add_from_journal(journal)
        shutil.rmtree(folder / STATE_FOLDER / _WORK_FOLDER, ignore_errors=True)

    def _add_from_journal(self, journal: Path) -> None:
        """Go on with a video whose files were about to take their final names."""
        try:
            entry = Entry.from_dict(json.loads(journal.read_text(encoding="utf-8")))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise DatasetError(f"{journal}: damaged ({error}); remove its folder") from error
        put_in_place(self._folder, entry)
        self.add(entry)

    def outcome(self, video_id: str) -> str | None:
        """`fetched`, `permanent`, `passing`, or None for a video that was never tried."""
        found = self._lines.get(video_id)
        return found[0] if found else None

    def entry(self, video_id: str) -> Entry:
        """All that is known of a video that has an outcome."""
        self._file.seek(self._lines[video_id][1])
        return Entry.from_dict(json.loads(self._file.readline()))

    def add(self, entry: Entry) -> None:
        """Add a line, durably; then the video's work folder, and its journal, can go."""
        end = self._file.seek(0, os.SEEK_END)
        self._file.write(_as_line(entry))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._lines[entry.video_id] = (_OUTCOMES[entry.outcome], end)
        shutil.rmtree(work_folder(self._folder, entry.video_id), ignore_errors=True)

    def compact(self) -> None:
        """Order the lines by id, each video's last one only, so that equal outcomes give equal bytes."""
        places = {}
        with atomic_path(self._path) as temporary, temporary.open("wb") as file:
            for video_id in sorted(self._lines):
                entry = self.entry(video_id)
                places[video_id] = (_OUTCOMES[entry.outcome], file.tell())
                file.write(_as_line(entry))
        self._file.close()
        self._file, self._lines = self._path.open("r+b"), places

    def close(self) -> None:
        self._file.close()
        shutil.rmtree(self._folder / STATE_FOLDER / _WORK_FOLDER, ignore_errors=True)


def _as_line(entry: Entry) -> bytes:
    return json.dumps(entry.as_dict(), ensure_ascii=False).encode() + b"\n"


def work_folder(folder: Path, video_id: str) -> Path:
    """Where a video's files are while they are incomplete."""
    return folder / STATE_FOLDER / _WORK_FOLDER / video_id


def keep_fetched(folder: Path, entry: Entry) -> None:
    """Give a video's complete files, which are in its work folder under their final names, their final place.

    From here on the video counts as fetched: what a crash leaves undone, the next `Archive` does.
    """
    work = work_folder(folder, entry.video_id)
    for name in _files_of(entry):
        with (work / name).open("rb") as file:
            os.fsync(file.fileno())
    write_json(work / _JOURNAL_NAME, entry.as_dict())
    put_in_place(folder, entry)


def put_in_place(folder: Path, entry: Entry) -> None:
    """Rename what is still in the work folder of `entry`, the video last."""
    work = work_folder(folder, entry.video_id)
    for name in _files_of(entry):
        if (work / name).exists():
            os.replace(work / name, folder / name)
    flush_folder(folder)


def _files_of(entry: Entry) -> list[str]:
    return [*(subtitles.file for subtitles in entry.subtitles), entry.video]
