"""Run `clipvip-data verify`, and spoil what it looks at."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clipvip.shards.files.hashes import sha256_of_file
from clipvip.shards.format.captions import write_captions
from clipvip.shards.format.manifest import ShardRecord, write_manifest
from clipvip.shards.tar.reader import list_shards, read_shard
from commands import run

ORIGIN = {"model": "tiny", "revision": "1", "model_sha256": "0" * 64, "num_beams": 5}


def verify(folder: Path, *options: object) -> dict[str, Any]:
    """What `verify --json` prints; its exit code says whether there are problems."""
    result = run("verify", folder, "--workers", 1, "--json", *options)
    found: dict[str, Any] = json.loads(result.stdout)
    assert result.exit_code == (1 if found["counts"]["problems"] else 0), result.output
    return found


def make_captions(shards: Path, out: Path, *, without: str = "", extra: str = "") -> Path:
    """Caption files beside the shards of a folder, with their manifest."""
    out.mkdir()
    records = []
    for path in list_shards(shards):
        rows = [(s.key, f"a picture of {s.key}") for s in read_shard(path) if s.key != without]
        rows += [(extra, "foreign")] if extra else []
        target = out / f"{path.stem}.parquet"
        source = f"{path.stat().st_size} bytes"
        write_captions(target, rows, model="tiny", revision="1", options={"num_beams": 5}, source=source)
        records.append(ShardRecord(target.name, len(rows), target.stat().st_size, sha256_of_file(target)))
    write_manifest(out, stage="caption", options=ORIGIN, shards=records)
    return out


def damage(path: Path, change: Callable[[bytearray], None]) -> None:
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(bytes(data))
