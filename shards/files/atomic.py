"""Files that appear under their final name only when they are complete."""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from upath import UPath

from clipvip.shards.errors import NO_ROOM, DatasetError
from clipvip.shards.files.stores import Location, uploaded

TEMPORARY_SUFFIX = ".partial"
_writer = ""


def name_writer(name: str) -> None:
    """Put `name` into the names of this process's temporary files.

    For writers whom nothing keeps apart: a machine that was given up may still be writing.
    """
    global _writer
    _writer = f".{name}"


def remove_temporary_files(folder: Location) -> None:
    """Remove what killed writers left in `folder`, where nobody may be writing; stores have none."""
    if not isinstance(folder, UPath):
        for leftover in folder.glob(f".*{TEMPORARY_SUFFIX}"):
            leftover.unlink(missing_ok=True)


@contextmanager
def naming(path: Location, temporary: Path | None = None) -> Iterator[None]:
    """Let errors of a full disk name `path`, and those about `temporary`, which stands for it."""
    try:
        yield
    except OSError as error:
        of_nothing = error.filename is None and error.errno in NO_ROOM
        if of_nothing or (temporary is not None and error.filename in (temporary, str(temporary))):
            error.filename, error.filename2 = str(path), None
        raise


def require_no_other_kind(path: Location) -> None:
    """Raise a DatasetError where `path` is something that a file cannot take the place of.

    A rename would replace a device or a pipe, such as /dev/stdout, and with it what others read and write.
    """
    if isinstance(path, UPath):
        return
    if path.is_dir():
        raise DatasetError(f"{path}: is a folder; give a file to write to")
    # /dev/stdout is a link, and may lead to a file.
    parent = path.parent.resolve()
    is_the_systems = str(parent) == "/dev" or str(parent).startswith(("/proc/", "/dev/fd"))
    if is_the_systems or (path.exists() and not path.is_file()):
        raise DatasetError(f"{path}: is a device or a pipe, not a file; give a file to write to")


@contextmanager
def atomic_path(path: Location | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and rename it to `path`.

    The temporary name is the same each time, so that a killed run leaves at most one such file per output,
    which the next overwrites. For a path in a store it is on the local disk.

    Raises:
        DatasetError: `path` is a folder, a device or a pipe.
    """
    if isinstance(path, UPath):
        with naming(Path(tempfile.gettempdir())), uploaded(path) as temporary:
            yield temporary
        return
    path = Path(path)
    require_no_other_kind(path)
    temporary = path.with_name(f".{path.name}{_writer}{TEMPORARY_SUFFIX}")
    try:
        with naming(path, temporary):
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
