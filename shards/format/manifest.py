"""The list of a stage's finished outputs, and the options that made them: written and parsed here only."""

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, JsonValue, TypeAdapter, ValidationError
from upath import UPath

from clipvip.media.errors import one_line
from clipvip.shards.errors import DatasetError
from clipvip.shards.files.atomic import atomic_path
from clipvip.shards.files.claims import MANIFEST_NAME, Options
from clipvip.shards.files.places import read_whole, sizes_in
from clipvip.shards.files.stores import Location
from clipvip.shards.files.text import parse_json
from clipvip.shards.format.record import SCHEMA_VERSION

CAPTION_STAGE = "caption"

# Names become parts of paths and of URLs.
_Name = Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$")]
_Sha256 = Annotated[str, Field(strict=True, pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """A finished shard (or caption file) as a row of a manifest; aliases are the fields' names there."""

    name: _Name
    num_samples: Annotated[int, Field(strict=True, ge=0, alias="samples")]
    num_bytes: Annotated[int, Field(strict=True, ge=0, alias="bytes")]
    sha256: _Sha256


@dataclass(frozen=True)
class Manifest:
    """What a manifest says: the stage that made the folder, its options, the finished outputs in order."""

    stage: Annotated[str, Field(strict=True)]
    options: dict[str, JsonValue]
    shards: list[ShardRecord]

    @property
    def num_samples(self) -> int:
        return sum(record.num_samples for record in self.shards)

    def by_name(self) -> dict[str, ShardRecord]:
        return {record.name: record for record in self.shards}


_PARSER = TypeAdapter(Manifest)


def write_manifest(folder: Location, *, stage: str, options: Options, shards: Iterable[ShardRecord]) -> None:
    """Write `folder`/manifest.json, all or nothing, row by row."""
    content = {"schema": SCHEMA_VERSION, "stage": stage, "options": dict(options), "shards": []}
    head, tail = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False).rsplit("[]", 1)
    with atomic_path(folder / MANIFEST_NAME) as temporary, temporary.open("wb") as file:
        between = f"{head}["
        for s in shards:
            row = {"name": s.name, "samples": s.num_samples, "bytes": s.num_bytes, "sha256": s.sha256}
            lines = json.dumps(row, indent=2, ensure_ascii=False).replace("\n", "\n    ")
            file.write(f"{between}\n    {lines}".encode())
            between = ","
        file.write((f"{between}]{tail}\n" if between != "," else f"\n  ]{tail}\n").encode())


def read_manifest(folder: Location) -> Manifest | None:
    """The manifest of `folder`, or None where there is none yet. Raises as `parse_manifest`."""
    path = folder / MANIFEST_NAME
    try:
        data = read_whole(path)
    except FileNotFoundError:
        return None
    return parse_manifest(data, name=str(path))


def parse_manifest(data: bytes, *, name: str) -> Manifest:
    """The manifest whose file holds `data`; `name` is its path or URL, for messages.

    Raises:
        DatasetError: it is none, of a newer schema, or damaged; the first wrong field is named.
    """
    try:
        tree = parse_json(data)
    except ValueError as error:
        what = f"not JSON ({one_line(error)}); restore it or make the folder again"
        raise DatasetError(f"{name}: {what}") from error
    if not isinstance(tree, dict) or not isinstance(tree.get("shards"), list):
        raise DatasetError(f"{name}: not a clipvip manifest; point at a folder that a clipvip stage wrote")
    if tree.get("schema") != SCHEMA_VERSION or isinstance(tree["schema"], bool):
        found = f"schema {str(tree.get('schema'))[:40]!r}, this version reads {SCHEMA_VERSION}"
        raise DatasetError(f"{name}: {found}; update clipvip")
    try:
        return _PARSER.validate_python(tree)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        found = f"{'.'.join(map(str, first['loc']))}: {' '.join(first['msg'].split())}"
        what = f"damaged ({found}); run the command that made the folder again"
        raise DatasetError(f"{name}: {what}") from error


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file as it is: whether it has the size that is listed, and was written after the manifest."""

    record: ShardRecord
    has_size: bool
    is_newer: bool


def listed_files(folder: Location, records: Iterable[ShardRecord]) -> list[ListedFile]:
    """How the files stand that the manifest of `folder` lists as `records`; OSError: the manifest is gone.

    What is in a store counts as written before the manifest, where it is of the right size.
    """
    if isinstance(folder, UPath):
        sizes = sizes_in(folder)
        return [ListedFile(r, sizes.get(r.name) == r.num_bytes, is_newer=False) for r in records]
    written = (folder / MANIFEST_NAME).stat().st_mtime

    def look(record: ShardRecord) -> ListedFile:
        try:
            found = (folder / record.name).stat()
        except FileNotFoundError:
            return ListedFile(record, has_size=False, is_newer=False)
        return ListedFile(record, found.st_size == record.num_bytes, found.st_mtime > written)

    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(look, records))


def num_samples(folder: Location) -> int | None:
    """How many clips a folder holds, by its manifest; None without one."""
    manifest = read_manifest(folder)
    return None if manifest is None else manifest.num_samples
