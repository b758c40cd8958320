"""A large JSON file, one member of its object or one item of its list at a time."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import JsonValue

_READ_CHARACTERS = 1 << 20
# One member of a file, and so what is in memory at a time.
_MOST_CHARACTERS = 1 << 28
# A value that is cut off fails within so many characters of the end: the longest are \uXXXX\uXXXX.
_CUT_OFF_CHARACTERS = 16


def json_entries(path: Path) -> Iterator[tuple[str | None, JsonValue]]:
    """(name, value) of each member of the object in a file, or (None, item) of each of its list, in order.

    One value of 256 MB at most is in memory at a time.

    Raises:
        ValueError: it is no JSON, at the place where that shows, or neither an object nor a list.
        OSError: it cannot be read.
    """
    with path.open(encoding="utf-8-sig") as file:
        text = _Text(file.read)
        opening = text.next_character()
        if opening not in ("{", "["):
            raise ValueError("is neither an object nor a list" if opening else "is empty")
        closing = "}" if opening == "{" else "]"
        if not text.skip(closing):
            while True:
                name = text.name() if closing == "}" else None
                yield name, text.value()
                if text.skip(closing):
                    break
                text.require(",")
        if text.next_character():
            raise ValueError("more follows after its end")


class _Text:
    """The characters of a file from a place on; read on as they are needed."""

    def __init__(self, read: Callable[[int], str]) -> None:
        self._read = read
        self._text, self._at, self._is_all = "", 0, False
        self._decode = json.JSONDecoder().raw_decode

    def next_character(self) -> str:
        """The next character that is no white space, which is then behind; "" at the end of the file."""
        while True:
            rest = self._text[self._at : self._at + 1]
            if not rest:
                if self._is_all:
                    return ""
                self._read_on(_READ_CHARACTERS)
                continue
            self._at += 1
            if not rest.isspace():
                return rest

    def skip(self, wanted: str) -> bool:
        """Whether the next character is that one, which is then behind."""
        found = self.next_character()
        if found and found != wanted:
            self._at -= 1
        return found == wanted

    def require(self, wanted: str) -> None:
        """Raises ValueError: the next character is another one."""
        found = self.next_character()
        if found != wanted:
            raise ValueError(f"has no {wanted!r} where one must be" if found else "ends too early")

    def name(self) -> str:
        """The name of a member, and the colon."""
        if self.next_character() != '"':
            raise ValueError("has a member without a name")
        self._at -= 1
        name = str(self.value())
        self.require(":")
        return name

    def value(self) -> JsonValue:
        if self.next_character():
            self._at -= 1
        size = _READ_CHARACTERS
        while True:
            try:
                value, end = self._decode(self._text, self._at)
                # Of 1.5e+3 there may be no more than 1.5e+ yet, of which 1.5 is decoded.
                if end < len(self._text) - _CUT_OFF_CHARACTERS or self._is_all:
                    self._at = end
                    return value
            except RecursionError as error:
                raise ValueError(str(error)) from error
            except json.JSONDecodeError as error:
                is_cut_off = error.msg.startswith("Unterminated") or (
                    error.pos > len(self._text) - _CUT_OFF_CHARACTERS
                )
                if self._is_all or not is_cut_off:
                    raise ValueError(f"{error.msg}, where it reads {_shown(error.doc, error.pos)}") from error
            if len(self._text) - self._at > _MOST_CHARACTERS:
                raise ValueError(f"a value is longer than {_MOST_CHARACTERS:,} characters")
            self._read_on(size)
            size *= 2  # what was decoded in vain is then at most as much as there is

    def _read_on(self, size: int) -> None:
        more = self._read(size)
        self._is_all = not more
        self._text = self._text[self._at :] + more
        self._at = 0


def _shown(text: str, at: int) -> str:
    return ascii(text[at : at + 20]) if at < len(text) else "nothing more"
