"""Samples that are bad in one way each, and tars whose headers are, made by code."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

from clipvip.media.jpeg import encode_jpeg
from make_shards import stored_clip
from mutate_shards import header, with_checksum


def members_of(number: int) -> dict[str, bytes]:
    """The members of a good clip, by extension."""
    stored = stored_clip("bad", number, num_frames=3)
    return {
        "json": json.dumps(stored.record.as_dict()).encode(),
        "txt": stored.record.subtitle.encode(),
        "mjpg": stored.pixels,
    }


def with_record(members: dict[str, bytes], **changes: Any) -> dict[str, bytes]:
    return members | {"json": json.dumps(json.loads(members["json"]) | changes).encode()}


def claiming(members: dict[str, bytes], width: int, height: int) -> dict[str, bytes]:
    """The clip's first JPEG claims another size in its header."""
    data = members["mjpg"]
    place = data.index(b"\xff\xc0") + 5
    size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return members | {"mjpg": data[:place] + size + data[place + 4 :]}


def _of_two_sizes(members: dict[str, bytes]) -> dict[str, bytes]:
    small = encode_jpeg(stored_frame(16, 24))
    lengths = json.loads(members["json"])["frame_bytes"]
    pixels = members["mjpg"][: -lengths[-1]] + small
    return with_record(members, frame_bytes=[*lengths[:-1], len(small)]) | {"mjpg": pixels}


def stored_frame(height: int, width: int) -> Any:
    import numpy as np

    return np.zeros((height, width, 3), np.uint8)


def bad_samples() -> dict[str, dict[str, bytes]]:
    """What is wrong -> the members of such a clip."""
    ways = [
        ("deep json", lambda m: m | {"json": b'{"a":' * 100_000}),
        ("cut json", lambda m: m | {"json": m["json"][:50]}),
        ("json in another encoding", lambda m: m | {"json": m["json"].decode().encode("utf-16")}),
        ("json is a list", lambda m: m | {"json": b"[1, 2]"}),
        ("empty json", lambda m: m | {"json": b""}),
        ("another key", lambda m: with_record(m, key="bad_00077")),
        ("no width", lambda m: with_record(m, width=None)),
        ("width in words", lambda m: with_record(m, width="48")),
        ("huge width", lambda m: with_record(m, width=10**400)),
        ("seconds that are none", lambda m: with_record(m, frame_seconds=[float("nan")] * 3)),
        ("subtitle is a list", lambda m: with_record(m, subtitle=["a"])),
        ("lengths that are wrong", lambda m: with_record(m, frame_bytes=[1, 1, len(m["mjpg"]) - 2])),
        ("lengths below zero", lambda m: with_record(m, frame_bytes=[-1, 1, len(m["mjpg"])])),
        ("two sizes", _of_two_sizes),
        ("bomb", lambda m: claiming(m, 65_500, 65_500)),
        ("bomb that its record knows of", lambda m: with_record(claiming(m, 65_500, 65_500),
            width=65_500, height=65_500)),
        ("smaller bomb", lambda m: with_record(claiming(m, 8_000, 8_000), width=8_000, height=8_000)),
        ("no pixels", lambda m: m | {"mjpg": b""}),
        ("pixels of junk", lambda m: m | {"mjpg": m["mjpg"][::-1]}),
        ("video of junk", lambda m: with_record({n: m[n] for n in ("json", "txt")} | {"mp4": m["mjpg"]},
            frame_bytes=[])),
        ("a class and no pixels", lambda m: {"json": m["json"], "txt": m["txt"], "cls": b"3"}),
    ]  # fmt: skip
    return {name: change(members_of(number)) for number, (name, change) in enumerate(ways)}


def write_members(path: Path, samples: list[dict[str, bytes]], *, linked: int | None = None) -> Path:
    """A tar of clips bad_00000 ... of these members; the text of number `linked` is a link to nowhere."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, members in enumerate(samples):
            for extension, data in members.items():
                info = tarfile.TarInfo(f"bad_{number:05d}.{extension}")
                if number == linked and extension == "txt":
                    info.type, info.linkname = tarfile.SYMTYPE, "/nowhere/at/all.txt"
                    tar.addfile(info)
                else:
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return path


def damaged_tars(data: bytes, place: int) -> dict[str, bytes]:
    """What is wrong -> a tar whose second clip, its first header being at `place`, cannot be read."""

    def field(start: int, value: bytes) -> bytes:
        changed = data[place : place + start] + value + data[place + start + len(value) : place + 512]
        return data[:place] + with_checksum(changed) + data[place + 512 :]

    def before(kind: bytes, content: bytes, size: bytes | None = None) -> bytes:
        block = header(b"extended", kind, size or b"%011o\0" % len(content))
        return data[:place] + block + content.ljust(-(-len(content) // 512) * 512, b"\0") + data[place:]

    return {
        "size below zero": field(124, b"\xff" * 12),
        "size with a sign": field(124, b"-0000000001\0"),
        "size not octal": field(124, b"99999999999\0"),
        "size huge": field(124, b"\x80" + b"\xff" * 11),
        "size of the file": field(124, b"77777777777\0"),
        "bit flipped": data[: place + 124] + bytes([data[place + 124] ^ 1]) + data[place + 125 :],
        "cut off": data[: place + 700],
        "cut off in a header": data[: place + 100],
        "cut off at a header": data[:place],
        "zeros": data[:place] + bytes(2048) + data[place + 2048 :],
        "pax size of junk": before(b"x", b"12 size=abc\n"),
        "pax size huge": before(b"x", b"29 size=99999999999999999999\n"),
        "sparse without end": before(b"S", b"", b"77777777777\0"),
        "pax of junk": before(b"x", b"junk"),
        "pax of another name": before(b"x", b"19 path=../bad.json\n"),
        "pax of a gigabyte": before(b"x", b"", b"07777777777\0"),
        "long name without end": before(b"L", b"", b"77777777777\0"),
        "sparse": field(156, b"S"),
        "link": field(156, b"1"),
        "device": field(156, b"3"),
        "unknown kind": field(156, b"\xff"),
    }
