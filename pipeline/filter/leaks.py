"""Which clips a test set has too: by their text, and by their embedding."""

import hashlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

from clipvip.analysis.faiss_tools import largest_products
from clipvip.analysis.text_overlap import TextIndex
from clipvip.pipeline.filter.scores import known_table
from clipvip.pipeline.filter.table import table_path, write_table
from clipvip.pipeline.filter.texts import read_texts
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.progress import Progress
from clipvip.pipeline.search.index import Piece, Shard, shards_of
from clipvip.shards.errors import DatasetError
from clipvip.shards.files.atomic import write_jsonl
from clipvip.shards.files.places import is_file, is_folder, read_whole
from clipvip.shards.files.stores import Location
from clipvip.shards.sources.text_files import text_lines

LEAKS_NAME = "leaks.jsonl"
BY_TEXTS = "texts:"
By = Literal["video", "text", "near text"]
_ORDER: tuple[By, ...] = ("video", "text", "near text")
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")


@dataclass(frozen=True, kw_only=True)
class Leak:
    """A clip that a test set has: `item` is the key of its clip, or its line.

    `similarity` is a cosine, or the part of the test set's text that the clip's has.
    """

    shard: str
    key: str
    test_set: str
    item: str
    by: By
    similarity: float
    text: str = ""
    test_text: str = ""


_PARSER = TypeAdapter(Leak)


@dataclass(frozen=True)
class TestSet:
    """A test set's texts, each with its item; the clips of one that is a folder of shards by their index."""

    __test__ = False  # for pytest
    name: str
    place: Location
    shards: Sequence[Shard]
    texts: list[str] = field(default_factory=list)
    items: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, name: str, place: Location) -> "TestSet":
        """A folder of shards, or a text file with a text a line; a UserError or DatasetError if neither."""
        if not _NAME.fullmatch(name):
            raise UserError(f"--test {name}: give a name of letters, digits, hyphens and dots")
        if is_folder(place):
            shards = shards_of(place)
            found = [clip for shard in shards for clip in read_texts(shard.path, shard.sha256, ())]
            texts = [(text, clip.key) for clip in found for text in clip.texts]
            return cls(name, place, shards, [text for text, _ in texts], [key for _, key in texts])
        if not is_file(place):
            raise UserError(f"--test {name}={place}: no such folder of shards, or file with a text a line")
        lines = text_lines(io.BytesIO(read_whole(place)), place)
        numbered = ((line.rstrip("\r\n"), f"line {number}") for number, line in enumerate(lines, start=1))
        told = [(line, item) for line, item in numbered if line.strip()]
        if not told:
            raise UserError(f"--test {name}={place}: holds no text; give a file with a text a line")
        return cls(name, place, [], [text for text, _ in told], [item for _, item in told])


@dataclass(frozen=True)
class Found:
    """What leaks are looked for by: embeddings of each shard's clips, and of each test set's.

    `made_by` stands for the embeddings of the clips (`sum_of_pieces`).
    """

    pieces: Sequence[Piece]
    of_tests: Mapping[str, Sequence[Piece]]
    made_by: str
    least: float
    use_gpu: bool


def by_embeddings(made_by: str, least: float) -> str:
    """What leaks begin with, in tables, that were found by these embeddings from this cosine on."""
    return hashlib.sha256(f"{made_by} {least!r}".encode()).hexdigest()[:16] + ":"


def require_leaks_by(
    out: Location, shards: Sequence[Shard], allowed: tuple[str, ...], otherwise: str
) -> None:
    """A UserError, which says `otherwise`, where tables have leaks that were found by something else."""
    for shard in shards:
        if not known_table(out, shard).made_of.get("leaks", BY_TEXTS).startswith(allowed):
            raise UserError(f"{out}: {otherwise}")


