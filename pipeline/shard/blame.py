"""Which source took a worker process down, so that nobody opens it again.

Notes of what is open, and lists of blame, are small files in OUT/_state, named by the first shard of a unit.
"""

from collections.abc import Mapping

from clipvip.shards.errors import DatasetError
from clipvip.shards.files.atomic import naming, write_json
from clipvip.shards.files.claims import STATE_FOLDER
from clipvip.shards.files.stores import Location, store_errors
from clipvip.shards.files.text import parse_object


def _blame_path(out: Location, first_shard: int) -> Location:
    return out / STATE_FOLDER / f"{first_shard:06d}.blamed.json"


def read_blame(out: Location, first_shard: int) -> dict[int, str]:
    """Sources of a unit that ended a worker: line in the metadata -> `decoder_crashed` or `timeout`."""
    path = _blame_path(out, first_shard)
    try:
        with store_errors(path):
            data = path.read_bytes()
        return {int(line): str(reason) for line, reason in parse_object(data).items()}
    except FileNotFoundError:
        return {}
    except ValueError as error:
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
    """How many clips of unfinished units, first shard -> run, are dealt with, up to the open sources."""
    notes = (_read_note(_note_path(out, run, first_shard)) for first_shard, run in runs.items())
    return sum(numbers[1] for numbers in notes if numbers)


def _read_note(path: Location) -> list[int]:
    """Line, clips done, process; empty where there is no note, or one that is being written."""
    try:
        with store_errors(path):
            words = path.read_text(encoding="utf-8").split()
    except FileNotFoundError:
        return []
    return [int(word) for word in words] if len(words) == 3 else []
