"""Files behind URLs, which fsspec reads and writes, and the output of commands, which webdataset runs."""

import hashlib
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

import fsspec
from fsspec.implementations.memory import MemoryFileSystem
from upath import UPath

from clipvip.extras import missing
from clipvip.hub_errors import hub_problem
from clipvip.media.errors import one_line
from clipvip.shards.errors import NO_ROOM, DatasetError

Location = Path | UPath
"""A file or folder on a disk, or one in a store."""

# The package that teaches fsspec a scheme; each is also an extra of ours, named like the scheme.
STORE_PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}
_BLOCK_BYTES = 1 << 20
_TRIES = 4
_READ_SECONDS = 60
COMMAND = "pipe:"
"""What begins a shard that is the output of a shell command and no file, as webdataset has it."""


def is_url(location: object) -> bool:
    """Whether something is to be read by its scheme (`s3://bucket/videos`) and not as a path."""
    return "://" in str(location)


def is_remote(shards: str) -> bool:
    """Whether shards are copied before they are read: URLs, `file:/folder` among them, and commands."""
    return is_url(shards) or shards.startswith(("file:", COMMAND))


def parse_location(text: str) -> Location:
    """The path or URL that `text` is. A store is asked anew each time: other processes write there too.

    Raises DatasetError where the URL's scheme is unknown, its package missing, or processes cannot share it.
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

    Raises DatasetError where a package is missing, or there is no such folder or nothing in it; OSError where
    the store does not answer.
    """
    with store_errors(folder):
        system, path = fsspec.core.url_to_fs(folder)
        found = sorted(system.find(path, maxdepth=None if below else 1))
    if not found:
        raise DatasetError(f"{folder}: no such folder, or nothing in it")
    return [str(system.unstrip_protocol(name)) for name in found]


@contextmanager
def local_copy(place: str, *, heartbeat: Callable[[], None] = lambda: None) -> Iterator[str]:
    """A local path with the content of the file at `place`, for as long as the context lasts.

    That of a file on a disk is its own. The copy of one behind a URL has no name on the disk, so that a
    killed process leaves none. Raises as `copy_url`.
    """
    if not is_url(place):
        yield place
        return
    with tempfile.TemporaryFile(prefix="clipvip-") as file:
        copy_url(place, file, heartbeat=heartbeat)
        file.flush()
        yield f"/dev/fd/{file.fileno()}"


def read_url(url: str) -> bytes:
    """The content of a small file. Raises as `copy_url`."""
    content = io.BytesIO()
    copy_url(url, content)
    return content.getvalue()


def copy_url(
    url: str, out: IO[bytes], *, sha256: str | None = None, heartbeat: Callable[[], None] = lambda: None
) -> None:
    """Write the content of the file behind `url`, or the output of a `pipe:` command, to the new file `out`.

    Transient errors, and another checksum than `sha256`, are tried again a few times, with pauses that double
    from a second. `heartbeat` is called for each megabyte. Raises OSError, and DatasetError as `list_urls`.
    """

    def copy() -> None:
        out.seek(0)
        out.truncate()
        digest = hashlib.sha256()
        with _opened_anew(url) as stream:
            while block := stream.read(_BLOCK_BYTES):
                out.write(block)
                digest.update(block)
                heartbeat()
        if sha256 not in (None, digest.hexdigest()):
            raise OSError(f"{url}: is not what its manifest says")

    _try_a_few_times(url, copy)


@contextmanager
def _opened_anew(url: str) -> Iterator[IO[bytes]]:
    """The content behind `url`; where its store remembers that there was none, it is asked again."""
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(_opened(url))
        except FileNotFoundError:
            if url.startswith(COMMAND):
                raise
            fsspec.core.url_to_fs(url, **_options_of(url))[0].invalidate_cache()
            stream = stack.enter_context(_opened(url))
        yield stream


def _opened(url: str) -> AbstractContextManager[IO[bytes]]:
    if url.startswith(COMMAND):
        import webdataset as wds  # it brings torch, which `clipvip-data shard` does without

        return wds.gopen(url)
    return fsspec.open(url, "rb", **_options_of(url))


def _options_of(url: str) -> dict[str, object]:
    """fsspec's options: for HTTP one request for a whole file (not every server gives parts), and proxies."""
    if not url.startswith(("http://", "https://")):
        return {}
    import aiohttp

    client = {"trust_env": True, "timeout": aiohttp.ClientTimeout(sock_read=_READ_SECONDS)}
    return {"block_size": 0, "client_kwargs": client}


def size_of_url(url: str) -> int | None:
    """How many bytes a file has, where its store says so without reading it."""
    if url.startswith(COMMAND):
        return None
    try:
        with store_errors(url):
            system, path = fsspec.core.url_to_fs(url, **_options_of(url))
            return system.info(path)["size"]
    except (OSError, DatasetError):
        return None


@contextmanager
def uploaded(target: UPath) -> Iterator[Path]:
    """A local path to write to; when the context ends well, `target` gets its content, all or nothing.

    The local file has no name on the disk, so that a killed process leaves none. Transient errors are tried
    again. Raises OSError, and DatasetError as `list_urls`.
    """
    with tempfile.TemporaryFile(prefix="clipvip-") as file:
        local = f"/dev/fd/{file.fileno()}"
        yield Path(local)
        _try_a_few_times(str(target), lambda: target.fs.put_file(local, target.path))


def upload(file: Path, target: UPath) -> None:
    """Let `target` be the content of a file, all or nothing. Raises as `uploaded`."""
    _try_a_few_times(str(target), lambda: target.fs.put_file(str(file), target.path))


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
        if str(url).startswith("hf://") and (problem := hub_problem(str(url), error)):
            raise DatasetError(problem) from error
        if is_url(url) and error.filename is None and error.errno is None:
            error.args = (f"{url}: {one_line(error)}",)
        elif is_url(url) and error.filename is None:
            error.filename = str(url)
        raise
    except (ImportError, ValueError) as error:  # a package that is missing, a scheme that nobody knows
        scheme = str(url).partition("://")[0]
        package = STORE_PACKAGES.get(scheme) if isinstance(error, ImportError) else None
        raise DatasetError(missing(package, str(url)) if package else f"{url}: {one_line(error)}") from error
    except Exception as error:  # every store has its own, and none of them derives from OSError
        if str(url).startswith("hf://") and (problem := hub_problem(str(url), error)):
            raise OSError(problem) from error
        raise OSError(f"{url}: {one_line(error)}") from error
