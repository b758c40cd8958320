"""Run `clipvip-data shard`, and look into what it wrote."""

import json
from pathlib import Path

from click.testing import CliRunner, Result

from clipvip.pipeline.cli import main
from clipvip.shards.tar.reader import Sample, list_shards, read_shard

SECONDS = [(n, n + 1) for n in range(4)]


def shard(metadata: Path, videos: Path, out: Path, *options: str) -> Result:
    arguments = ["shard", "--metadata", metadata, "--videos", videos, "--out", out, *options]
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def samples(out: Path) -> dict[str, Sample]:
    return {sample.key: sample for path in list_shards(out) for sample in read_shard(path)}


def skipped(out: Path) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    return [(row["reason"], row["what"]) for row in rows]


def content(out: Path) -> dict[str, bytes]:
    """Every file of an output but the report, which alone may differ from run to run."""
    files = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    del files["report.json"]
    return files
