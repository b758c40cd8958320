"""Damage of every kind to small tars and to what is in them, drawn by a seeded generator.

A mutant knows whether what is still readable in it must be as it was: not so where a payload was changed, or
a header so that its checksum is right again.
"""

import io
import json
import random
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clipvip.media.mp4 import Mp4Encoder
from clipvip.shards.tar.writer import write_shard
from make_shards import changed, stored_clip

BLOCK = 512
# Field of a header -> where it is.
FIELDS = {
    "name": (0, 100), "mode": (100, 108), "uid": (108, 116), "gid": (116, 124), "size": (124, 136),
    "mtime": (136, 148), "checksum": (148, 156), "kind": (156, 157), "link": (157, 257), "magic": (257, 265),
    "major": (329, 337), "minor": (337, 345), "prefix": (345, 500), "rest": (482, 512),
}  # fmt: skip
ABSURD = [
    b"\xff" * 12, b"\x80" + b"\xff" * 11, b"\x80" + b"\0" * 3 + b"\xff" * 8, b"\x80" + b"\0" * 11,
    b"-0000000001\0",
    b"99999999999\0", b"77777777777\0", b"00000000000\0", b"            ", b"\0" * 12, b"0x10\0", b"1_000\0",
    b"\xd9\xa1\xd9\xa2\0", b"../../x.json\0", b"/etc/x.json\0", b"+00000000012", b"1e3\0", b"00000001000\0",
]  # fmt: skip
VALUES: list[Any] = [
    None, "", "x", 0, -1, 1, 3, 10**30, 10**400, 0.5, float("nan"), float("inf"), -float("inf"), True,
    [], {}, [[]],
    [None], ["1"], [1.5], [-1], [0], [10**18], [float("nan")], "\ud800", "\x00", "9" * 5000, [1] * 1000,
    65535, 1 << 31, 1 << 63, {"a": [1]}, [[1, 2], [3]], 1e308,
]  # fmt: skip


@dataclass(frozen=True)
class Tar:
    """A tar by its name, the kind of source that it is, and its members in order."""

    name: str
    kind: str
    tar_format: int
    members: tuple[tuple[str, bytes], ...]

    def data(self) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=self.tar_format) as tar:
            for number, (name, data) in enumerate(self.members):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                if self.tar_format == tarfile.PAX_FORMAT:
                    info.mtime = number + 0.25  # which takes a pax header, as in what webdataset writes
                tar.addfile(info, io.BytesIO(data))
        return out.getvalue()


@dataclass(frozen=True)
class Mutant:
    """`must_agree`: what can be read has the bytes that it had."""

    how: str
    data: bytes
    must_agree: bool


def originals(folder: Path) -> list[Tar]:
    """Clips as frames and as videos, in each format of tar, and images."""
    frames = [stored_clip("v", number, num_frames=3) for number in range(3)]
    videos = [changed(clip, _video(clip.record.width, clip.record.height), frame_bytes=[]) for clip in frames]
    tars = []
    for name, clips in (("frames", frames), ("videos", videos)):
        write_shard(folder / f"{name}.tar", clips)
        with tarfile.open(folder / f"{name}.tar") as tar:
            members = tuple((member.name, tar.extractfile(member).read()) for member in tar)  # type: ignore[union-attr]
        for tar_format in (tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT):
            tars.append(Tar(f"{name}{tar_format}", "clips", tar_format, members))
    images = []
    for number, (extension, kind) in enumerate((("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"))):
        out = io.BytesIO()
        pixels = np.full((24, 32, 3), 40 * number, np.uint8)
        Image.fromarray(pixels).save(out, kind)
        key = f"{'folder/' * 20 * (number == 1)}image{number}"
        images += [
            (f"{key}.{extension}", out.getvalue()),
            (f"{key}.txt", b"a picture"),
            (f"{key}.json", b"{}"),
        ]
    for tar_format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        tars.append(Tar(f"images{tar_format}", "images", tar_format, tuple(images)))
    return tars


