"""A search through an index of many clips: processor time and peak memory, beside reading the index's bytes
and no more.

    OMP_NUM_THREADS=1 python benchmarks/search_at_scale.py [--clips 200000] [--dim 512]

Random embeddings in pieces of 1,000 clips, as `clipvip-eval search` keeps them; the model, which loads in
seconds, is left out. Each search is a process of its own, so that each has its own peak; the least of three.
The files are in the system's cache.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from clipvip.pipeline.evaluate.embeddings import ClipEmbeddings
from clipvip.pipeline.search.index import Maker, Shard, is_current, load_index, nearest, update_index

CLIPS_PER_SHARD = 1000
TOP = 10
ROUNDS = 3


def unit_rows(num: int, dim: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((num, dim), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def shards_of(folder: Path) -> list[Shard]:
    # The hash of an empty file, which is what stands for a shard here.
    sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    return [Shard(path, sha256, CLIPS_PER_SHARD) for path in sorted(folder.glob("*.tar"))]


def make(folder: Path, num_clips: int, dim: int) -> None:
    for number in range(num_clips // CLIPS_PER_SHARD):
        (folder / f"{number:06d}.tar").touch()

    def encode(path: Path) -> ClipEmbeddings[str]:
        keys = [f"{path.stem}_abcdefghijk_{clip:05d}" for clip in range(CLIPS_PER_SHARD)]
        return ClipEmbeddings(keys, unit_rows(CLIPS_PER_SHARD, dim, int(path.stem)), [])

    update_index(folder / "index", shards_of(folder), Maker("model", 12, dim), encode)


def measure(folder: Path, num_queries: int, dim: int) -> dict[str, float]:
    """Processor seconds to load and to search (without queries: to read), and this process's peak in MB."""
    shards, maker = shards_of(folder), Maker("model", 12, dim)
    nearest([], unit_rows(1, dim, 0), top=1)  # faiss takes a second to import
    begin = time.process_time()
    found = load_index(folder / "index", shards, maker)
    assert is_current(folder / "index", shards, found)
    pieces = [piece for piece in found if piece is not None]
    loaded = time.process_time()
    if num_queries:
        nearest(pieces, unit_rows(num_queries, dim, 1), top=TOP)
    else:
        for piece in pieces:
            piece.path.read_bytes()
    ended = time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return {"load": loaded - begin, "search": ended - loaded, "peak_mb": peak}


@click.command()
@click.option("--clips", "num_clips", default=200_000, show_default=True)
@click.option("--dim", default=512, show_default=True)
@click.option("--only", hidden=True, nargs=2)
def main(num_clips: int, dim: int, only: tuple[str, str] | None) -> None:
    """Time searches by 1, 10 and 100 sentences."""
    if only is not None:
        click.echo(json.dumps(measure(Path(only[0]), int(only[1]), dim)))
        return
    click.echo("| | load, CPU s | search, CPU s | peak MB |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), num_clips, dim)
        for num_queries in (0, 1, 10, 100):
            command = [sys.executable, __file__, "--dim", str(dim), "--only", folder, str(num_queries)]
            rows = [
                json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                for _ in range(ROUNDS)
            ]
            load, search, peak = (min(row[name] for row in rows) for name in ("load", "search", "peak_mb"))
            what = f"{num_queries} sentences" if num_queries else "read only"
            click.echo(f"| {what} | {load:.2f} | {search:.2f} | {peak:.0f} |")


if __name__ == "__main__":
    main()
