"""Retrieval metrics of many clips: seconds and peak memory, beside the matrix product that they cannot do
without.

    OMP_NUM_THREADS=2 python benchmarks/retrieval_at_scale.py [--clips 100000] [--dim 512]

Random embeddings; each direction in a process of its own, so that each has its own peak. The limit is numpy's
product of the same matrices in the same chunks, thrown away.
"""

import json
import resource
import subprocess
import sys
import time

import click
import numpy as np

from clipvip.analysis.retrieval import embedding_ranks

ROWS = 320


def embeddings(num_clips: int, dim: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((num_clips, dim), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def measure(what: str, num_clips: int, dim: int) -> dict[str, float]:
    """Seconds, and the most memory that this process has had in GB."""
    videos = embeddings(num_clips, dim, 0)
    noise = embeddings(num_clips, dim, 1)
    texts = videos + 2 * noise  # the right answer is often, not always, the best
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    begin = time.perf_counter()
    recall = float("nan")
    if what == "products":
        for first in range(0, num_clips, ROWS):
            texts[first : first + ROWS] @ videos.T
    else:
        recall = embedding_ranks(texts, videos, direction=what).metrics()["r1"]  # type: ignore[arg-type]
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {"seconds": seconds, "peak_gb": peak, "r1": recall}


@click.command()
@click.option("--clips", "num_clips", default=100_000, show_default=True)
@click.option("--dim", default=512, show_default=True)
@click.option("--only", hidden=True)
def main(num_clips: int, dim: int, only: str | None) -> None:
    """Time both directions."""
    if only is not None:
        click.echo(json.dumps(measure(only, num_clips, dim)))
        return
    click.echo("| | seconds | of the products | peak GB |\n|---|---|---|---|")
    least = 0.0
    for what in ("products", "text_to_video", "video_to_text"):
        command = [sys.executable, __file__, "--clips", str(num_clips), "--dim", str(dim), "--only", what]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout)
        least = least or found["seconds"]
        ratio = found["seconds"] / least
        click.echo(
            f"| {what.replace('_', ' ')} | {found['seconds']:.0f} | {ratio:.2f} | {found['peak_gb']:.2f} |"
        )


if __name__ == "__main__":
    main()