def _video(width: int, height: int) -> bytes:
    encoder = Mp4Encoder(width, height, fps=3, crf=30)
    for number in range(3):
        encoder.add(np.full((height * 3 // 2, width), 60 * number, np.uint8), number / 3)
    return encoder.finish()


def mutants(tars: list[Tar], *, seed: int, count: int) -> Iterator[tuple[Tar, Mutant]]:
    """`count` mutants; number i depends on `seed` and i alone."""
    for number in range(count):
        rng = random.Random(seed * 1_000_003 + number)
        tar = rng.choice(tars)
        mutate = rng.choice(_KINDS)
        yield tar, mutate(rng, tar)


def header_places(data: bytes) -> list[int]:
    """Where the headers of a whole tar are, the extended ones too."""
    places, offset = [], 0
    while any(data[offset : offset + BLOCK]):
        places.append(offset)
        size = int(data[offset + 124 : offset + 135], 8)
        offset += BLOCK + -(-size // BLOCK) * BLOCK
    return places


def with_checksum(header: bytes) -> bytes:
    body = header[:148] + b" " * 8 + header[156:]
    return body[:148] + b"%06o\0 " % sum(body) + body[156:]


def header(name: bytes, kind: bytes, size: bytes, link: bytes = b"") -> bytes:
    fields = name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + size.ljust(12, b"\0")
    fields += b"00000000000\0" + b" " * 8 + kind + link.ljust(100, b"\0") + b"ustar\x0000"
    return with_checksum(fields.ljust(BLOCK, b"\0"))


def _flipped_header(rng: random.Random, tar: Tar) -> Mutant:
    data = bytearray(tar.data())
    for _ in range(rng.choice((1, 1, 1, 3))):
        place = rng.choice(header_places(tar.data())) + rng.choice(
            (rng.randrange(BLOCK), rng.randrange(124, 158))
        )
        data[place] ^= 1 << rng.randrange(8)
    return Mutant("bit of a header", bytes(data), True)


def _absurd_header(rng: random.Random, tar: Tar) -> Mutant:
    data = bytearray(tar.data())
    field = rng.choice([*FIELDS, "size", "kind"])
    start, stop = FIELDS[field]
    place = rng.choice(header_places(tar.data()))
    value = rng.choice(ABSURD)
    if field == "kind":
        value = rng.choice(
            [b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"S", b"L", b"K", b"x", b"g", b"V", b"\xff", b"\0"]
        )
    value = (value + b"\0" * stop)[: stop - start]
    data[place + start : place + stop] = value
    is_right = rng.random() < 0.7
    if is_right:
        data[place : place + BLOCK] = with_checksum(bytes(data[place : place + BLOCK]))
    return Mutant(f"{field} is {value[:12]!r}, checksum {is_right}", bytes(data), not is_right)


def _extra_header(rng: random.Random, tar: Tar) -> Mutant:
    """A header before another, which says something of it, or is a member of its own."""
    data = tar.data()
    place = rng.choice(header_places(data))
    big = b"9" * rng.choice((3, 12, 19, 200))
    records = rng.choice([
        b"junk", b"\xff" * 40, b"0 a=b\n", b"-1 a=b\n", b"99999 path=x\n", b"11 size=-1\n",
        b"17 path=v_00000.\n",
        b"30 GNU.sparse.major=1\n", b"24 GNU.sparse.name=x.txt\n", b"12 path=\xff\xfe\n", b"7 path\n",
        b"\0" * 100,
        b"%d size=%s\n" % (len(big) + 9, big), b"9 size=1\n", b"15 path=v.json\n" * 2, b"1" * 600, b"",
    ])  # fmt: skip
    kind = rng.choice(
        [b"x", b"x", b"x", b"g", b"L", b"L", b"K", b"X", b"S", b"1", b"2", b"3", b"5", b"6", b"V", b"M"]
    )
    size = b"%011o\0" % len(records)
    if rng.random() < 0.3:
        size = rng.choice(ABSURD)
    block = header(
        rng.choice([b"v_00000.txt", b"./PaxHeaders/x", b"", b"v_00001.mjpg"]), kind, size[:12], b"nowhere"
    )
    if kind == b"S" and rng.random() < 0.7:
        block = with_checksum(block[:482] + b"\x01" + block[483:])
    body = records + b"\0" * (-len(records) % BLOCK)
    return Mutant(
        f"{kind!r} before a header: {records[:20]!r}", data[:place] + block + body + data[place:], False
    )


def _flipped_payload(rng: random.Random, tar: Tar) -> Mutant:
    data = bytearray(tar.data())
    headers = set(header_places(tar.data()))
    for _ in range(rng.choice((1, 2, 8, 40))):
        place = rng.randrange(len(data))
        if place // BLOCK * BLOCK not in headers:
            data[place] ^= 1 << rng.randrange(8)
    return Mutant("bits of payloads", bytes(data), False)


def _cut(rng: random.Random, tar: Tar) -> Mutant:
    data = tar.data()
    place = rng.choice(
        (rng.randrange(len(data)), rng.choice(header_places(data)) + rng.choice((0, 1, 511, 512)))
    )
    return Mutant(f"cut at {place}", data[:place], True)


def _spliced(rng: random.Random, tar: Tar) -> Mutant:
    """Blocks or bytes lost, repeated, zeroed, exchanged, or put in from elsewhere."""
    data = tar.data()
    unit = rng.choice((1, BLOCK, BLOCK))
    start, stop = sorted(rng.randrange(len(data) // unit + 1) * unit for _ in range(2))
    stop = min(stop, start + rng.choice((1, 4, 64)) * unit)
    piece, to = data[start:stop], rng.randrange(len(data) // unit + 1) * unit
    spliced = rng.choice([
        data[:start] + data[stop:], data[:to] + piece + data[to:],
        data[:start] + bytes(stop - start) + data[stop:],
        data[:start] + rng.randbytes(stop - start) + data[stop:], data + piece, data + data,
        rng.randbytes(BLOCK) + data,
        (data[:to] + piece + data[to + len(piece) :]),
    ])  # fmt: skip
    return Mutant(f"spliced {start}:{stop} to {to}", spliced, False)


def _moved_members(rng: random.Random, tar: Tar) -> Mutant:
    members = list(tar.members)
    first, second = rng.randrange(len(members)), rng.randrange(len(members))
    how = rng.randrange(5)
    if how == 0:
        members[first], members[second] = members[second], members[first]
    elif how == 1:
        members.insert(second, members[first])
    elif how == 2:
        del members[first]
    elif how == 3:
        members += members
    else:
        members[first] = (
            rng.choice(
                ["../v_00000.json", "/v_00000.json", "", "v", "._v_00000.json", "v_00000.cls", "README"]
            ),
            b"x",
        )
    return Mutant(f"members moved: {how}", replace(tar, members=tuple(members)).data(), how < 4)


def _changed_member(rng: random.Random, tar: Tar) -> Mutant:
    """A member with other content.

    Nothing, junk, a part, text of no encoding, a picture of an absurd size.
    """
    members = list(tar.members)
    number = rng.randrange(len(members))
    name, data = members[number]
    place = rng.randrange(max(len(data), 1))
    marker = data.find(b"\xff\xc0")
    changed = [
        b"",
        rng.randbytes(200),
        data[:place],
        data[place:],
        data * 2,
        data + b"\0",
        b"\xff\xfe" + data,
        b"\x80" * 9,
    ]
    changed += [
        bytes(1000),
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n" + data[8:][::-1],
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
    ]
    if marker > 0:
        size = rng.choice(
            [b"\xff\xdc\xff\xdc", b"\0\0\0\0", b"\x40\0\x40\0", b"\x20\0\x20\0", b"\0\x21\0\x30"]
        )
        changed += 4 * [data[: marker + 5] + size + data[marker + 9 :]]
    if name.endswith("png"):
        changed += 4 * [
            data[:16] + rng.choice([b"\0\0\xff\xff\0\0\xff\xff", b"\0\0\x20\0\0\0\x20\0"]) + data[24:]
        ]
    members[number] = (name, rng.choice(changed))
    return Mutant(f"other content of {name}", replace(tar, members=tuple(members)).data(), False)


def _changed_json(rng: random.Random, tar: Tar) -> Mutant:
    """A record with other values, or no record at all; what it says of the pixels may be absurd."""
    members = list(tar.members)
    number = rng.choice([n for n, (name, _) in enumerate(members) if name.endswith(".json")])
    name, data = members[number]
    record = json.loads(data)
    for _ in range(rng.choice((1, 1, 2))):
        field = rng.choice([*record, "sentences", "sentences_are", "other"])
        record[field] = rng.choice(VALUES)
    if rng.random() < 0.2 and "width" in record:
        record["width"], record["height"] = rng.choice([(65500, 65500), (8192, 8192), (1, 1), (32, 48)])
    if rng.random() < 0.2 and record.get("frame_bytes") and isinstance(record["frame_bytes"], list):
        total = sum(len(x) for n, x in members if n == name.replace("json", "mjpg"))
        record["frame_bytes"] = rng.choice([[total - 2, 1, 1], [1, 1, total - 2], [total], [total // 3] * 3])
    text = json.dumps(record)
    deep = rng.choice((50, 400, 100_000))
    encoded = rng.choice(
        [
            *[text.encode()] * 6, text[: rng.randrange(len(text))].encode(), b"[" * deep,
                b'{"a":' * deep, b"[" * deep + b"]" * deep,
            text.encode("utf-16"), text.encode() + b"}", text.replace('"', "'").encode(),
            b"\xff" + text.encode(),
            text.replace("}", ', "x": ' + "9" * 5000 + "}").encode(), b"null", b"1", b'"x"', b"NaN",
            b"\xef\xbb\xbf" + text.encode(),
            b'{"key": 1, ' + text[1:].encode(), text.replace(":", ": 1e999, ", 1).encode(),
            (text[:-1] + ', "x": 1e999}').encode(),
            (text[:-1] + ', "x": ' + "[" * 150 + "]" * 150 + "}").encode(),
        ]
    )  # fmt: skip
    members[number] = (name, encoded)
    return Mutant(f"record {encoded[:60]!r}", replace(tar, members=tuple(members)).data(), False)


_KINDS: list[Callable[[random.Random, Tar], Mutant]] = [
    _flipped_header, _absurd_header, _absurd_header, _extra_header, _flipped_payload, _cut, _spliced,
    _moved_members,
    _changed_member, _changed_json, _changed_json,
]  # fmt: skip
