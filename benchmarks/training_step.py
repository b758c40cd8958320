"""What a training step costs on a processor, beside that of another checkout.

    python benchmarks/training_step.py [--against OTHER/src] [--rounds 5]

Each round is a process of its own; the two take turns. CLIP B/32 of two layers, four frames, loss (d),
batches of 8 whole and in chunks of 4, one thread; the processor time of a step, and its peak of memory.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

_STEPS = 3
_WAYS = {"whole": "null", "chunks of 4": "4"}


@click.command()
@click.option("--against", type=click.Path(exists=True), help="The src folder of another checkout.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--one", hidden=True, type=click.Choice(list(_WAYS)), help="Measure once, in this process.")
@click.option("--folder", hidden=True, type=click.Path(path_type=Path))
def main(against: str | None, rounds: int, one: str | None, folder: Path | None) -> None:
    """Print a table of medians."""
    if one is not None and folder is not None:
        print(json.dumps(measure(folder, _WAYS[one])))
        return
    here = str(Path(__file__).resolve().parents[1] / "src")
    checkouts = {"this": here, **({"the other": against} if against else {})}
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as made:
        for _ in range(rounds):
            for way in _WAYS:
                for name, source in checkouts.items():
                    found.setdefault((way, name), []).append(_in_process(source, way, made))
    print("| batch | checkout | CPU s a step | peak MB |\n|---|---|---|---|")
    for (way, name), rows in found.items():
        seconds, peak = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"| {way} | {name} | {seconds:.3f} | {peak:.0f} |")


def _in_process(source: str, way: str, folder: str) -> tuple[float, float]:
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(Path(__file__).resolve()), "--one", way, "--folder", folder]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    print(f"{way}, {source}: {seconds:.3f} s, {peak:.0f} MB", file=sys.stderr)
    return seconds, peak


def measure(folder: Path, chunk_size: str) -> tuple[float, float]:
    """Processor seconds of a step, and the process's peak memory in MB."""
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import torch
    from gpu_sections.made_data import Sizes, make_clip, make_shards

    from clipvip.pipeline.train.checkpoint import TrainState
    from clipvip.pipeline.train.distributed import Place
    from clipvip.pipeline.train.loop import batches_of, prepare
    from clipvip.pipeline.train.recipe import load_recipe
    from clipvip.pipeline.train.step import train_step

    torch.set_num_threads(1)
    shards, captions = folder / "shards", folder / "captions"
    if not shards.exists():
        make_shards(shards, captions, Sizes(1, 16, 14, 256, 456))
    init = make_clip(folder / "clip", patch_size=32, num_layers=2, tiny=False)
    settings = {
        "data.sources.clips.shards": shards,
        "data.sources.clips.captions": captions,
        "data.num_frames": 4,
        "model.init": init,
        "optim.batch_size": 8,
        "optim.epochs": "null",
        "optim.steps": 1000,
        "run.chunk_size": chunk_size,
        "run.device": "cpu",
        "run.out": folder / "unused",
        "run.workers": 0,
    }
    recipe = load_recipe("pretrain_vip_b32", tuple(f"{key}={value}" for key, value in settings.items()))
    job = prepare(recipe, Place(0, 1, torch.device("cpu")), cache=folder / "cache")
    chunks = next(batches_of(job, TrainState()))
    train_step(job, chunks, learning_rate=1e-6)
    began = time.process_time()
    for _ in range(_STEPS):
        train_step(job, chunks, learning_rate=1e-6)
    seconds = (time.process_time() - began) / _STEPS
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
