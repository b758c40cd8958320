"""The headers of a tar file, read by hand: where each member lies, or where the file is damaged.

Knows the plain, ustar, pax and GNU formats. Every length is compared with the file's, and every header's
checksum, so that a damaged file costs neither time nor memory.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

TAR_BLOCK_BYTES = 512
# What goes before a header: a path of any system is shorter by far.
_MAX_EXTENDED_BYTES = 1 << 16
# Some writers fill a file up with zeros; of gigabytes of them only so much is looked at.
_ZEROS = bytes(1 << 20)
_MOST_ZEROS_READ = 16 << 20
_MAX_PAX_DIGITS = 20

_FILES = {b"0", b"\0", b"7"}
_FOLDER = b"5"
_WITHOUT_CONTENT = {
    b"1": "is a link",
    b"2": "is a symbolic link",
    b"3": "is a device",
    b"4": "is a device",
    b"6": "is a pipe",
}
_PAX, _PAX_OF_ALL = {b"x", b"X"}, b"g"
_GNU_NAME, _GNU_LINK, _GNU_SPARSE = b"L", b"K", b"S"

Read = Callable[[int, int], bytes]


class TarDamage(Exception):
    """The file cannot be read from here on; the message says what is wrong, and at which byte."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member that is no folder: its headers begin at `start`, its content at `offset`.

    `problem` says why the content is not to be had, as of a link; it is empty for a usual file.
    """

    name: str
    start: int
    offset: int
    length: int
    problem: str = ""

    @property
    def end(self) -> int:
        """Where the next header begins."""
        return self.offset + padded(self.length)


@dataclass(slots=True)
class _Extended:
    """What the headers before a member's own say of it."""

    name: str | None = None
    length: int | None = None
    problem: str = ""


