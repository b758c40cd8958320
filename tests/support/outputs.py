"""Look into what a command wrote."""

import json
from pathlib import Path
from typing import Any

from clipvip.shards.tar.reader import Sample, list_shards, read_shard


def content(out: Path) -> dict[str, Any]:
    """Every file of an output: path -> bytes. Of the report the part on the run itself is left out, which alone may differ."""
    files = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert files, f"{out}: holds no file"
    if "report.json" in files:
        files["report.json"] = json.loads(files["report.json"])
        del files["report.json"]["this_run"]
    return files


def report(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "report.json").read_text())
    return found


def samples(out: Path) -> dict[str, Sample]:
    """The samples of a folder by key, in their order; no key comes twice, and there are some."""
    listed = [sample for path in list_shards(out) for sample in read_shard(path)]
    found = {sample.key: sample for sample in listed}
    assert len(found) == len(listed) > 0, out
    return found


def skipped(out: Path) -> list[tuple[str, str]]:
    """(reason, what) of each line of skipped.jsonl."""
    rows = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    return [(row["reason"], row["what"]) for row in rows]
