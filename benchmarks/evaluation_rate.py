"""How near evaluation comes to the bare forward pass of the model: clips a second of both, and their ratio.

    OMP_NUM_THREADS=1 python benchmarks/evaluation_rate.py [--other CHECKOUT/src] [--clips 600] [--workers 2]

Clips of noise at 256 x 456 pixels, and a model so small that reading is nearly all of the work. Each side
(this checkout, with and without loading processes, and the one of `--other`) has a process of its own in each
round, and they take turns: the table has the medians. Processor time is without that of loading processes.
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
from typing import Any

import click
import torch

_FORWARD_BATCHES = 6
_BATCH = 16


def forward_rate(encoder: Any, *, times: int = _FORWARD_BATCHES) -> float:
    """Clips a second that the model encodes, by itself, of pixels that are on its device."""
    model, size = encoder.model, encoder.model.config.vision_config.image_size
    shape = (encoder.batch_size, model.config.scored_frames, 3, size, size)
    pixels = torch.randn(shape, device=model.device)
    computing = getattr(encoder, "computing", torch.inference_mode)

    def encode(count: int) -> float:
        begin = time.perf_counter()
        with computing():
            for _ in range(count):
                found = model.get_video_features(pixels)
        found.sum().item()  # waits for the device
        return time.perf_counter() - begin

    encode(2)
    return encoder.batch_size * times / encode(times)


def evaluation_rate(encoder: Any, shards: list[Path]) -> tuple[float, int]:
    """Clips a second from shards to embeddings, the start of processes included, and how many clips."""
    from clipvip.pipeline.evaluate.embeddings import embed_pairs

    begin = time.perf_counter()
    num_clips = len(embed_pairs(encoder, shards).videos)
    return num_clips / (time.perf_counter() - begin), num_clips


def measure(model: str, folder: str, workers: int) -> None:
    """In a process of one side: print its figures as one line of JSON."""
    from clipvip.pipeline.evaluate.embeddings import ClipEncoder, load_clip_vip
    from clipvip.shards.tar.reader import list_shards

    options = {"workers": workers} if workers else {}
    loaded = load_clip_vip(model, device=torch.device("cpu"))
    encoder = ClipEncoder(loaded, _BATCH, shows_progress=False, **options)
    forward = forward_rate(encoder)
    before = _cpu_seconds()
    rate, num_clips = evaluation_rate(encoder, list_shards(Path(folder)))
    cpu_ms = 1000 * (_cpu_seconds() - before) / num_clips
    print(json.dumps({"forward": forward, "evaluation": rate, "ratio": rate / forward, "cpu_ms": cpu_ms}))


def _cpu_seconds() -> float:
    """Of this process; loading processes are children of the fork server."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def make_inputs(folder: Path, num_clips: int) -> tuple[Path, Path]:
    """The model and the shards."""
    from gpu_sections.made_data import Sizes, make_clip, make_shards
    from transformers import CLIPModel

    from clipvip.model import ClipVip

    clip = CLIPModel.from_pretrained(make_clip(folder / "tiny", tiny=True)).config
    clip.vision_config.image_size, clip.vision_config.patch_size = 224, 32
    torch.manual_seed(0)
    CLIPModel(clip).save_pretrained(folder / "clip")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / "clip" / name).write_bytes((folder / "tiny" / name).read_bytes())
    ClipVip.from_clip(folder / "clip").save_pretrained(folder / "model")
    shards = folder / "shards"
    make_shards(shards, folder / "captions", Sizes(-(-num_clips // 100), min(num_clips, 100), 39, 256, 456))
    return folder / "model", shards


@click.command()
@click.option("--other", type=click.Path(exists=True), help="The folder `src` of another checkout.")
@click.option("--clips", "num_clips", default=600, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--workers", default=2, show_default=True)
@click.option("--measure", "job", hidden=True, nargs=3, type=str)
def main(
    other: str | None, num_clips: int, rounds: int, workers: int, job: tuple[str, str, str] | None
) -> None:
    """Print clips a second of evaluation and of the bare forward pass."""
    if job:
        measure(job[0], job[1], int(job[2]))
        return
    here = str(Path(__file__).resolve().parents[1] / "src")
    sides = {"no processes": (here, 0), f"{workers} processes": (here, workers)}
    if other is not None:
        sides = {"the other checkout": (other, 0), **sides}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    with tempfile.TemporaryDirectory() as temporary:
        model, shards = make_inputs(Path(temporary), num_clips)
        for _ in range(rounds):
            for name, (source, processes) in sides.items():
                command = [sys.executable, __file__, "--measure", str(model), str(shards), str(processes)]
                environment = {**os.environ, "PYTHONPATH": source}
                done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
                found[name].append(json.loads(done.stdout.splitlines()[-1]))
    click.echo("| | forward alone, clips/s | evaluation, clips/s | ratio | CPU ms a clip |")
    click.echo("|---|---|---|---|---|")
    keys = ("forward", "evaluation", "ratio", "cpu_ms")
    for name, rows in found.items():
        forward, rate, ratio, cpu = (statistics.median(row[key] for row in rows) for key in keys)
        click.echo(f"| {name} | {forward:.0f} | {rate:.1f} | {ratio:.3f} | {cpu:.1f} |")


if __name__ == "__main__":
    main()