def padded(size: int) -> int:
    """The bytes that a member's content takes in a tar."""
    return -(-size // TAR_BLOCK_BYTES) * TAR_BLOCK_BYTES


def iter_members(read: Read, num_bytes: int) -> Iterator[Member]:
    """The members of a tar of `num_bytes` that `read(offset, length)` reads, in their order, without folders.

    Raises TarDamage where a header is damaged, the file ends early, or something follows its end.
    """
    # A file under a long name is a header L, the name, a header 0 and the content: when 0 comes, `before` is
    # what L said, and `start` is still at L.
    start = offset = 0
    before = _Extended()
    while (header := _header_at(read, offset, num_bytes)) is not None:
        kind, length = header[156:157], _number(header[124:136], offset)
        content = offset + TAR_BLOCK_BYTES
        if kind in _PAX or kind in (_PAX_OF_ALL, _GNU_NAME, _GNU_LINK):
            _require_content(length, offset, num_bytes)
            _read_extended(before, kind, read, content, length)
            offset = content + padded(length)
            continue
        name = _name_of(header) if before.name is None else before.name
        problem = before.problem
        if kind == _FOLDER or (kind == b"\0" and name.endswith("/")):
            start = offset = content
            before = _Extended()
            continue
        if kind in _WITHOUT_CONTENT:
            length, problem = 0, _WITHOUT_CONTENT[kind]
        else:
            length = length if before.length is None else before.length
            if kind == _GNU_SPARSE:
                content, problem = _end_of_sparse_map(read, header, offset, num_bytes), "is a sparse file"
            elif kind not in _FILES:
                problem = problem or "is of a kind that is no file"
        _require_content(length, content - TAR_BLOCK_BYTES, num_bytes)
        yield Member(name, start, content, length, problem)
        start = offset = content + padded(length)
        before = _Extended()
    if offset != start:
        raise TarDamage(f"ends after a header that belongs to another, at byte {start}")
    _check_end(read, offset, num_bytes)


def _header_at(read: Read, offset: int, num_bytes: int) -> bytes | None:
    """The header there, its checksum being right; None at the end of the archive."""
    if offset + TAR_BLOCK_BYTES > num_bytes:
        raise TarDamage(f"cut off at byte {num_bytes}" if num_bytes else "is empty")
    header = read(offset, TAR_BLOCK_BYTES)
    if not header[0] and not any(header):
        return None
    stored, total = header[148:156], sum(header)
    expected = _number(stored, offset)
    found = total - sum(stored) + 8 * ord(" ")
    if expected != found:
        # Some old writers added signed bytes.
        num_high = sum(byte > 127 for byte in header[:148] + header[156:])
        if not num_high or expected != found - 256 * num_high:
            raise _damaged_header(offset)
    return header


def _number(field: bytes, offset: int) -> int:
    """A number that is not negative: octal digits, or in GNU's way for large ones the bytes after 0x80."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    text = field.split(b"\0", 1)[0].strip(b" ")
    if text.strip(b"01234567"):
        raise _damaged_header(offset)
    return int(text or b"0", 8)


def _damaged_header(offset: int) -> TarDamage:
    return TarDamage(f"damaged tar header at byte {offset}")


def _require_content(length: int, offset: int, num_bytes: int) -> None:
    """The content that follows the header at `offset` lies in the file."""
    if offset + TAR_BLOCK_BYTES + length > num_bytes:
        raise TarDamage(f"cut off, or damaged tar header at byte {offset}: {length:.6g} bytes should follow")


def _name_of(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
    return _text(prefix + b"/" + name if prefix else name)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _read_extended(before: _Extended, kind: bytes, read: Read, content: int, length: int) -> None:
    """Add to `before` what the extended header with `length` bytes of content says."""
    if kind in (_PAX_OF_ALL, _GNU_LINK):
        return  # nothing that a reader of files needs
    if length > _MAX_EXTENDED_BYTES:
        before.problem = f"has an extended header of {length:,} bytes"
        return
    data = read(content, length)
    if kind == _GNU_NAME:
        before.name = _text(data.split(b"\0", 1)[0])
        return
    records = _pax_records(data)
    if records is None:
        before.problem = "has a damaged pax header"
        return
    if any(keyword.startswith(b"GNU.sparse.") for keyword in records):
        before.problem = "is a sparse file"
    name = records.get(b"GNU.sparse.name", records.get(b"path"))
    if name is not None:
        before.name = _text(name)
    if (size := records.get(b"size")) is not None:
        if not size.isdigit() or len(size) > _MAX_PAX_DIGITS:
            raise _damaged_header(content - TAR_BLOCK_BYTES)
        before.length = int(size)


def _pax_records(data: bytes) -> dict[bytes, bytes] | None:
    """Keyword -> value of lines `length keyword=value`; None where they are none."""
    records: dict[bytes, bytes] = {}
    start = 0
    while start < len(data) and data[start]:
        space = data.find(b" ", start, start + _MAX_PAX_DIGITS)
        if space < 0 or not data[start:space].isdigit():
            return None
        end = start + int(data[start:space])
        keyword, equals, value = data[space + 1 : end].partition(b"=")
        if end > len(data) or not (keyword and equals and value.endswith(b"\n")):
            return None
        records[keyword] = value[:-1]
        start = end
    return records


def _end_of_sparse_map(read: Read, header: bytes, offset: int, num_bytes: int) -> int:
    """Where the content of GNU's sparse file begins, behind the blocks that continue its map."""
    content, goes_on = offset + TAR_BLOCK_BYTES, header[482]
    while goes_on:
        _require_content(0, content, num_bytes)
        goes_on = read(content, TAR_BLOCK_BYTES)[504]
        content += TAR_BLOCK_BYTES
    return content


def _check_end(read: Read, offset: int, num_bytes: int) -> None:
    """After the last member come two or more blocks of zeros: the first 16 MiB and the last are read."""
    if num_bytes < offset + 2 * TAR_BLOCK_BYTES:
        raise TarDamage(f"cut off at byte {num_bytes}, after its last sample")
    first_end = min(num_bytes, offset + _MOST_ZEROS_READ)
    last_start = max(first_end, num_bytes - len(_ZEROS))
    for start in (*range(offset, first_end, len(_ZEROS)), *range(last_start, num_bytes, len(_ZEROS))):
        end = first_end if start < first_end else num_bytes
        block = read(start, min(len(_ZEROS), end - start))
        if not _ZEROS.startswith(block):
            raise TarDamage(f"has data after its end, at byte {start} or later")
