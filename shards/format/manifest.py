"""The list of a stage's finished outputs, and the options that made them: written and parsed here only, wherever it lies."""

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clipvip.media.errors import one_line
from clipvip.shards.errors import DatasetError
from clipvip.shards.files.atomic import atomic_path
from clipvip.shards.files.stores import Location
from clipvip.shards.format.clip import SCHEMA_VERSION

MANIFEST_NAME = "manifest.json"
CAPTION_STAGE = "caption"


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """A finished shard, as the manifest lists it."""

    name: str
    num_samples: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a manifest says: the stage that made the folder, its options, and the finished outputs in order."""

    stage: str
    options: dict[str, Any]
    shards: list[ShardRecord]

    @property
    def num_samples(self) -> int:
        return sum(record.num_samples for record in self.shards)

    def by_name(self) -> dict[str, ShardRecord]:
        return {record.name: record for record in self.shards}


class _Row(BaseModel):
    model_config = ConfigDict(strict=True)

    # Names become parts of paths and of URLs, which webdataset hands to a shell.
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$")]
    samples: Annotated[int, Field(ge=0)]
    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Content(BaseModel):
    model_config = ConfigDict(strict=True)

    stage: str
    options: dict[str, Any]
    shards: list[_Row]


def write_manifest(
    folder: Location, *, stage: str, options: dict[str, Any], shards: Iterable[ShardRecord]
) -> None:
    """Write `folder`/manifest.json, all or nothing, row by row."""
    content = {"schema": SCHEMA_VERSION, "stage": stage, "options": options, "shards": []}
    head, tail = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False).rsplit("[]", 1)
    with atomic_path(folder / MANIFEST_NAME) as temporary, temporary.open("wb") as file:
        between = f"{head}["
        for s in shards:
            row = {"name": s.name, "samples": s.num_samples, "bytes": s.num_bytes, "sha256": s.sha256}
            lines = json.dumps(row, indent=2, ensure_ascii=False).replace("\n", "\n    ")
            file.write(f"{between}\n    {lines}".encode())
            between = ","
        file.write((f"{between}]{tail}\n" if between != "," else f"\n  ]{tail}\n").encode())


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of `folder`, or None where there is none yet.

    Raises:
        DatasetError: as `parse_manifest`.
    """
    path = Path(folder) / MANIFEST_NAME
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    return parse_manifest(data, name=str(path))


def parse_manifest(data: bytes, *, name: str) -> Manifest:
    """The manifest whose file holds `data`; `name` is its path or URL, for messages.

    Raises:
        DatasetError: it is not a manifest, one of a newer schema, or damaged; the first wrong field is named.
    """
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError) as error:
        reason = one_line(error)
        raise DatasetError(f"{name}: not JSON ({reason}); restore it or make the folder again") from error
    if not isinstance(tree, dict) or not isinstance(tree.get("shards"), list):
        raise DatasetError(f"{name}: not a clipvip manifest; point at a folder that a clipvip stage wrote")
    if tree.get("schema") != SCHEMA_VERSION or isinstance(tree["schema"], bool):
        raise DatasetError(
            f"{name}: schema {str(tree.get('schema'))[:40]!r}, this version reads {SCHEMA_VERSION}; "
            "update clipvip"
        )
    try:
        content = _Content.model_validate(tree)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise DatasetError(
            f"{name}: damaged ({place}: {' '.join(first['msg'].split())}); run the command that made the "
            "folder again"
        ) from error
    records = [ShardRecord(row.name, row.samples, row.bytes, row.sha256) for row in content.shards]
    return Manifest(content.stage, content.options, records)


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file of a manifest as it is: whether it has the size that is listed, and was written after the manifest."""

    record: ShardRecord
    has_size: bool
    is_newer: bool


def listed_files(folder: Path, records: Iterable[ShardRecord]) -> list[ListedFile]:
    """How the files stand that the manifest of `folder` lists as `records`; one that is gone has no size.

    Raises:
        OSError: the manifest is gone.
    """
    written = (folder / MANIFEST_NAME).stat().st_mtime

    def look(record: ShardRecord) -> ListedFile:
        try:
            found = (folder / record.name).stat()
        except FileNotFoundError:
            return ListedFile(record, has_size=False, is_newer=False)
        return ListedFile(record, found.st_size == record.num_bytes, found.st_mtime > written)

    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(look, records))


def num_samples(folder: Path) -> int | None:
    """How many clips a folder holds, by its manifest."""
    manifest = read_manifest(folder)
    return None if manifest is None else manifest.num_samples


def require_same_options(path: Location, found: dict[str, Any], asked: dict[str, Any]) -> None:
    """Refuse to add to an output that other options made.

    Raises:
        DatasetError: naming `path` and each option that differs.
    """
    differing = [
        f"{name}: {found.get(name)!r} there, {asked.get(name)!r} asked"
        for name in sorted(found.keys() | asked.keys())
        if found.get(name) != asked.get(name)
    ]
    if differing:
        raise DatasetError(
            f"{path} was made with other options ({'; '.join(differing)}); "
            "give the same options or another --out"
        )
