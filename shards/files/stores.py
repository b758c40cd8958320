"""Files behind URLs: shards are read by webdataset's openers; videos and subtitles are read, and outputs written, by fsspec."""

import io
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

import fsspec
from fsspec.implementations.memory import MemoryFileSystem
from upath import UPath

from clipvip.media.errors import one_line
from clipvip.shards.errors import NO_ROOM, DatasetError

Location = Path | UPath
"""A file or folder on a disk, or one in a store."""

# The package that teaches fsspec a scheme; each is also an extra of ours, named like the scheme.
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}
_BLOCK_BYTES = 1 << 20
_TRIES = 4
_HEAD_SECONDS = 20


def is_url(location: object) -> bool:
    """Whether something is to be read by its scheme (`s3://bucket/videos`) and not as a path."""
    return "://" in str(location)


def parse_location(text: str) -> Location:
    """The path or URL that `text` is. What is in a store is asked anew each time: other processes write there too.

    Raises:
        DatasetError: nobody knows the URL's scheme, its package is missing, or it is no place that processes share.
    """
    if not is_url(text):
        return Path(text)
    if text.startswith("file://"):
        return Path(unquote(urlsplit(text).path))
    with store_errors(text):
        place = UPath(text, use_listings_cache=False)
        if isinstance(place.fs, MemoryFileSystem):
            raise DatasetError(
                f"{text}: the memory of one process, which workers do not see; give a folder or a store"
            )
        return place


def list_urls(folder: str, *, below: bool = True) -> list[str]:
    """The URLs of the files in a folder of a store, sorted; with `below` also those in its folders.

    Raises:
        DatasetError: its scheme needs a package that is missing, or there is no such folder or nothing in it.
        OSError: the store does not answer.
    """
    with store_errors(folder):
        system, path = fsspec.core.url_to_fs(folder)
        found = sorted(system.find(path, maxdepth=None if below else 1))
    if not found:
        raise DatasetError(f"{folder}: no such folder, or nothing in it")
    return [str(system.unstrip_protocol(name)) for name in found]


@contextmanager
def local_copy(url: str, *, heartbeat: Callable[[], None] = lambda: None) -> Iterator[str]:
    """A local path with the content of the file behind `url`, for as long as the context lasts.

    The copy has no name on the disk, so that none is left behind by a process that is killed. `heartbeat` is called for each
    megabyte. What fails in passing is tried again a few times, with pauses that double from a second.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read. DatasetError: as `list_urls`.
    """
    with tempfile.TemporaryFile(prefix="clipvip-") as file:

        def copy() -> None:
            file.seek(0)
            file.truncate()
            with fsspec.open(url, "rb") as stream:
                while block := stream.read(_BLOCK_BYTES):
                    file.write(block)
                    heartbeat()

        _try_a_few_times(url, copy)
        file.flush()
        yield f"/dev/fd/{file.fileno()}"


@contextmanager
def uploaded(target: UPath) -> Iterator[Path]:
    """A local path to write to; what is there when the context ends well becomes the file `target`, all or nothing.

    The local file has no name on the disk, so that none is left behind by a process that is killed. What fails in passing is tried
    again, as by `local_copy`.

    Raises:
        OSError: it cannot be written. DatasetError: as `list_urls`.
    """
    with tempfile.TemporaryFile(prefix="clipvip-") as file:
        local = f"/dev/fd/{file.fileno()}"
        yield Path(local)
        _try_a_few_times(str(target), lambda: target.fs.put_file(local, target.path))


def _try_a_few_times(url: str, action: Callable[[], None]) -> None:
    for number in range(1, _TRIES + 1):
        try:
            with store_errors(url):
                action()
            return
        except (FileNotFoundError, PermissionError):
            raise
        except OSError as error:
            if number == _TRIES or error.errno in NO_ROOM:
                raise
            time.sleep(2 ** (number - 1))


@contextmanager
def store_errors(url: object) -> Iterator[None]:
    """What a store or its package raises, as OSError or DatasetError that names `url`."""
    try:
        yield
    except DatasetError:
        raise
    except OSError as error:
        if is_url(url) and error.filename is None and error.errno is None:
            error.args = (f"{url}: {one_line(error)}",)
        elif is_url(url) and error.filename is None:
            error.filename = str(url)
        raise
    except (ImportError, ValueError) as error:  # a package that is missing, a scheme that nobody knows
        scheme = str(url).partition("://")[0]
        hint = f"; pip install 'clipvip[{scheme}]'" if scheme in _PACKAGES else ""
        raise DatasetError(f"{url}: {one_line(error)}{hint}") from error
    except Exception as error:  # every store has its own, and none of them derives from OSError
        raise OSError(f"{url}: {one_line(error)}") from error


def read_url(url: str) -> bytes:
    """The content of a small file.

    Raises:
        DatasetError: its scheme needs a package that is missing.
        OSError: it cannot be read.
    """
    content = io.BytesIO()
    copy_url(url, content)
    return content.getvalue()


def copy_url(url: str, out: IO[bytes]) -> None:
    """Write the content of a file to `out`. Raises as `read_url`."""
    scheme = url.partition("://")[0]
    package = _PACKAGES.get(scheme)
    if package is None or (scheme == "gs" and not find_spec(package) and shutil.which("gsutil")):
        import webdataset as wds  # it brings torch, which `clipvip-data shard` does without

        with wds.gopen(url) as stream:
            shutil.copyfileobj(stream, out, _BLOCK_BYTES)
        return
    if not find_spec(package):
        raise DatasetError(f"{url}: reading it needs {package}; pip install 'clipvip[{scheme}]'")
    with store_errors(url), fsspec.open(url, "rb") as stream:
        shutil.copyfileobj(stream, out, _BLOCK_BYTES)


def size_of_url(url: str) -> int | None:
    """How many bytes a file has, where its store says so without reading it."""
    scheme = url.partition(":")[0]
    try:
        if scheme == "file":
            return Path(unquote(urlsplit(url).path)).stat().st_size
        if scheme not in ("http", "https", *_PACKAGES) or (
            scheme in _PACKAGES and not find_spec(_PACKAGES[scheme])
        ):
            return None
        if scheme in _PACKAGES:
            with store_errors(url):
                system, path = fsspec.core.url_to_fs(url)
                return int(system.info(path)["size"])
        with urlopen(Request(url, method="HEAD"), timeout=_HEAD_SECONDS) as answer:
            length = answer.headers.get("Content-Length")
            return int(length) if length else None
    except (OSError, DatasetError, ValueError, KeyError, TypeError):
        return None
