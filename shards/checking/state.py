"""What is wrong with the state that resuming needs: the marks of finished shards, the folder's options.

Three files know the options, two the skips: where they disagree, the odd one out is damaged.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import JsonValue

from clipvip.shards.building.marks import ShardMark, read_mark, shard_name
from clipvip.shards.checking.findings import FolderCheck
from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.files.claims import OPTIONS_NAME, SKIPPED_NAME, STATE_FOLDER
from clipvip.shards.files.places import is_file, read_whole, size_of, sorted_glob
from clipvip.shards.files.stores import Location
from clipvip.shards.files.text import json_lines, parse_object
from clipvip.shards.format.manifest import ShardRecord


def read_options(folder: Location) -> dict[str, JsonValue] | None:
    """The options that a folder's state gives; None where they are missing or damaged."""
    try:
        return parse_object(read_whole(folder / STATE_FOLDER / OPTIONS_NAME))
    except (OSError, ValueError):
        return None


def read_skips(folder: Location) -> Iterator[Skip]:
    """The skips that a folder lists. DatasetError: a line is none; the message does not name the file."""
    path = folder / SKIPPED_NAME
    for line in json_lines(path) if is_file(path) else ():
        try:
            yield Skip.from_json(line.value)
        except ValueError as error:
            raise DatasetError(f"line {line.number}: {line.problem or error}") from error


def marks_of(folder: Location) -> Iterator[tuple[int, ShardMark | None]]:
    """The numbers and marks of a folder's shards; None for a mark that is damaged or has lost its shard."""
    names = (path.stem for path in sorted_glob(folder / STATE_FOLDER, "*.json"))
    for number in sorted(int(name) for name in names if re.fullmatch(r"\d{6,}", name)):
        yield number, read_mark(folder, number)


def check_options(found: FolderCheck, reported: JsonValue) -> None:
    """Compare `_state/options.json` with the manifest's options, and with the report's.

    Kinds of problems: `damaged_options`, which can be restored; `options_differ`, which cannot.
    """
    name = f"{STATE_FOLDER}/{OPTIONS_NAME}"
    options = read_options(found.folder)
    if options == found.options:
        return
    if options is not None and options == reported:
        found.problem("damaged_manifest", "manifest.json", f"names other options than {name} and the report")
        found.options = options
    elif options is None or reported == found.options:
        found.problem(
            "damaged_options", name, "not there, not JSON or not the options of manifest and report"
        )
        found.options_to_restore = found.options
    else:
        found.problem("options_differ", name, "names other options than the manifest")


def check_marks(found: FolderCheck, *, has_manifest: bool) -> None:
    """Compare the marks with the manifest and with the list of skips.

    Kinds of problems: `damaged_mark` (also a missing one), `mark_differs`.
    """
    listed = {record.name: record for record in found.records}
    marked = set()
    has_skips = "damaged_skips" not in found.findings.counts and is_file(found.folder / SKIPPED_NAME)
    skips = read_skips(found.folder) if has_skips else None
    for number, mark in marks_of(found.folder):
        name = shard_name(number)
        marked.add(name)
        if mark is None:
            _damaged_mark(found, name, listed.get(name))
            continue
        found.mark_counts[name] = (mark.num_frames, mark.num_without_subtitle)
        if has_manifest and mark.record != listed.get(name):
            _bad_mark(found, name, "mark_differs", "lists another content than the manifest")
        elif skips is not None and not all(placed.skip in skips for placed in mark.skips):
            # `in` uses up the iterator: the marks' skips are in the list's order, with others in between.
            detail = f"has a skip that {SKIPPED_NAME} does not list, or that file is damaged"
            _bad_mark(found, name, "mark_differs", detail)
            skips = None
    for name in listed.keys() - marked if has_manifest else ():
        _damaged_mark(found, name, listed[name])


def _damaged_mark(found: FolderCheck, name: str, record: ShardRecord | None) -> None:
    """Note the mark, unless the shard itself is gone or of another length, which its own check tells."""
    path = found.folder / name
    if record is None or (is_file(path) and size_of(path) == record.num_bytes):
        _bad_mark(found, name, "damaged_mark", "not there or not that of the shard")


def _bad_mark(found: FolderCheck, name: str, kind: str, detail: str) -> None:
    found.problem(kind, f"{STATE_FOLDER}/{Path(name).stem}.json", detail)
    found.bad_marks.add(name)
