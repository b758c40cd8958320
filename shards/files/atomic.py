"""Files that appear under their final name only when they are complete."""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from upath import UPath

from clipvip.shards.errors import NO_ROOM
from clipvip.shards.files.stores import Location, uploaded

TEMPORARY_SUFFIX = ".partial"
_writer = ""


def name_writer(name: str) -> None:
    """Let this process's temporary files have names of their own, with `name` in them.

    For writers whom nothing keeps apart: a machine that was given up, and its work given to another, may
    still be writing. `remove_temporary_files` removes what such a one leaves.
    """
    global _writer
    _writer = f".{name}"


def remove_temporary_files(folder: Location) -> None:
    """Remove what writers that were killed left in `folder`; nobody may be writing there. In a store nothing
    is left."""
    if isinstance(folder, UPath):
        return
    for leftover in folder.glob(f".*{TEMPORARY_SUFFIX}"):
        leftover.unlink(missing_ok=True)


@contextmanager
def naming(path: Location) -> Iterator[None]:
    """Let errors of writing for want of room name `path`."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in NO_ROOM:
            error.filename = str(path)
        raise


@contextmanager
def atomic_path(path: Location | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and rename it to `path`.

    The temporary name is the same each time, so that a run which was killed leaves at most one such
    file per output and the next run overwrites it. On an exception it is removed. Of a path in a store the
    temporary one is on the local disk.
    """
    if isinstance(path, UPath):
        with naming(Path(tempfile.gettempdir())), uploaded(path) as temporary:
            yield temporary
        return
    path = Path(path)
    temporary = path.with_name(f".{path.name}{_writer}{TEMPORARY_SUFFIX}")
    try:
        with naming(path):
            yield temporary
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Make a rename in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write_bytes(path: Location | str, data: bytes) -> None:
    """Write `data` to `path`, all or nothing."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Location | str, value: Any) -> None:
    """Write `value` as indented JSON, all or nothing; equal values give equal bytes."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    atomic_write_bytes(path, text.encode())


def write_jsonl(path: Location | str, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object a line, all or nothing."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n")
