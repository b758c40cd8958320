"""What names a video or clip in lists, tables and folders: texts, of which some are one name."""

import unicodedata

from pydantic import JsonValue

# Above it, floating-point numbers skip some integers.
_MOST_WHOLE = 2**53


def same_name(name: str) -> str:
    """Equal for two spellings of a name: Unicode has two for "é", and old disks of macOS the rarer one."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def spellings(name: str) -> list[str]:
    """The spellings of a name, itself first: keys are made of one of them."""
    forms = [name] if name.isascii() else [name, *(unicodedata.normalize(f, name) for f in ("NFC", "NFD"))]
    return list(dict.fromkeys(forms))


def id_of(value: JsonValue) -> JsonValue:
    """An id that is a whole number as its digits, also where pandas made 123.0 of it; all else as it is."""
    if isinstance(value, float) and value.is_integer() and abs(value) < _MOST_WHOLE:
        value = int(value)
    return str(value) if type(value) is int else value
