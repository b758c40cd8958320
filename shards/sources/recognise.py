"""Which published list a file is, by its beginning: a wrong `--dataset` can then be said by name."""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from clipvip.shards.errors import DatasetError
from clipvip.shards.sources.table_files import in_small_letters, open_table, read_members, read_objects

_MOST_ENTRIES = 20
_MOST_LINE_BYTES = 1 << 16
_LSMDC_TIMES = re.compile(r"[^\t]+(?:\t\d\d\.\d\d\.\d\d\.\d{1,3}){4}\t.*")
_MSVD_LINE = re.compile(r"\S{11}_\d+_\d+ \S.*|\S+_\d+_\d+ \D.*")
_OWN = ("captions", "paragraphs")
_VIDEO_COLUMNS = ("video", "video_id", "videoid", "clip_id", "key", "url")


@dataclass(frozen=True, slots=True)
class _Beginning:
    """The first lines of a text file, and the first records of any: of a table its header alone.

    `names` are those of an object's members; none of a list or table.
    """

    lines: tuple[str, ...] = ()
    records: tuple[Mapping[str, JsonValue], ...] = ()
    names: tuple[str, ...] = ()

    def has(self, *columns: str) -> bool:
        """Whether it is a table or list with such columns, in small letters."""
        return not self.names and any(all(column in record for column in columns) for record in self.records)

    def has_members_with(self, *fields: str) -> bool:
        """Whether it is an object of records with such fields."""
        return bool(self.names) and any(all(field in record for field in fields) for record in self.records)


@dataclass(frozen=True)
class KnownList:
    """A published list: what it is called, which `--dataset` reads it, and which others may.

    `name` "" is HD-VILA-100M's list, which goes without a --dataset.
    """

    title: str
    name: str
    is_one: Callable[[_Beginning], bool]
    others: tuple[str, ...] = ()


def _is_howto100m(found: _Beginning) -> bool:
    if found.has("start", "end", "text"):
        return not any(found.has(column) for column in _VIDEO_COLUMNS)
    # ActivityNet's ids begin so, and others' lists of its paragraphs have the same fields.
    of_activitynet = all(name.startswith("v_") for name in found.names)
    return not of_activitynet and any(
        {"start", "end", "text"} <= record.keys() and _is_narration(record["start"])
        for record in found.records
    )


def _is_narration(starts: JsonValue) -> bool:
    """Whether lines begin there, rather than a clip that is all of its video, as in others' records."""
    return isinstance(starts, list) and (len(starts) > 1 or (len(starts) == 1 and starts[0] not in (0, None)))


def _is_youcook2(found: _Beginning) -> bool:
    for name, record in zip(found.names, found.records, strict=False):
        first = next(iter(record.values()), None) if name == "database" else None
        if isinstance(first, dict) and "annotations" in first:
            listed = first["annotations"]
            return isinstance(listed, list) and any(isinstance(a, dict) and "sentence" in a for a in listed)
    return False


# The first that fits is taken.
_LISTS = (
    KnownList("HD-VILA-100M", "", lambda found: found.has("video_id", "clip")),
    KnownList("Panda-70M", "panda70m", lambda found: found.has("videoid", "timestamp", "caption")),
    KnownList("InternVid", "internvid", lambda found: found.has("youtubeid", "start_timestamp", "caption")),
    KnownList("VATEX", "vatex", lambda found: found.has("videoid", "encap")),
    KnownList(
        "MSVD",
        "msvd",
        lambda found: (
            found.has("videoid", "start", "end", "description")
            or (bool(found.lines) and all(map(_MSVD_LINE.fullmatch, found.lines)))
        ),
    ),
    KnownList("YouCook2", "youcook2", _is_youcook2),
    KnownList("QVHighlights", "qvhighlights", lambda found: found.has("qid", "query", "vid")),
    KnownList("TVR", "tvr", lambda found: found.has("vid_name", "desc")),
    KnownList("HowTo100M", "howto100m", _is_howto100m),
    KnownList("MSR-VTT", "msrvtt", lambda found: {"videos", "sentences"} <= set(found.names)),
    KnownList("MSR-VTT", "msrvtt", lambda found: found.has("vid_key", "video_id", "sentence"), _OWN),
    KnownList("MSR-VTT", "msrvtt", lambda found: [set(row) for row in found.records] == [{"video_id"}]),
    KnownList("DiDeMo", "didemo", lambda found: found.has("video", "description", "times")),
    KnownList(
        "ActivityNet Captions",
        "activitynet",
        lambda found: found.has_members_with("timestamps", "sentences"),
        ("paragraphs",),
    ),
    KnownList("LSMDC", "lsmdc", lambda found: any(map(_LSMDC_TIMES.fullmatch, found.lines))),
    KnownList("WebVid", "webvid", lambda found: found.has("videoid", "name"), _OWN),
)
KNOWN_NAMES = frozenset(known.name for known in _LISTS)


def recognise(path: Path) -> KnownList | None:
    """The list that a file is; None where it is none that is known, or cannot be read."""
    if not path.is_file():
        return None
    try:
        found = _beginning(path)
    except (DatasetError, OSError):
        return None
    return next((known for known in _LISTS if known.is_one(found)), None)


def _beginning(path: Path) -> _Beginning:
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        return _Beginning(records=_records(value for _, value in read_objects(path)))
    if suffix == ".json":
        members = list(itertools.islice(_wanted_members(path), _MOST_ENTRIES))
        if members and members[0][0] is None:
            return _Beginning(records=_records(value for _, value in members))
        records = tuple(value if isinstance(value, dict) else {} for _, value in members)
        return _Beginning(records=records, names=tuple(name or "" for name, _ in members))
    header, _ = open_table(path)
    columns: dict[str, JsonValue] = dict.fromkeys(header)
    lines = () if suffix == ".parquet" else tuple(_lines(path))
    return _Beginning(lines, records=(in_small_letters(columns),))


def _wanted_members(path: Path) -> Iterator[tuple[str | None, JsonValue]]:
    """The members of a file; what stands behind one that is all of a set is not read."""
    for name, value in read_members(path):
        yield name, value
        if name == "database":
            return


def _records(values: Iterable[JsonValue]) -> tuple[Mapping[str, JsonValue], ...]:
    first = itertools.islice(values, _MOST_ENTRIES)
    return tuple(in_small_letters(value) for value in first if isinstance(value, dict))


def _lines(path: Path) -> Iterator[str]:
    """The first lines that are neither blank nor comments."""
    with path.open("rb") as file:
        lines = (file.readline(_MOST_LINE_BYTES) for _ in range(_MOST_ENTRIES))
        texts = (line.decode("utf-8", "replace").strip("\r\n") for line in lines)
        yield from (text for text in texts if text.strip() and not text.startswith("#"))
