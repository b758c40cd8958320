"""A training run opened for measuring.

The product's own model, optimizer, loader and step, on shards made here.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from clipvip.pipeline.train.batches import Chunk
from clipvip.pipeline.train.checkpoint import TrainState
from clipvip.pipeline.train.distributed import Place
from clipvip.pipeline.train.loop import Job, batches_of, prepare, step_or_explain
from clipvip.pipeline.train.peaks import peak_of
from clipvip.pipeline.train.recipe import Recipe, load_recipe
from clipvip.pipeline.train.step import StepResult, step_flops
from gpu_sections.made_data import REAL, TINY, make_clip, make_shards
from gpu_sections.rows import Check


def shards_of(check: Check) -> tuple[Path, Path]:
    """The folders of shards and captions, made where they are not there yet."""
    shards, captions = check.folder / "shards", check.folder / "captions"
    make_shards(shards, captions, TINY if check.tiny else REAL)
    return shards, captions


def clip_of(check: Check, *, patch_size: int = 32, num_layers: int = 12) -> Path:
    folder = check.folder / f"clip-{patch_size}-{num_layers}"
    return make_clip(folder, patch_size=patch_size, num_layers=num_layers, tiny=check.tiny)


def data(check: Check) -> None:
    """Make what the other sections read: shards with captions, and CLIPs of B/32's and B/16's sizes."""
    begin = time.perf_counter()
    shards, _ = shards_of(check)
    num_bytes = sum(path.stat().st_size for path in shards.glob("*.tar"))
    check.row("shards and captions", gb=num_bytes / 1e9, s=time.perf_counter() - begin)
    begin = time.perf_counter()
    clip_of(check)
    clip_of(check, patch_size=16)
    check.row("CLIP B/32 and B/16 with random weights", s=time.perf_counter() - begin)


def settings(
    check: Check, init: Path, *, batch_size: int, chunk_size: int | None = None, **changes: Any
) -> list[str]:
    """The overrides of the recipe pretrain_vip_b32 for the data and model made here, as `--set` takes them.

    `changes` have two underscores for a dot: run__compile=True.
    """
    shards, captions = shards_of(check)
    values: dict[str, Any] = {
        "data.sources.clips.shards": shards,
        "data.sources.clips.captions": captions,
        "model.init": init,
        "optim.batch_size": batch_size,
        "optim.epochs": "null",
        "optim.steps": 1_000_000,
        "run.chunk_size": chunk_size or batch_size,
        "run.device": check.device.type,
        "run.out": check.folder / "unused",
        "run.workers": 0,
    }
    values |= {name.replace("__", "."): value for name, value in changes.items()}
    if check.tiny:
        values |= {
            "data.num_frames": 3,
            "model.temporal_size": 3,
            "run.workers": min(int(values["run.workers"]), 2),
        }
    return [
        f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in values.items()
    ]


@dataclass
class Session:
    """A job with one batch of it on the device."""

    job: Job
    chunks: list[Chunk]
    host_chunks: list[Chunk]

    def step(self) -> StepResult:
        return step_or_explain(self.job, self.chunks, step=next(self._steps), rate=1e-6)

    def __post_init__(self) -> None:
        self._steps = count(1)


@contextmanager
def opened(check: Check, init: Path, *, batch_size: int, **changes: Any) -> Iterator[Session]:
    """A session of the recipe with `changes`, as in `settings`; its memory is given back at the end."""
    check.free()
    recipe: Recipe = load_recipe(
        "pretrain_vip_b32", tuple(settings(check, init, batch_size=batch_size, **changes))
    )
    job = prepare(recipe, Place(0, 1, check.device), cache=check.folder / "cache")
    batches = batches_of(job, TrainState())
    host = next(batches)
    del batches
    session = Session(job, [chunk.to(check.device) for chunk in host], host)
    yield session
    session.chunks.clear()
    session.host_chunks.clear()
    session.job.optimizer.zero_grad(set_to_none=True)
    session.job = None  # type: ignore[assignment]
    del session, job, host
    check.free()


def step_row(check: Check, name: str, session: Session, *, times: int = 5) -> None:
    """Time whole steps on one batch, and tell what part of the device's peak that is."""
    session.step()
    seconds = check.seconds(session.step, times=times, warm_up=1)
    batch_size = session.job.recipe.optim.batch_size
    peak, flops = peak_of(check.device), step_flops(session.chunks, session.job.model.config)
    check.row(
        name,
        ms=1000 * seconds,
        clips_per_s=batch_size / seconds,
        tflop_per_s=flops / seconds / 1e12,
        mfu_percent=None if peak is None else 100 * flops / seconds / peak.flops,
        peak_gib=check.peak_gib(),
    )
