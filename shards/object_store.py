"""Reading files behind URLs: webdataset's openers, and fsspec for the stores that it has none for."""

import io
import shutil
from importlib.util import find_spec
from typing import IO

import fsspec
import webdataset as wds

from clipvip.shards.errors import DatasetError

# The package that teaches fsspec a scheme; each is also an extra of ours, named like the scheme.
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}
_BLOCK_BYTES = 1 << 20


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
        with wds.gopen(url) as stream:
            shutil.copyfileobj(stream, out, _BLOCK_BYTES)
        return
    if not find_spec(package):
        raise DatasetError(f"{url}: reading it needs {package}; pip install 'clipvip[{scheme}]'")
    try:
        with fsspec.open(url, "rb") as stream:
            shutil.copyfileobj(stream, out, _BLOCK_BYTES)
    except OSError:
        raise
    except Exception as error:  # every store has its own, and none of them derives from OSError
        raise OSError(f"{url}: {' '.join(str(error).split())}") from error
