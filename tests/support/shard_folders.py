"""Run `clipvip-data shard`, and look into what it wrote."""

from pathlib import Path

from click.testing import Result

from commands import run

SECONDS = [(n, n + 1) for n in range(4)]


def shard(metadata: Path, videos: Path, out: Path, *options: str) -> Result:
    return run("shard", "--metadata", metadata, "--videos", videos, "--out", out, *options)
