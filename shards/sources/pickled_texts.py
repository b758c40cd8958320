"""Read pickled texts, and lists and dicts of them, without unpickling: nothing is imported or called.

Only operations that put up plain values are known; what else a pickle asks for is refused by name.
"""

import pickletools
import re
from collections.abc import Callable
from typing import Any

_NOT_PLAIN = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_VALUES = {
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1",
    "FLOAT", "BINFLOAT",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_PUTS, _GETS = {"PUT", "BINPUT", "LONG_BINPUT"}, {"GET", "BINGET", "LONG_BINGET"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class RefusedPickle(Exception):
    """A pickle asks for more than plain values, as one does that runs code."""


def is_pickled(data: bytes) -> bool:
    """Whether bytes are a pickle, of any protocol, rather than text; a text of one line never is."""
    if data[:1] == b"\x80":
        return True
    if not _NOT_PLAIN.search(data):
        return False
    try:
        for _, _, position in pickletools.genops(data):
            end = position
    except ValueError:
        return False
    return end == len(data) - 1


def read_pickled(data: bytes) -> Any:
    """The texts, numbers, lists, tuples and dicts that the pickle `data` holds.

    Raises:
        RefusedPickle: it has an operation that makes something else.
        ValueError: it is cut off or damaged.
    """
    stack = _Stack()
    try:
        for operation, argument, _ in pickletools.genops(data):
            if operation.name == "STOP":
                return stack.pop()
            stack.do(operation.name, argument)
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a pickle whose parts do not go together ({error})") from error
    raise ValueError("a pickle without an end")


class _Stack:
    """The values that a pickle has put up so far."""

    def __init__(self) -> None:
        self._values: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def pop(self) -> Any:
        return self._values.pop()

    def do(self, name: str, argument: Any) -> None:
        """One operation, by its name in `pickletools`."""
        if name in _VALUES:
            self._values.append(argument)
        elif name in _CONSTANTS:
            self._values.append(_CONSTANTS[name])
        elif name in _PUTS:
            self._memo[int(argument)] = self._values[-1]
        elif name in _GETS:
            self._values.append(self._memo[int(argument)])
        elif name in _TUPLES:
            count = _TUPLES[name]
            if count > len(self._values):
                raise IndexError("too few values")
            self._values[-count:] = [tuple(self._values[-count:])]
        elif name in _OPERATIONS:
            _OPERATIONS[name](self)
        elif name not in ("PROTO", "FRAME"):
            shown = f" {argument}" if isinstance(argument, str) else ""
            raise RefusedPickle(f"asks for {name}{shown}"[:200])

    def _from_mark(self) -> list[Any]:
        """Take what was put up since the last mark."""
        mark = self._marks.pop()
        values = self._values[mark:]
        del self._values[mark:]
        return values

    def _mark(self) -> None:
        self._marks.append(len(self._values))

    def _memoize(self) -> None:
        self._memo[len(self._memo)] = self._values[-1]

    def _append(self) -> None:
        value = self.pop()
        self._list().append(value)

    def _appends(self) -> None:
        values = self._from_mark()
        self._list().extend(values)

    def _set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self._dict()[key] = value

    def _set_items(self) -> None:
        values = self._from_mark()
        self._dict().update(_pairs(values))

    def _list(self) -> list[Any]:
        if not isinstance(self._values[-1], list):
            raise TypeError("no list to append to")
        return self._values[-1]

    def _dict(self) -> dict[Any, Any]:
        if not isinstance(self._values[-1], dict):
            raise TypeError("no dict to add to")
        return self._values[-1]


def _pairs(values: list[Any]) -> dict[Any, Any]:
    return dict(zip(values[::2], values[1::2], strict=True))


_OPERATIONS: dict[str, Callable[[_Stack], None]] = {
    "MARK": _Stack._mark,
    "MEMOIZE": _Stack._memoize,
    "APPEND": _Stack._append,
    "APPENDS": _Stack._appends,
    "SETITEM": _Stack._set_item,
    "SETITEMS": _Stack._set_items,
    "EMPTY_LIST": lambda stack: stack._values.append([]),
    "EMPTY_DICT": lambda stack: stack._values.append({}),
    "EMPTY_TUPLE": lambda stack: stack._values.append(()),
    "LIST": lambda stack: stack._values.append(stack._from_mark()),
    "TUPLE": lambda stack: stack._values.append(tuple(stack._from_mark())),
    "DICT": lambda stack: stack._values.append(_pairs(stack._from_mark())),
}
