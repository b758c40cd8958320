"""Plan and load batches of small data sets, and look into them."""

from pathlib import Path
from typing import Any

import torch
from transformers import CLIPTokenizer

from clipvip.pipeline.loading.pixels import Pixels
from clipvip.pipeline.train.batches import (
    BatchPlan,
    Chunk,
    ChunkDataset,
    plan_batches,
)
from clipvip.pipeline.train.loading import load_batches
from clipvip.pipeline.train.recipe import recipe_from_tree
from clipvip.shards.format.captions import write_captions
from tiny_clip import IMAGE_SIZE, MAX_TOKENS


def plan_of(sources: dict[str, dict[str, Any]], tmp_path: Path, **settings: Any) -> BatchPlan:
    tree = {
        "data": {"sources": sources, "num_frames": 4, "shuffle_shards": 2, **settings.pop("data", {})},
        "loss": {"pairs": settings.pop("pairs", "baseline")},
        "optim": {"batch_size": settings.pop("batch_size", 6), "epochs": 1},
        **settings,
    }
    return plan_batches(recipe_from_tree(tree, name="test"), cache=tmp_path / "cache")


def batches(
    plan: BatchPlan,
    tokenizer: CLIPTokenizer,
    *,
    steps: range,
    rank: int = 0,
    world_size: int = 1,
    chunk_size: int | None = None,
    workers: int = 0,
) -> list[list[Chunk]]:
    dataset = ChunkDataset(plan, tokenizer, image_size=IMAGE_SIZE, max_text_tokens=MAX_TOKENS)
    specs = (
        spec
        for step in steps
        for spec in plan.chunks(step, rank=rank, world_size=world_size, chunk_size=chunk_size)
    )
    loaded = list(load_batches(dataset, specs, workers=workers, prefetch=2, pin_memory=False))
    assert len(loaded) == len(steps)
    return loaded


def joined(batch: list[Chunk], field: str) -> Any:
    """A field of all chunks of a batch, together."""
    values = [getattr(chunk, field) for chunk in batch]
    if isinstance(values[0], Pixels):
        values = [frames_of(pixels) for pixels in values]
    return sum(values, ()) if isinstance(values[0], tuple) else torch.cat(values)


def frames_of(pixels: Pixels | None) -> torch.Tensor:
    """The frames of all rows, which have one size."""
    assert pixels is not None
    (frames,) = pixels.by_size()
    return frames


def write_some_captions(folder: Path, missing: set[str]) -> Path:
    folder.mkdir()
    for shard in range(3):
        keys = [f"video{shard}_{number:05d}" for number in range(7)]
        rows = [(key, f"a caption of {key}") for key in keys if key not in missing]
        write_captions(folder / f"{shard:06d}.parquet", rows)
    return folder
