"""A text file that lists clips: one key, or one video id, a line."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from clipvip.media.errors import one_line
from clipvip.shards.errors import DatasetError
from clipvip.shards.files.atomic import atomic_path
from clipvip.shards.files.hashes import key_hash, key_hashes
from clipvip.shards.files.names import spellings
from clipvip.shards.files.places import at_hand, is_file
from clipvip.shards.files.stores import Location
from clipvip.shards.format.clip import make_key, video_of_key
from clipvip.shards.sources.text_files import text_lines
from clipvip.shards.tar.foreign import is_foreign_key


class KeyList:
    """Keys or video ids that a file lists, as hashes: 9 bytes each in memory.

    Raises:
        DatasetError: there is no such file, it lists nothing, or a line that no clip or video can have.
    """

    def __init__(self, path: Location, *, by_video: bool = False) -> None:
        if not is_file(path):
            raise DatasetError(f"{path}: no such file; give a text file with one key or id a line")
        self.path, self._by_video = path, by_video
        try:
            hashed = key_hashes(key for text in self._lines() for key in self._keys(text))
        except DatasetError as error:
            raise DatasetError(f"{path}: {one_line(error)}; give one key or id a line") from error
        self._hashes = np.unique(hashed)
        self._found = np.zeros(len(self._hashes), bool)
        if not len(self._hashes):
            raise DatasetError(f"{path}: lists nothing; give one key or id a line")

    def _lines(self) -> Iterator[str]:
        """The lines that are not blank."""
        with at_hand(self.path) as local, local.open("rb") as file:
            yield from filter(None, map(str.strip, text_lines(file, self.path)))

    def _keys(self, text: str) -> list[str]:
        """The key, or what keys have of the video, of which each spelling has its own.

        A DatasetError where no clip or video can have it.
        """
        if self._by_video:
            return [video_of_key(make_key(name, 0)) for name in spellings(text)]
        if not is_foreign_key(text):
            raise DatasetError(f"{text[:80]!r} is no key")
        return [text]

    def choose(self, hashes: np.ndarray) -> np.ndarray:
        """Which of the hashes of keys (or of videos) are listed, bool; remembers them as found."""
        places = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        is_listed: np.ndarray = self._hashes[places] == hashes
        self._found[places[is_listed]] = True
        return is_listed

    def not_found(self) -> tuple[int, Sequence[str]]:
        """How many of the listed no `choose` has seen, and the first of them."""
        not_seen = {int(value) for value in self._hashes[~self._found]}
        missing: set[int] = set()
        examples: list[str] = []
        for text in self._lines() if not_seen else ():
            hashes = [key_hash(key) for key in self._keys(text)]
            if not not_seen.issuperset(hashes):
                continue
            if len(examples) < 3 and missing.isdisjoint(hashes):
                examples.append(text)
            missing.add(min(hashes))
        return len(missing), examples

    def told_missing(self) -> str:
        """`not_found` in words; empty where all are there."""
        missing, examples = self.not_found()
        names = ", ".join(ascii(example)[:80] for example in examples) + (" …" if missing > 3 else "")
        return f"listed keys or ids without a clip here: {missing:,} ({names})" if missing else ""


def write_key_list(path: Location, keys: Iterable[str]) -> int:
    """Write keys, one a line, all or nothing; returns how many there are."""
    count = 0
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for key in keys:
            file.write(f"{key}\n")
            count += 1
    return count
