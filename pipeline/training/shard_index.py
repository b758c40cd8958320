"""Where each sample of a tar file lies, so that single samples can be read without reading the rest.

Decoding samples and fetching remote shards happen elsewhere.
"""

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

from clipvip.shards.errors import DatasetError

_BLOCK_BYTES = 512
_REGULAR_FILE = b"0\0"
_FOLDER = b"5"


@dataclass(frozen=True, slots=True)
class Entry:
    """One sample: its key, and for each extension the (offset, length) of its bytes in the tar file."""

    key: str
    members: dict[str, tuple[int, int]] = field(default_factory=dict)

    def first_of(self, extensions: tuple[str, ...]) -> str | None:
        """The first of the extensions that the sample has."""
        return next((name for name in extensions if name in self.members), None)


def index_tar(file: IO[bytes]) -> list[Entry]:
    """The samples of an open tar file in their order; members with the same name up to the first dot are one.

    A tar that ends early gives the samples before the damage.

    Raises:
        DatasetError: not a tar file.
    """
    entries: list[Entry] = []
    try:
        for name, offset, length in _members(file):
            folder, base = os.path.split(name)
            stem, _, extension = base.partition(".")
            key = f"{folder}/{stem}" if folder else stem
            if not entries or entries[-1].key != key:
                entries.append(Entry(key))
            entries[-1].members[extension.lower()] = (offset, length)
    except (tarfile.TarError, EOFError) as error:
        raise DatasetError(f"{file.name}: not a readable tar file ({error})") from error
    return entries


def read_member(file: IO[bytes], place: tuple[int, int]) -> bytes:
    """The bytes of a member; shorter than its length where the file ends early."""
    offset, length = place
    return os.pread(file.fileno(), length, offset)


def _members(file: IO[bytes]) -> Iterator[tuple[str, int, int]]:
    """(name, offset, length) of each regular file.

    Plain headers, which are all that WebDataset writers make as a rule, are read by hand: that takes a
    tenth of tarfile's time, and every loading process does it for every shard. A tar with any other kind
    of header is left to tarfile.
    """
    plain = _plain_members(file)
    if plain is not None:
        yield from plain
        return
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            if member.isfile():
                yield member.name, member.offset_data, member.size


def _plain_members(file: IO[bytes]) -> list[tuple[str, int, int]] | None:
    """The regular files of a tar whose headers are all of the plain kind, else None."""
    members: list[tuple[str, int, int]] = []
    descriptor, offset = file.fileno(), 0
    while True:
        header = os.pread(descriptor, _BLOCK_BYTES, offset)
        if len(header) < _BLOCK_BYTES or header[0] == 0:
            return members if offset else None
        kind, size_text = header[156:157], header[124:136].rstrip(b" \0")
        if header[257:262] != b"ustar" or not size_text.isdigit():
            return None
        size = int(size_text, 8)
        if kind in _REGULAR_FILE:
            name = header[:100].split(b"\0", 1)[0]
            prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
            full = prefix + b"/" + name if prefix else name
            members.append((full.decode("utf-8", "surrogateescape"), offset + _BLOCK_BYTES, size))
        elif kind != _FOLDER:
            return None
        offset += _BLOCK_BYTES + -(-size // _BLOCK_BYTES) * _BLOCK_BYTES
