"""Class names, and which clip is of which class, in the files that action sets come with.

Names are compared without case, underscores, brackets and extra space.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from clipvip.pipeline.evaluate.clip_names import ClipName, names_for
from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.files.stores import Location
from clipvip.shards.files.text import kind_of
from clipvip.shards.sources.video_set_files import (
    Row,
    first_of,
    make_row,
    read_json,
    read_json_lines,
    read_table,
    read_text,
)

_CLIP_FIELDS = ("key", "clip_id", "video_id", "video", "id", "youtube_id", "file", "filename", "path")
# Something-Something's `label` is a sentence with its objects filled in, `template` is the class.
_LABEL_FIELDS = ("template", "label", "class", "action")


@dataclass(frozen=True)
class Labels:
    """The labels, as written, by each name that a clip may have; `rows` are the names of each row."""

    by_name: dict[str, set[str]]
    rows: list[list[str]]

    def of(self, clip: ClipName) -> set[str]:
        """The labels of a clip by its key, else by its clip id, else by its video."""
        return next((self.by_name[name] for name in clip.all() if name in self.by_name), set())


def readable(name: str) -> str:
    """A class name as words: `brush_hair` is "brush hair", `Holding [something]` is "Holding something"."""
    return " ".join(name.replace("_", " ").replace("[", " ").replace("]", " ").split())


def same_class(name: str) -> str:
    """Equal for two spellings of a class."""
    return readable(name).casefold()


def read_classes(path: Location) -> list[str]:
    """The class names of a file, as words: one a line, or as .json a list, or an object of names and numbers.

    An object, as Something-Something and Kinetics have, may go either way; its numbers give the order. A
    DatasetError where there are fewer than two, or two that are the same.
    """
    if path.suffix.lower() == ".json":
        names = _from_json(path, read_json(path))
    else:
        names = [line for line in read_text(path).splitlines() if line.strip()]
    names = [readable(name) for name in names]
    seen: set[str] = set()
    for name in names:
        if not name:
            raise DatasetError(f"{path}: has a class without a name")
        if same_class(name) in seen:
            raise DatasetError(f"{path}: has the class {name[:80]!r} twice; take one out")
        seen.add(same_class(name))
    if len(names) < 2:
        few = "one class" if names else "no classes"
        raise DatasetError(f"{path}: has {few}; give two or more, one a line")
    return names


def _from_json(path: Location, content: Any) -> list[str]:
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return content
    if isinstance(content, dict):
        for pairs in (content.items(), ((value, key) for key, value in content.items())):
            numbered = [(str(number), name) for name, number in pairs]
            if all(number.isdecimal() and isinstance(name, str) for number, name in numbered):
                return [name for _, name in sorted(numbered, key=lambda pair: int(pair[0]))]
    raise DatasetError(f"{path}: must be a list of class names, or an object of class names and numbers")


def read_labels(path: Location) -> tuple[Labels, list[Skip]]:
    """The labels of clips, and the rows that are none, of a table with a header, or .jsonl or .json records.

    A row has a name of the clip (see `_CLIP_FIELDS`) and its class (`_LABEL_FIELDS`). A DatasetError where
    the file is of another kind, or has no label.
    """
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        rows = _records(path, (entry for _, entry in read_json_lines(path)))
    elif suffix == ".json":
        content = read_json(path)
        if not isinstance(content, list):
            raise DatasetError(f"{path}: must be a list of labels, not {kind_of(content)}")
        rows = _records(path, iter(content))
    else:
        rows = read_table(path, video=_CLIP_FIELDS, sentence=_LABEL_FIELDS)
    by_name: dict[str, set[str]] = {}
    names_of_rows: list[list[str]] = []
    skips: list[Skip] = []
    for row in rows:
        if isinstance(row, Skip):
            skips.append(Skip("bad_label", row.what, row.detail))
            continue
        names_of_rows.append(names_for(row.video))
        for name in names_of_rows[-1]:
            by_name.setdefault(name, set()).add(readable(row.sentence))
    if not names_of_rows:
        raise DatasetError(f'{path}: holds no label, such as {{"video": "v1", "label": "walking"}}')
    return Labels(by_name, names_of_rows), skips


def _records(path: Location, entries: Iterator[Any]) -> Iterator[Row | Skip]:
    for number, entry in enumerate(entries, start=1):
        where = f"{path.name}, record {number}"
        if not isinstance(entry, dict):
            yield Skip("bad_label", where, "is no JSON record")
            continue
        yield make_row(where, first_of(entry, _CLIP_FIELDS), first_of(entry, _LABEL_FIELDS))
