"""Where each sample of a tar file lies, by its headers and not the pixels: the one index of shards."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from clipvip.shards.errors import DatasetError
from clipvip.shards.files.places import location_of, open_file
from clipvip.shards.files.stores import Location
from clipvip.shards.format.clip import FRAMES_EXTENSION, VIDEO_EXTENSION
from clipvip.shards.tar.headers import Member, TarDamage, iter_members

PIXEL_EXTENSIONS = (FRAMES_EXTENSION, VIDEO_EXTENSION)
IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
FOREIGN_EXTENSIONS = (VIDEO_EXTENSION, *IMAGE_EXTENSIONS)
# One read gives a sample's record, its text and the header of its pixels.
_WINDOW_BYTES = 8192
_MAX_SHOWN_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class SampleSpan:
    """One sample's place in a tar: bytes [start, end) with headers; extension -> (offset, length).

    `problem` names a member whose content is not to be had, such as a link, and says why; it is empty for a
    sample that can be read. The key holds the folder, if there is any.
    """

    key: str
    start: int
    end: int
    members: dict[str, tuple[int, int]]
    problem: str = ""

    @property
    def extension(self) -> str | None:
        """The pixels' extension; None where the members are not those that clipvip writes, in their order."""
        names = list(self.members)
        right = names[:2] == ["json", "txt"] and names[2:] in ([FRAMES_EXTENSION], [VIDEO_EXTENSION])
        return names[2] if right and not self.problem else None

    @property
    def shown_key(self) -> str:
        """The key for messages and reports, which is not too long for them."""
        return self.key[:_MAX_SHOWN_CHARACTERS]

    def first_of(self, extensions: tuple[str, ...]) -> str | None:
        """The first of the extensions that the sample has."""
        return next((name for name in extensions if name in self.members), None)

    @property
    def foreign_extension(self) -> str | None:
        """The extension of the pixels, where this may be a sample of others; what it says has to be read."""
        may_be = not self.problem and FRAMES_EXTENSION not in self.members
        has_words = "txt" in self.members or "json" in self.members
        return self.first_of(FOREIGN_EXTENSIONS) if may_be and has_words else None


class ShardFile:
    """An open tar file. Use it in a `with`, or `close` it; threads and forks may read from it at once."""

    def __init__(self, path: Location | str) -> None:
        """DatasetError: it cannot be opened, or is no file."""
        self.path = location_of(path)
        try:
            if isinstance(self.path, Path) and not self.path.is_file():
                raise DatasetError(f"{path}: no such shard")
            self._file = open_file(self.path)
        except FileNotFoundError as error:
            raise DatasetError(f"{path}: no such shard") from error
        except OSError as error:
            raise DatasetError(f"{path}: cannot be read ({error.strerror or error})") from error
        # (offset, bytes) in one, so that threads see them change together.
        self._window = (0, b"")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def shared_name(self) -> str:
        """A path by which other processes of this user open the file while it is open here (Linux)."""
        return f"/proc/{os.getpid()}/fd/{self._file.fileno()}"

    @property
    def num_bytes(self) -> int:
        """The size of the file."""
        return os.fstat(self._file.fileno()).st_size

    def spans(self) -> Iterator[SampleSpan]:
        """The samples in their order; members next to each other with one name up to the first dot are one.

        Raises:
            DatasetError: the tar is damaged or ends early; the message says where. The samples that are whole
                before that place have been yielded.
        """
        key, group = "", dict[str, Member]()
        damage: TarDamage | None = None
        try:
            for member in iter_members(self._bytes_at, self.num_bytes):
                stem, extension = split_name(member.name)
                if group and (stem != key or extension in group):
                    yield _span(key, group)
                    group = {}
                key = stem
                group[extension] = member
        except TarDamage as error:
            damage = error
        # Where the tar breaks off, what has no pixels yet is half a sample.
        if group and (damage is None or not group.keys().isdisjoint(PIXEL_EXTENSIONS + IMAGE_EXTENSIONS)):
            yield _span(key, group)
        if damage is not None:
            raise DatasetError(
                f"{self.path}: not a readable tar file ({damage}); make this shard again"
            ) from damage

    def index(self) -> tuple[list[SampleSpan], str]:
        """All samples up to the damage, and what the damage is; "" where there is none."""
        spans: list[SampleSpan] = []
        try:
            spans.extend(self.spans())
        except DatasetError as error:
            return spans, str(error)
        return spans, ""

    def read(self, span: SampleSpan, extension: str) -> bytes:
        """A member's content. DatasetError: the file is shorter now. OSError: the disk fails."""
        offset, length = span.members[extension]
        return self._bytes_at(offset, length)

    def read_span(self, span: SampleSpan) -> bytes:
        """All bytes of a sample as they stand in the tar, headers and padding with them. Raises as `read`."""
        return self._bytes_at(span.start, span.end - span.start)

    def _bytes_at(self, offset: int, length: int) -> bytes:
        start, window = self._window
        begin = offset - start
        if begin >= 0 and begin + length <= len(window):
            return window[begin : begin + length]
        if length > _WINDOW_BYTES:
            data = self._pread(length, offset)
        else:
            window = self._pread(_WINDOW_BYTES, offset)
            self._window, data = (offset, window), window[:length]
        if len(data) < length:
            raise DatasetError(f"{self.path}: ends in the middle of a sample; make this shard again")
        return data

    def _pread(self, length: int, offset: int) -> bytes:
        try:
            return os.pread(self._file.fileno(), length, offset)
        except OSError as error:
            # The disk's fault, which may pass, and not the sample's.
            raise OSError(error.errno, error.strerror, str(self.path)) from error


def split_name(name: str) -> tuple[str, str]:
    """A member's key, with its folder, and extension: parted at the first dot, as WebDataset does."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension.lower()


def _span(key: str, group: dict[str, Member]) -> SampleSpan:
    members = list(group.values())
    problems = (
        f"KEY.{extension[:_MAX_SHOWN_CHARACTERS]} {member.problem}"
        for extension, member in group.items()
        if member.problem
    )
    places = {extension: (member.offset, member.length) for extension, member in group.items()}
    return SampleSpan(key, members[0].start, members[-1].end, places, next(problems, ""))