def mark_leaks(out: Location, shards: Sequence[Shard], tests: Sequence[TestSet], found: Found | None) -> None:
    """Write leaks.jsonl, and say in the tables of all shards which clips the test sets have.

    Without `found` only texts are compared. Nothing is done where the tables already say it of the same clips
    and test sets.
    """
    digest = hashlib.sha256()
    for test in tests:
        digest.update(repr((test.name, [s.sha256 for s in test.shards], test.texts, test.items)).encode())
    base = BY_TEXTS if found is None else by_embeddings(found.made_by, found.least)
    made_of = f"{base}{digest.hexdigest()}"
    tables = (known_table(out, shard) for shard in shards)
    if all(table.made_of.get("leaks") == made_of for table in tables) and is_file(out / LEAKS_NAME):
        return
    finder = _Finder(tests, found)
    leaks: list[Leak] = []
    with Progress("leaks", total=len(shards), unit="shards") as progress:
        for number, shard in enumerate(shards):
            leaks += finder.of_shard(number, shard)
            progress.add(1)
    write_jsonl(out / LEAKS_NAME, map(asdict, leaks))
    by_shard: dict[str, dict[str, list[Leak]]] = {}
    for leak in leaks:
        by_shard.setdefault(leak.shard, {}).setdefault(leak.key, []).append(leak)
    for shard in shards:
        table = known_table(out, shard)
        of_clips = [by_shard.get(shard.path.name, {}).get(key, []) for key in table.keys]
        columns = {
            "leak": [f"{some[0].test_set}: {some[0].item}" if some else None for some in of_clips],
            "leak_by": [
                ", ".join(by for by in _ORDER if any(leak.by == by for leak in some)) or None
                for some in of_clips
            ],
        }
        write_table(table_path(out, shard.path.stem), table.with_family("leaks", made_of, columns))


def read_leaks(out: Location) -> list[Leak]:
    """What leaks.jsonl says; a DatasetError where it is damaged."""
    path = out / LEAKS_NAME
    try:
        return [_PARSER.validate_json(line) for line in read_whole(path).splitlines()]
    except FileNotFoundError:
        return []
    except ValidationError as error:
        raise DatasetError(f"{path}: damaged; remove it and run the command again") from error


class _Finder:
    def __init__(self, tests: Sequence[TestSet], found: Found | None) -> None:
        self._tests = [(test, TextIndex(test.texts)) for test in tests]
        self._found = found
        self._vectors: dict[str, tuple[np.ndarray, list[str]]] = {}
        for name, pieces in (found.of_tests if found else {}).items():
            filled = [piece for piece in pieces if piece.keys]
            if filled:
                keys = [key for piece in filled for key in piece.keys]
                self._vectors[name] = np.concatenate([piece.vectors() for piece in filled]), keys

    def of_shard(self, number: int, shard: Shard) -> list[Leak]:
        """The leaks of a shard's clips, by video first, of each test set those in the shard's order."""
        found = list(self._by_video(number, shard)) if self._found else []
        for clip in read_texts(shard.path, shard.sha256, ()):
            for test, index in self._tests:
                overlaps = [(index.find(text), text) for text in clip.texts]
                told = [(overlap, text) for overlap, text in overlaps if overlap is not None]
                if not told:
                    continue
                overlap, text = max(told, key=lambda one: (one[0].is_exact, one[0].share))
                by: By = "text" if overlap.is_exact else "near text"
                item, test_text = test.items[overlap.number], test.texts[overlap.number]
                share = round(overlap.share, 4)
                about = {"shard": shard.path.name, "key": clip.key, "test_set": test.name, "item": item}
                found.append(Leak(**about, by=by, similarity=share, text=text, test_text=test_text))
        return found

    def _by_video(self, number: int, shard: Shard) -> Iterator[Leak]:
        assert self._found is not None
        piece = self._found.pieces[number]
        vectors = piece.vectors() if piece.keys else None
        for name, (of_test, keys) in self._vectors.items():
            if vectors is None:
                continue
            similarity, rows = largest_products(vectors, of_test, 1, use_gpu=self._found.use_gpu)
            for place in np.flatnonzero(similarity[:, 0] >= np.float32(self._found.least)):
                yield Leak(
                    shard=shard.path.name,
                    key=piece.keys[place],
                    test_set=name,
                    item=keys[rows[place, 0]],
                    by="video",
                    similarity=round(min(float(similarity[place, 0]), 1.0), 4),
                )
