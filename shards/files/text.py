"""Files of JSON: one value, or one a line. What the values must be is for the readers to say."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import JsonValue

from clipvip.shards.files.places import at_hand
from clipvip.shards.files.stores import Location

_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class JsonLine:
    """A line, numbered from 1, that begins at byte `at`, and its value; `problem` says why it has none."""

    number: int
    at: int
    value: JsonValue = None
    problem: str = ""


def json_lines(path: Location) -> Iterator[JsonLine]:
    """The lines of a file but for blank ones, however large it is."""
    end = 0
    with at_hand(path) as local, local.open("rb", buffering=_READ_BYTES) as file:
        for number, raw in enumerate(file, start=1):
            at, end = end, end + len(raw)
            if not raw.strip():
                continue
            try:
                line = JsonLine(number, at, parse_json(raw.decode("utf-8-sig")))
            except ValueError as error:
                line = JsonLine(number, at, problem=str(error))
            yield line


def parse_json(data: bytes | str) -> JsonValue:
    """The value that `data` holds. ValueError: it is no JSON, or nested too deeply."""
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError(str(error)) from error


def kind_of(value: JsonValue) -> str:
    """What a value is, in words.

    >>> kind_of({}), kind_of([]), kind_of([1]), kind_of(2.5)
    ('an object', 'an empty list', 'a list', 'a number')
    """
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return "an object" if isinstance(value, dict) else "a text" if isinstance(value, str) else "a number"


def parse_object(data: bytes | str) -> dict[str, JsonValue]:
    """The names and values that `data` holds. Raises ValueError where it holds something else."""
    value = parse_json(data)
    if isinstance(value, dict):
        return value
    raise ValueError("no JSON object")
