"""The lines of text files that others made (tables, lists, corpora), in whatever encoding they were saved.

How an encoding is found is said in `subtitle_encoding`; here that is done for files of any length, of which
some lines may be in another encoding than the rest.
"""

import io
import re
import warnings
from collections.abc import Iterator
from typing import BinaryIO

from clipvip.shards.errors import TextEncodingWarning
from clipvip.shards.files.stores import Location
from clipvip.shards.sources.subtitle_encoding import Guess, encoding_told, guess_encoding, is_damaged_utf8

_HEAD_BYTES = 1 << 16
# Of lines that are no UTF-8 so many are gathered for the guess, from so much of the file.
_SAMPLE_BYTES = 1 << 16
_SEARCHED_BYTES = 1 << 24
_OLD_MAC_LINE = re.compile(r"(?<=\r)(?!\n)")


def text_lines(file: BinaryIO, path: Location) -> Iterator[str]:
    """The lines of `file` from its beginning, with their endings, read as they are asked for.

    A TextEncodingWarning that names `path` tells an encoding that was guessed, and damage.
    """
    told = encoding_told(file.read(_HEAD_BYTES))
    file.seek(told.num_mark_bytes)
    if told.encoding not in (None, "utf-8"):
        yield from io.TextIOWrapper(file, encoding=told.encoding, errors="replace", newline="")
        return
    decoder = _Decoder(file, path)
    for line in file:
        try:
            text = line.decode()
        except UnicodeDecodeError:
            text = decoder.decode(line)
        if "\r" not in text or text.find("\r") == len(text) - 2:
            yield text
        else:
            yield from _OLD_MAC_LINE.split(text)


class _Decoder:
    """Lines that are no UTF-8 -> text, in the one encoding that is guessed for all of them."""

    def __init__(self, file: BinaryIO, path: Location) -> None:
        self._file, self._path = file, path
        self._guess: Guess | None = None

    def decode(self, line: bytes) -> str:
        if is_damaged_utf8(line):
            self._tell("characters that are damaged, or not UTF-8")
            return line.decode("utf-8", "replace")
        if self._guess is None:
            self._guess = guess_encoding(self._sample(line))
            if self._guess.doubt:
                self._tell(f"{self._guess.doubt}; if that is wrong, save the file as UTF-8")
        return line.decode(self._guess.encoding, "replace")

    def _sample(self, first: bytes) -> bytes:
        """The first line that is no UTF-8, and such as follow."""
        place, found, size, searched = self._file.tell(), [first], len(first), 0
        while size < _SAMPLE_BYTES and searched < _SEARCHED_BYTES and (line := self._file.readline()):
            searched += len(line)
            if not _is_utf8(line):
                found.append(line)
                size += len(line)
        self._file.seek(place)
        return b"\n".join(found)

    def _tell(self, what: str) -> None:
        warnings.warn(f"{self._path}: {what}", TextEncodingWarning, stacklevel=2)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True
