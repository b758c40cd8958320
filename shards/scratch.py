"""A file of this process alone, for what is too much to hold in memory. Nothing of it outlives the process."""

import os
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path

from clipvip.shards.atomic import naming

_BUFFER_BYTES = 1 << 20
_LINE_BYTES = 1 << 9


class ScratchFile:
    """Bytes that are appended, and read from any place. It has no name on the disk, and is gone with the object.

    `folder` says on which disk it is, else it is where temporary files are (TMPDIR).
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or Path(tempfile.gettempdir())
        self._buffer = bytearray()
        self._written = 0
        with naming(self._folder), tempfile.TemporaryFile(dir=self._folder) as file:
            self._fd = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._fd)

    def __len__(self) -> int:
        return self._written + len(self._buffer)

    def append(self, data: bytes) -> int:
        """Write at the end; the place where `data` begins.

        Raises:
            OSError: no room; it names the folder. So of the others.
        """
        at = len(self)
        self._buffer += data
        if len(self._buffer) >= _BUFFER_BYTES:
            self._flush()
        return at

    def write_at(self, at: int, data: bytes) -> None:
        """Write at a place, which may lie behind the end."""
        self._flush()
        self._write(at, data)
        self._written = max(self._written, at + len(data))

    def read(self, at: int, num_bytes: int) -> bytes:
        """What stands there; less where the file ends before."""
        self._flush()
        return os.pread(self._fd, num_bytes, at)

    def line_at(self, at: int) -> bytes:
        """From there to the end of the line."""
        self._flush()
        return line_at(self._fd, at)

    def lines(self) -> Iterator[bytes]:
        """All lines in order."""
        at = 0
        rest = b""
        while block := self.read(at, _BUFFER_BYTES):
            at += len(block)
            *whole, rest = (rest + block).split(b"\n")
            yield from whole
        if rest:
            yield rest

    def _flush(self) -> None:
        if self._buffer:
            self._write(self._written, self._buffer)
            self._written += len(self._buffer)
            self._buffer = bytearray()

    def _write(self, at: int, data: bytes | bytearray) -> None:
        with naming(self._folder):
            view = memoryview(data)
            while view:
                num_bytes = os.pwrite(self._fd, view, at)
                at, view = at + num_bytes, view[num_bytes:]


def line_at(fd: int, at: int) -> bytes:
    """The line that begins at byte `at` of an open file, without its end."""
    pieces, num_bytes = [], _LINE_BYTES
    while piece := os.pread(fd, num_bytes, at):
        end = piece.find(b"\n")
        if end >= 0:
            pieces.append(piece[:end])
            break
        pieces.append(piece)
        at += len(piece)
        num_bytes *= 2
    return b"".join(pieces)
