"""Where each sample of a shard lies in its tar file, by reading the headers and not the pixels.

Strict, unlike `reader`: whatever clipvip would not have written is an error. Says nothing about content.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from clipvip.shards.errors import DatasetError
from clipvip.shards.sample import FRAMES_EXTENSION, VIDEO_EXTENSION

TAR_BLOCK_BYTES = 512
# One read gives a sample's record, its text and the header of its pixels.
_WINDOW_BYTES = 8192


@dataclass(frozen=True, slots=True)
class SampleSpan:
    """One sample's place in a tar: bytes [start, end) with headers and padding; extension -> (offset, length)."""

    key: str
    start: int
    end: int
    members: dict[str, tuple[int, int]]

    @property
    def extension(self) -> str | None:
        """The pixels' extension; None where the members are not those of a sample, in their order."""
        names = list(self.members)
        right = names[:2] == ["json", "txt"] and names[2:] in ([FRAMES_EXTENSION], [VIDEO_EXTENSION])
        return names[2] if right else None


class ShardFile:
    """An open shard. Use it in a `with`."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._file = self.path.open("rb", buffering=0)
        self._window = b""
        self._window_start = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def spans(self) -> Iterator[SampleSpan]:
        """The samples in their order; members next to each other with one name up to the first dot are one.

        Raises:
            DatasetError: the tar is damaged, ends early, or has members that clipvip does not write; the
                samples that end well before that place have been yielded.
        """
        key, start, members = "", 0, dict[str, tuple[int, int]]()
        offset = 0
        while (found := self._member_at(offset)) is not None:
            name, size = found
            stem, _, extension = name.partition(".")
            if members and (stem != key or extension in members):
                yield SampleSpan(key, start, offset, members)
                members = {}
            if not members:
                key, start = stem, offset
            members[extension] = (offset + TAR_BLOCK_BYTES, size)
            offset += TAR_BLOCK_BYTES + padded(size)
        if members:
            yield SampleSpan(key, start, offset, members)
        self._check_end(offset)

    def read(self, span: SampleSpan, extension: str) -> bytes:
        """The content of a sample's member."""
        offset, length = span.members[extension]
        return self._bytes_at(offset, length)

    def read_span(self, span: SampleSpan) -> bytes:
        """All bytes of a sample as they stand in the tar, headers and padding with them."""
        return self._bytes_at(span.start, span.end - span.start)

    def _bytes_at(self, offset: int, length: int) -> bytes:
        begin = offset - self._window_start
        if begin < 0 or begin + length > len(self._window):
            if length > _WINDOW_BYTES:
                data = os.pread(self._file.fileno(), length, offset)
            else:
                self._window = os.pread(self._file.fileno(), _WINDOW_BYTES, offset)
                self._window_start, data = offset, self._window[:length]
        else:
            data = self._window[begin : begin + length]
        if len(data) < length:
            raise DatasetError(f"{self.path}: ends in the middle of a sample; make this shard again")
        return data

    def _member_at(self, offset: int) -> tuple[str, int] | None:
        """Name and size of the member whose header is there; None at the end of the archive."""
        header = self._bytes_at(offset, TAR_BLOCK_BYTES)
        if not any(header):
            return None
        if not _is_plain_header(header):
            raise DatasetError(f"{self.path}: damaged tar header at byte {offset}; make this shard again")
        name = header[:100].rstrip(b"\0")
        size = int(header[124:136].rstrip(b" \0"), 8)
        return name.decode("ascii", "replace"), size

    def _check_end(self, offset: int) -> None:
        """After the last sample come two blocks of zeros or more, and nothing else."""
        size = os.fstat(self._file.fileno()).st_size
        if size < offset + 2 * TAR_BLOCK_BYTES:
            raise DatasetError(f"{self.path}: cut off after its last sample; make this shard again")
        while offset < size:
            block = os.pread(self._file.fileno(), 1 << 20, offset)
            if not block or any(block):
                raise DatasetError(f"{self.path}: has data after its end; make this shard again")
            offset += len(block)


def padded(size: int) -> int:
    """The bytes that a member's content takes in a tar."""
    return -(-size // TAR_BLOCK_BYTES) * TAR_BLOCK_BYTES


def _is_plain_header(header: bytes) -> bool:
    """Whether it is that of a regular file in the plain format, with the right checksum."""
    stored = header[148:156].rstrip(b" \0")
    if header[257:263] != b"ustar\0" or header[156:157] not in (b"0", b"\0") or any(header[345:500]):
        return False
    if not stored.isdigit() or not header[124:136].rstrip(b" \0").isdigit():
        return False
    try:
        return int(stored, 8) == sum(header) - sum(header[148:156]) + 8 * ord(" ")
    except ValueError:
        return False
