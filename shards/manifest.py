"""The list of a stage's finished outputs, and the options that made them."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from clipvip.shards.atomic import atomic_path
from clipvip.shards.errors import DatasetError
from clipvip.shards.object_store import Location
from clipvip.shards.sample import SCHEMA_VERSION
from clipvip.shards.writer import ShardRecord

MANIFEST_NAME = "manifest.json"


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


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of `folder`, or None where there is none yet.

    Raises:
        DatasetError: the file is not a manifest, or one of a newer schema.
    """
    path = Path(folder) / MANIFEST_NAME
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: not JSON ({error}); restore it or make the folder again") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("shards"), list):
        raise DatasetError(f"{path}: not a clipvip manifest; point at a folder that a clipvip stage wrote")
    if manifest.get("schema") != SCHEMA_VERSION:
        raise DatasetError(
            f"{path}: schema {manifest.get('schema')!r}, this version reads {SCHEMA_VERSION}; update clipvip"
        )
    if not isinstance(manifest.get("options"), dict) or not all(map(_is_row, manifest["shards"])):
        raise DatasetError(f"{path}: damaged; run the command that made the folder again")
    return manifest


def num_samples(folder: Path) -> int | None:
    """How many clips a folder holds, by its manifest."""
    manifest = read_manifest(folder)
    return None if manifest is None else sum(int(row["samples"]) for row in manifest["shards"])


def _is_row(row: Any) -> bool:
    kinds = {"name": str, "samples": int, "bytes": int, "sha256": str}
    return isinstance(row, dict) and all(isinstance(row.get(name), kind) for name, kind in kinds.items())


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
