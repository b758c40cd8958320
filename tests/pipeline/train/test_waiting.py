"""A step never asks for a value that a GPU still has to compute, nor gives it one that it has to wait for."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from clipvip.model.seen import Seen
from clipvip.pipeline.loading.pixels import Pixels
from clipvip.pipeline.train.batches import Chunk
from clipvip.pipeline.train.checkpoint import TrainState
from clipvip.pipeline.train.distributed import Place
from clipvip.pipeline.train.loop import batches_of, prepare
from clipvip.pipeline.train.recipe import load_recipe
from clipvip.pipeline.train.start import start_optimizer
from clipvip.pipeline.train.step import Job, make_encoder, train_step
from train_runs import RECIPE

# What torch.tensor makes of numbers of the host: on a GPU a copy, at whose end the host waits.
MADE_HERE = torch.ops.aten.lift_fresh.default


class _Operations(TorchDispatchMode):
    """Remembers what was computed."""

    def __init__(self) -> None:
        super().__init__()
        self.met: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.met.append(func)
        return func(*args, **(kwargs or {}))


def valueless(chunk: Chunk, mode: FakeTensorMode) -> Chunk:
    def of(part: torch.Tensor | Pixels | Seen) -> torch.Tensor | Pixels | Seen:
        if isinstance(part, Pixels):
            return replace(part, values=mode.from_tensor(part.values))
        if isinstance(part, Seen):
            return part._map(mode.from_tensor)
        return mode.from_tensor(part)

    return chunk._map(of)


@pytest.mark.parametrize("pairs", ["baseline", "d"])
@pytest.mark.parametrize("chunk_size", [None, 4])
@pytest.mark.parametrize("resize", ["loader", "device"])
def test_a_step_waits_for_nothing(world: Path, pairs: str, chunk_size: int | None, resize: str) -> None:
    job, chunks = job_of(world, f"loss.pairs={pairs}", f"run.chunk_size={chunk_size or 'null'}",
                         f"data.resize={resize}")  # fmt: skip
    assert len(chunks) == (1 if chunk_size is None else 2)
    mode = FakeTensorMode()
    job, chunks = in_mode(job, chunks, mode)
    with mode, _Operations() as operations:
        for _ in range(2):
            result = train_step(job, chunks, learning_rate=1e-3)
        with pytest.raises(DataDependentOutputException):
            result.read()
    assert len(operations.met) > 500
    assert MADE_HERE not in operations.met


def job_of(world: Path, *settings: str) -> tuple[Job, list[Chunk]]:
    (world / "recipe.yaml").write_text(RECIPE)
    places = [f"data.sources.clips.shards={world / 'clips'}", f"model.init={world / 'clip'}",
              f"data.sources.clips.captions={world / 'captions'}"]  # fmt: skip
    recipe = load_recipe(str(world / "recipe.yaml"), (*places, *settings))
    job = prepare(recipe, Place(0, 1, torch.device("cpu")), cache=world / "cache")
    return job, next(batches_of(job, TrainState()))


def in_mode(job: Job, chunks: list[Chunk], mode: FakeTensorMode) -> tuple[Job, list[Chunk]]:
    """Both with tensors that have shapes and no content, as to a host that does not wait."""
    for module in job.model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            fake = torch.nn.Parameter(mode.from_tensor(parameter.data), parameter.requires_grad)
            setattr(module, name, fake)
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = mode.from_tensor(buffer)
    encode = make_encoder(job.model, precision="bf16", device=job.place.device, compiled=False)
    optimizer = start_optimizer(job.recipe, job.model)
    fake_chunks = [valueless(chunk, mode) for chunk in chunks]
    return replace(job, encode=encode, optimizer=optimizer), fake_chunks
