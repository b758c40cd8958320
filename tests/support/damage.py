"""Damage files as disks, networks and half-finished downloads do, each variant made from its number alone.

What a stage makes of them is the tests' business. Nothing here knows a format: bytes are bytes.
"""

import os
import random
import re
from collections.abc import Callable
from pathlib import Path

# Names of boxes and tags whose numbers set sizes, times and counts: what follows them is where damage bites.
_NUMBERS_FOLLOW = re.compile(
    rb"tkhd|mvhd|mdhd|stsd|avc1|hvc1|mp4v|stts|ctts|stss|stsc|stsz|stco|elst|pasp|trun|tfhd|strh|"
    rb"strf|avih|idx1|"
    rb"\x1a\x45\xdf\xa3|\x16\x54\xae\x6b|\x2a\xd7\xb1|\x44\x89|\x54\xb0|\x54\xba"
)
_MOST_BYTES_AFTER = 90


def _region(data: bytearray, chance: random.Random) -> tuple[int, int]:
    """The header, the middle, the end (where many formats have their index), or everything."""
    size = len(data)
    regions = [(0, min(size, 1024)), (size // 3, 2 * size // 3), (max(0, size - 3000), size), (0, size)]
    return chance.choice([(start, end) for start, end in regions if start < end])


def _set_bytes(data: bytearray, chance: random.Random) -> None:
    region = _region(data, chance)
    for _ in range(chance.choice([1, 3, 10, 50, 300])):
        data[chance.randrange(*region)] = chance.randrange(256)


def _flip_bits(data: bytearray, chance: random.Random) -> None:
    region = _region(data, chance)
    for _ in range(chance.choice([1, 1, 2, 4, 100])):
        data[chance.randrange(*region)] ^= 1 << chance.randrange(8)


def _truncate(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def _zero(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(*_region(data, chance))
    end = min(len(data), start + chance.choice([16, 256, 4096, 50_000]))
    data[start:end] = bytes(end - start)


def _append(data: bytearray, chance: random.Random) -> None:
    data += chance.randbytes(chance.choice([1, 1000, 100_000]))


def _repeat_part(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data))
    data[start:start] = data[start : start + 5000]


def _lose_part(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(*_region(data, chance))
    del data[start : start + chance.choice([1, 7, 400, 10_000])]


def _extreme_number(data: bytearray, chance: random.Random) -> None:
    places = [match.start() for match in _NUMBERS_FOLLOW.finditer(data)] or [0]
    start = chance.choice(places) + chance.randrange(_MOST_BYTES_AFTER)
    width = min(chance.choice([1, 2, 4, 4, 8]), len(data) - start)
    if width > 0:
        number = chance.choice([0, 1, 3, 2 ** (4 * width), 2 ** (8 * width - 1), 2 ** (8 * width) - 1])
        data[start : start + width] = number.to_bytes(width, "big")


KINDS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _set_bytes,
    _flip_bits,
    _truncate,
    _zero,
    _append,
    _repeat_part,
    _lose_part,
    _extreme_number,
)


def damage(data: bytes, *, seed: int) -> bytes:
    """`data` with one damage, or now and then two; all kinds come in turn with `seed`."""
    chance = random.Random(seed)
    damaged = bytearray(data)
    KINDS[seed % len(KINDS)](damaged, chance)
    if damaged and chance.random() < 0.25:
        chance.choice(KINDS)(damaged, chance)
    return bytes(damaged)


def put_no_file(path: Path, number: int) -> str:
    """Put at `path` what is no readable file; returns what it is. All kinds come in turn with `number`."""
    kinds = {
        "empty": lambda: path.touch(),
        "folder": lambda: path.mkdir(),
        "pipe": lambda: os.mkfifo(path),
        "dangling link": lambda: path.symlink_to("nothing"),
        "circular link": lambda: path.symlink_to(path.name),
        "read error": lambda: path.symlink_to("/proc/self/mem"),  # opens, and fails to read
        "zeros": lambda: path.write_bytes(bytes(100_000)),
        "text": lambda: path.write_text("Not found. " * 200),
        "playlist": lambda: path.write_text("#EXTM3U\n#EXTINF:3,\n/etc/hostname\n#EXT-X-ENDLIST\n"),
        "script": lambda: path.write_text("ffconcat version 1.0\nfile /etc/hostname\n"),
    }
    kind = list(kinds)[number % len(kinds)]
    kinds[kind]()
    return kind
