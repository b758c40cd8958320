"""Reading files behind URLs: shards by webdataset's openers, videos and subtitles by fsspec."""

import io
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import IO

import fsspec

from clipvip.shards.errors import DatasetError

# The package that teaches fsspec a scheme; each is also an extra of ours, named like the scheme.
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}
_BLOCK_BYTES = 1 << 20
_TRIES = 4


def is_url(location: object) -> bool:
    """Whether something is to be read by its scheme (`s3://bucket/videos`) and not as a path."""
    return "://" in str(location)


def list_urls(folder: str, *, below: bool = True) -> list[str]:
    """The URLs of the files in a folder of a store, sorted; with `below` also those in its folders.

    Raises:
        DatasetError: its scheme needs a package that is missing, or there is no such folder or nothing in it.
        OSError: the store does not answer.
    """
    with _store_errors(folder):
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
        for number in range(1, _TRIES + 1):
            file.seek(0)
            file.truncate()
            try:
                _copy(url, file, heartbeat)
                break
            except FileNotFoundError:
                raise
            except OSError:
                if number == _TRIES:
                    raise
                time.sleep(2 ** (number - 1))
        file.flush()
        yield f"/dev/fd/{file.fileno()}"


def _copy(url: str, out: IO[bytes], heartbeat: Callable[[], None]) -> None:
    with _store_errors(url), fsspec.open(url, "rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            out.write(block)
            heartbeat()


@contextmanager
def _store_errors(url: str) -> Iterator[None]:
    """What a store or its package raises, as OSError or DatasetError."""
    try:
        yield
    except OSError:
        raise
    except (ImportError, ValueError) as error:  # a package that is missing, a scheme that nobody knows
        scheme = url.partition("://")[0]
        hint = f"; pip install 'clipvip[{scheme}]'" if scheme in _PACKAGES else ""
        raise DatasetError(f"{url}: {' '.join(str(error).split())}{hint}") from error
    except Exception as error:  # every store has its own, and none of them derives from OSError
        raise OSError(f"{url}: {' '.join(str(error).split())}") from error


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
    with _store_errors(url), fsspec.open(url, "rb") as stream:
        shutil.copyfileobj(stream, out, _BLOCK_BYTES)
