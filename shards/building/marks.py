"""What a half-finished shard folder remembers: its options, which shards are done, who is at work on what.

Everything is in OUT/_state, one small file each, so that being killed at any moment loses one unit at most. OUT may be in a
store, which has no locks: two runs there write the same bytes, since neither is begun with other options.
"""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from upath import UPath

from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.files.atomic import naming, remove_temporary_files, write_json
from clipvip.shards.files.stores import Location, store_errors
from clipvip.shards.format.manifest import MANIFEST_NAME, ShardRecord, require_same_options

STATE_FOLDER = "_state"
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


def shard_name(shard: int) -> str:
    return f"{shard:06d}.tar"


def shard_path(out: Folder, shard: int) -> Folder:
    return out / shard_name(shard)


def _mark_path(out: Location, shard: int) -> Location:
    return out / STATE_FOLDER / f"{shard:06d}.json"


def _read(path: Location) -> str:
    with store_errors(path):
        return path.read_text(encoding="utf-8")


def write_mark(out: Location, mark: ShardMark) -> None:
    """Note, all or nothing, that a shard is done; its file must be in place."""
    write_json(_mark_path(out, mark.shard), mark_content(mark))


def mark_content(mark: ShardMark) -> dict[str, Any]:
    """A mark as it is written."""
    record = mark.record
    return {
        "samples": record.num_samples if record else 0,
        "bytes": record.num_bytes if record else 0,
        "sha256": record.sha256 if record else "",
        "frames": mark.num_frames,
        "without_subtitle": mark.num_without_subtitle,
        "subtitle_warnings": mark.subtitle_warnings,
        "skips": [[s.line, s.position, s.skip.reason, s.skip.what, s.skip.detail] for s in mark.skips],
    }


def mark_from(shard: int, content: Any) -> ShardMark:
    """The mark of `mark_content`. Raises KeyError, TypeError or ValueError where it is none."""
    record = None
    if content["samples"]:
        record = ShardRecord(shard_name(shard), content["samples"], content["bytes"], content["sha256"])
    skips = [PlacedSkip(line, place, Skip(*texts)) for line, place, *texts in content["skips"]]
    warnings, frames = list(content["subtitle_warnings"]), int(content["frames"])
    return ShardMark(shard, record, skips, warnings, frames, int(content["without_subtitle"]))


def read_mark(out: Location, shard: int) -> ShardMark | None:
    """The mark of a finished shard; None where it is not done, or its file is gone or of another length."""
    try:
        mark = mark_from(shard, json.loads(_read(_mark_path(out, shard))))
        if mark.record is not None:
            path = shard_path(out, shard)
            with store_errors(path):
                if path.stat().st_size != mark.record.num_bytes:
                    return None
        return mark
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def forget_shard(out: Location, shard: int) -> None:
    """Remove a shard and its mark, so that the next run makes it again. The folder must be claimed."""
    _mark_path(out, shard).unlink(missing_ok=True)
    shard_path(out, shard).unlink(missing_ok=True)


def require_free_folder(out: Location, options: dict[str, Any], *, outputs: str = "*.tar") -> None:
    """What `claim_folder` checks, but for other runs at work. Changes nothing.

    Raises:
        DatasetError: as there.
    """
    state = out / STATE_FOLDER
    with store_errors(out):
        if out.exists() and not out.is_dir():
            raise DatasetError(f"{out}: is a file; give a folder to --out")
        if not state.is_dir() and (any(out.glob(outputs)) or (out / MANIFEST_NAME).exists()):
            raise DatasetError(f"{out}: holds {outputs} that are not of an earlier run; give another --out")
    _require_options(state / "options.json", options)


