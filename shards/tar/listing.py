"""Which shards a folder has, and in which order."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import overload

from upath import UPath

from clipvip.shards.errors import DatasetError
from clipvip.shards.files.places import location_of, sizes_in
from clipvip.shards.files.stores import Location
from clipvip.shards.format.manifest import CAPTION_STAGE, read_manifest


@overload
def list_shards(folder: Path) -> list[Path]: ...
@overload
def list_shards(folder: UPath | str) -> list[Location]: ...
def list_shards(folder: Location | str) -> list[Location] | list[Path]:
    """The shards of a folder in order: those of its manifest, else every .tar file by name.

    Raises: DatasetError: the folder is missing, holds captions or has no shards; or a shard is missing or
    not a file.

    Examples:
        >>> from clipvip.shards import list_shards
        >>> [path.name for path in list_shards("clips")][:2]
        ['000000.tar', '000001.tar']
    """
    folder = location_of(folder)
    if isinstance(folder, UPath):
        return _list_in_store(folder)
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder of shards")
    shards = []
    for shard in (folder / name for name in _names(folder, (path.name for path in folder.glob("*.tar")))):
        shards.append(shard)
        if shard.is_file():
            continue
        if os.path.lexists(shard):
            is_lost = shard.is_symlink() and not shard.exists()
            kind = "folder" if shard.is_dir() else "link to nothing" if is_lost else "pipe or a device"
            raise DatasetError(f"{shard}: not a file, but a {kind}; remove it, or put the shard in its place")
        raise DatasetError(f"{shard}: named in the manifest but missing; run 'clipvip-data shard' again")
    return shards


def _list_in_store(folder: UPath) -> list[Location]:
    if folder.protocol in ("http", "https"):  # which has no lists
        return [folder / name for name in _names(folder, [])]
    found = sizes_in(folder)
    if not found:
        raise DatasetError(f"{folder}: no such folder of shards")
    names = _names(folder, (name for name in found if name.endswith(".tar")))
    if missing := next((name for name in names if name not in found), ""):
        what = "named in the manifest but missing; run 'clipvip-data shard' again"
        raise DatasetError(f"{folder / missing}: {what}")
    return [folder / name for name in names]


def _names(folder: Location, found: Iterable[str]) -> list[str]:
    """The names of the shards of a folder: of its manifest, or without one those that were `found`."""
    manifest = read_manifest(folder)
    if manifest is not None and manifest.stage == CAPTION_STAGE:
        raise DatasetError(f"{folder}: holds captions, not shards; give the folder that they were made of")
    names = sorted(found) if manifest is None else [record.name for record in manifest.shards]
    if manifest is not None and not names:
        raise DatasetError(f"{folder}: no clip could be stored there; its skipped.jsonl says why")
    if not names:
        raise DatasetError(f"{folder}: holds no shards (*.tar); make them with 'clipvip-data shard'")
    return names
