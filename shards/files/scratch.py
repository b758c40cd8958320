"""A file of this process alone, for what is too much to hold in memory. It ends with the process."""

import errno
import os
import tempfile
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

from clipvip.shards.files.atomic import naming

_BUFFER_BYTES = 1 << 20
_LINE_BYTES = 1 << 9


class ScratchFile:
    """Bytes that are appended, and read from any place; on the disk only where they are more than a megabyte.

    The disk is that of `folder`, else of TMPDIR. The file has no name there, and is gone with the object.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._fd: int | None = None
        self._written = 0
        self._buffer = bytearray()

    def __len__(self) -> int:
        return self._written + len(self._buffer)

    def append(self, data: bytes) -> int:
        """Write at the end; the place where `data` begins. OSError, naming the folder: the disk is full."""
        at = len(self)
        self._buffer += data
        if len(self._buffer) >= _BUFFER_BYTES:
            self._flush()
        return at

    def read(self, at: int, num_bytes: int) -> bytes:
        """What stands there; less where it ends before."""
        data = b""
        if self._fd is not None and at < self._written:
            data = os.pread(self._fd, num_bytes, at)
            if len(data) == num_bytes:
                return data
        first = at + len(data) - self._written
        return data + self._buffer[first : first + num_bytes - len(data)]

    def line_at(self, at: int) -> bytes:
        """From there to the end of the line."""
        return line_at(self.read, at)

    def lines(self) -> Iterator[bytes]:
        """All lines in order."""
        at, rest = 0, b""
        while block := self.read(at, _BUFFER_BYTES):
            at += len(block)
            *whole, rest = (rest + block).split(b"\n")
            yield from whole
        if rest:
            yield rest

    def _flush(self) -> None:
        folder = self._folder or _temporary_folder()
        with naming(folder):
            if self._fd is None:
                with tempfile.TemporaryFile(dir=folder) as file:
                    self._fd = os.dup(file.fileno())
                weakref.finalize(self, os.close, self._fd)
            with memoryview(self._buffer) as view:
                done = 0
                while done < len(view):
                    done += os.pwrite(self._fd, view[done:], self._written + done)
        self._written += len(self._buffer)
        self._buffer = bytearray()


def line_at(read: Callable[[int, int], bytes], at: int) -> bytes:
    """The line that begins at byte `at`, without its end; `read` gives so many bytes from a place."""
    pieces, num_bytes = [], _LINE_BYTES
    while piece := read(at, num_bytes):
        end = piece.find(b"\n")
        if end >= 0:
            pieces.append(piece[:end])
            break
        pieces.append(piece)
        at += len(piece)
        num_bytes *= 2
    return b"".join(pieces)


def _temporary_folder() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:  # it tries each by writing a few bytes
        folder = os.environ.get("TMPDIR", "/tmp")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), folder) from error