@contextmanager
def claim_folder(out: Location, options: dict[str, Any], *, outputs: str = "*.tar") -> Iterator[None]:
    """Make `out` this run's own: locked against a second run, its options fixed, old temporary files and notes gone.

    `outputs` is the pattern of the files that the stage makes.

    Raises:
        DatasetError: other options or other metadata made what is there, another run is at work in it, or it
            holds outputs that this stage did not make. Nothing is changed then.
    """
    require_free_folder(out, options, outputs=outputs)
    state = out / STATE_FOLDER
    with lock_folder(out):
        _require_options(state / "options.json", options)
        remove_temporary_files(out)
        remove_temporary_files(state)
        with store_errors(out):
            for note in state.glob("*.open"):
                note.unlink(missing_ok=True)
        try:
            write_json(state / "options.json", options)
            yield
        finally:
            # Workers that were lost leave theirs, and on a full disk they take the room that is left.
            remove_temporary_files(out)
            remove_temporary_files(state)


@contextmanager
def lock_folder(out: Location) -> Iterator[None]:
    """Lock `out`, which is made if need be, against a second run; the system takes the lock back however this one ends.

    In a store there are no locks, and nothing is done.

    Raises:
        DatasetError: another run is at work in it.
    """
    if isinstance(out, UPath):
        yield
        return
    state = out / STATE_FOLDER
    state.mkdir(parents=True, exist_ok=True)
    with (state / "lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatasetError(
                f"{out}: another run is writing here; wait for it or give another --out"
            ) from None
        yield


def _require_options(path: Location, options: dict[str, Any]) -> None:
    try:
        found = json.loads(_read(path))
    except FileNotFoundError:
        return
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: not JSON ({error}); give another --out") from error
    require_same_options(path.parent.parent, found, options)


# Sources that took their worker process down, so that nobody opens them again: source line -> reason.


def _blame_path(out: Location, first_shard: int) -> Location:
    return out / STATE_FOLDER / f"{first_shard:06d}.blamed.json"


def read_blame(out: Location, first_shard: int) -> dict[int, str]:
    """Sources of a unit that ended a worker: line in the metadata -> `decoder_crashed` or `timeout`."""
    path = _blame_path(out, first_shard)
    try:
        content = json.loads(_read(path))
        return {int(line): str(reason) for line, reason in content.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError, RecursionError) as error:
        raise DatasetError(
            f"{path}: damaged ({error}); remove it, then run the same command again"
        ) from error


def add_blame(out: Location, first_shard: int, line: int, reason: str) -> None:
    blamed = read_blame(out, first_shard) | {line: reason}
    write_json(_blame_path(out, first_shard), {str(key): blamed[key] for key in sorted(blamed)})


def forget_blame(out: Location, first_shard: int) -> None:
    """Let the sources of a unit be opened again."""
    with store_errors(out):
        _blame_path(out, first_shard).unlink(missing_ok=True)


# The note of which source a worker has open. It need not survive a power cut, only the worker.


def _note_path(out: Location, run: str, first_shard: int) -> Location:
    return out / STATE_FOLDER / f"{first_shard:06d}.{run}.open"


def write_note(out: Location, run: str, first_shard: int, *, line: int, num_done: int, pid: int) -> None:
    """Note that process `pid` opens the source of that line, after `num_done` clips of the unit."""
    path = _note_path(out, run, first_shard)
    with naming(path), store_errors(path):
        path.write_text(f"{line} {num_done} {pid}\n")


def take_note(out: Location, run: str, first_shard: int) -> int | None:
    """The line of the source that was open, and forget it; None if there was none."""
    path = _note_path(out, run, first_shard)
    numbers = _read_note(path)
    with store_errors(path):
        path.unlink(missing_ok=True)
    return numbers[0] if numbers else None


def count_clips_in_progress(out: Location, runs: Mapping[int, str]) -> int:
    """How many clips of unfinished units, given as first shard -> run, have been dealt with, up to the open sources."""
    notes = (_read_note(_note_path(out, run, first_shard)) for first_shard, run in runs.items())
    return sum(numbers[1] for numbers in notes if numbers)


def _read_note(path: Location) -> list[int]:
    """Line, clips done, process; empty where there is no note, or one that is being written."""
    try:
        words = _read(path).split()
    except FileNotFoundError:
        return []
    return [int(word) for word in words] if len(words) == 3 else []
