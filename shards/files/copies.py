"""Copies of remote files on this machine's disk, which all of its processes share."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clipvip.shards.files.atomic import atomic_path
from clipvip.shards.files.locks import locked
from clipvip.shards.files.stores import copy_url, size_of_url


@contextmanager
def shared_copy(
    url: str, folder: Path, *, keep: int, sha256: str | None = None, num_bytes: int | None = None
) -> Iterator[Path]:
    """The copy in `folder` of the file behind `url`, to be opened in the context; made where there is none.

    Its name is the `sha256`, so that data sets cannot be mixed up; where that is not known, the URL and the
    size that the store says. One process copies while others that want the same file wait. The `keep` last
    used copies stay; a dropped one stays readable for whoever has it open. Raises as `copy_url`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{sha256 or f'url-{url_hash(url)}-{size_of_url(url)}'}.tar"
    with locked(folder / f"{path.name}.lock"):
        if not path.exists() or num_bytes not in (None, path.stat().st_size):
            with atomic_path(path) as temporary, temporary.open("wb") as out:
                copy_url(url, out, sha256=sha256)
        os.utime(path)
        yield path
    copies = []
    for copy in folder.glob("*.tar"):
        with suppress(FileNotFoundError):
            copies.append((copy.stat().st_mtime, copy))
    for _, copy in sorted(copies)[: -max(keep, 1)]:
        copy.unlink(missing_ok=True)


def url_hash(url: str) -> str:
    """What stands for the content of a file of which nothing but the URL is known."""
    return hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()
