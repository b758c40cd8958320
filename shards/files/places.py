"""Files and folders by their `Location`: a disk's are read as they are, a store's from copies."""

import io
import os
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TypeVar

from upath import UPath

from clipvip.shards.files.stores import Location, copy_url, parse_location, read_url, store_errors

T = TypeVar("T")
# A shard is gone through twice or so: for its checksum, for its samples, for the captions of some of these.
_COPIES_KEPT = 2
_copies: OrderedDict[tuple[str, str], IO[bytes]] = OrderedDict()
_lock = threading.Lock()


def location_of(place: Location | str | os.PathLike[str]) -> Location:
    """What a path, URL or text names. Raises as `parse_location`."""
    return place if isinstance(place, Path | UPath) else parse_location(os.fspath(place))


def open_file(path: Location, *, heartbeat: Callable[[], None] = lambda: None) -> IO[bytes]:
    """The file, open to read, unbuffered, with a descriptor of its own position to `os.pread` from.

    Of one in a store this process makes a copy in TMPDIR, without a name there, and keeps the last two.
    `heartbeat` is called for each megabyte that is copied. Raises OSError, DatasetError as `copy_url`.
    """
    if isinstance(path, Path):
        return path.open("rb", buffering=0)
    key = (str(path), _ask(path, lambda: path.fs.ukey(path.path)))
    with _lock:
        if key in _copies:
            _copies.move_to_end(key)
            return _opened(_copies[key])
    with tempfile.TemporaryFile(prefix="clipvip-") as copy:
        copy_url(key[0], copy, heartbeat=heartbeat)
        copy.flush()
        with _lock:
            _copies[key] = _opened(copy)
            while len(_copies) > _COPIES_KEPT:
                _copies.popitem(last=False)[1].close()
        return _opened(copy)


def _opened(copy: IO[bytes]) -> IO[bytes]:
    return open(f"/dev/fd/{copy.fileno()}", "rb", buffering=0)


@contextmanager
def _asking(place: Location, *, anew: bool = False) -> Iterator[None]:
    """Errors as by `store_errors`. `anew`: not by what the store said before; others write there too."""
    with store_errors(place):
        if anew and isinstance(place, UPath):
            place.fs.invalidate_cache()
        yield


def _ask(path: Location, question: Callable[[], T]) -> T:
    """The answer; asked again where there is no such file by what the store said before."""
    try:
        with _asking(path):
            return question()
    except FileNotFoundError:
        if isinstance(path, Path):
            raise
    with _asking(path, anew=True):
        return question()


@contextmanager
def at_hand(path: Location, *, heartbeat: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """A local path with the content of the file, for as long as the context lasts. Raises as `open_file`."""
    if isinstance(path, Path):
        yield path
        return
    with open_file(path, heartbeat=heartbeat) as file:
        yield Path(f"/dev/fd/{file.fileno()}")


def read_whole(path: Location) -> bytes:
    """The content of a small file. Raises OSError, DatasetError as `copy_url`."""
    return path.read_bytes() if isinstance(path, Path) else read_url(str(path))


def open_small(path: Location) -> IO[bytes]:
    """A small file, open to read; one of a store is in memory. Raises OSError, DatasetError as `copy_url`."""
    return path.open("rb") if isinstance(path, Path) else io.BytesIO(read_url(str(path)))


def size_of(path: Location) -> int:
    """The size of a file. Raises OSError, DatasetError."""
    return _ask(path, lambda: int(path.stat().st_size))


def sizes_in(folder: Location) -> dict[str, int]:
    """The files of a folder by name, with their sizes, by one listing; {}: there is no such folder.

    Raises OSError, DatasetError: the store does not answer.
    """
    if isinstance(folder, Path):
        if not folder.is_dir():
            return {}
        with os.scandir(folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
    with _asking(folder, anew=True):
        try:
            found = folder.fs.ls(folder.path, detail=True)
        except FileNotFoundError:
            return {}
    files = (entry for entry in found if entry["type"] == "file")
    return {entry["name"].rstrip("/").rpartition("/")[2]: int(entry["size"] or 0) for entry in files}


def is_folder(place: Location) -> bool:
    """Whether there is such a folder. Raises OSError, DatasetError where the store does not answer."""
    with _asking(place, anew=True):
        return bool(place.is_dir())


def is_file(place: Location) -> bool:
    """Whether there is such a file. Raises as `is_folder`."""
    with _asking(place):
        if place.is_file():
            return True
    with _asking(place, anew=True):
        return isinstance(place, UPath) and bool(place.is_file())


def make_folder(folder: Location) -> None:
    """Make a folder and those above it; stores have none to make."""
    if isinstance(folder, Path):
        folder.mkdir(parents=True, exist_ok=True)


def sorted_glob(folder: Location, pattern: str) -> list[Location]:
    """What of a folder fits a pattern, by name. Raises as `is_folder`."""
    with _asking(folder, anew=True):
        return sorted(folder.glob(pattern))


def is_same_folder(one: Location, other: Location) -> bool:
    """Whether two places are one folder, which is there."""
    if isinstance(one, Path) and isinstance(other, Path):
        return one.exists() and one.samefile(other)
    return str(one).rstrip("/") == str(other).rstrip("/")


def remove_folder(folder: Location) -> None:
    """Remove a folder with all that is in it, where there is one. Raises OSError: it cannot be removed."""
    if isinstance(folder, Path):
        shutil.rmtree(folder, ignore_errors=True)
        return
    with _asking(folder), suppress(FileNotFoundError):
        folder.fs.rm(folder.path, recursive=True)
