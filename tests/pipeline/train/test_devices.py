"""What has to hold on every device: the same numbers, memory that is given back, a group of processes."""

import gc
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clipvip.model.variants import ENCODERS, Precision
from clipvip.pipeline.runtime.device import torch_device
from clipvip.pipeline.train.batches import Chunk
from clipvip.pipeline.train.checkpoint import TrainState
from clipvip.pipeline.train.distributed import Place, process_group
from clipvip.pipeline.train.loop import batches_of, prepare
from clipvip.pipeline.train.recipe import Recipe, load_recipe
from clipvip.pipeline.train.start import chosen_device, chosen_precision
from clipvip.pipeline.train.step import Job, compute_gradients, make_encoder, train_step
from resources import DEVICES
from train_runs import arguments

# The largest errors, as ||a - b|| / ||b||, that rounding explains.
MOST: dict[Precision, float] = {"fp32": 2e-5, "bf16": 1e-1}
COMPILED_ON_GPU = pytest.param("cuda", True, marks=[pytest.mark.gpu, pytest.mark.timeout(600)])
WAYS = [("cpu", False), pytest.param("cuda", False, marks=pytest.mark.gpu), COMPILED_ON_GPU]


def recipe_on(world: Path, device: str, *more: str) -> Recipe:
    settings = {
        "data.sources.clips.shards": world / "clips",
        "data.sources.clips.captions": world / "captions",
        "data.resize": "device",
        "model.init": world / "clip",
        # At the recipe's temperature bf16 moves a logit by half a unit; at this one it does not.
        "model.logit_scale": 2.0,
        "run.device": device,
        "run.out": world / "unused",
        "run.compile": "false",
    }
    return load_recipe(
        str(world / "recipe.yaml"), (*(f"{key}={value}" for key, value in settings.items()), *more)
    )


def opened(world: Path, device: str, *more: str) -> tuple[Job, list[Chunk]]:
    """A job on a device with one batch there."""
    place = Place(0, 1, torch.device(device))
    job = prepare(recipe_on(world, device, *more), place, cache=world / "cache")
    return job, [chunk.to(place.device) for chunk in next(batches_of(job, TrainState()))]


def gradient(
    job: Job, chunks: list[Chunk], dtype: torch.dtype, precision: Precision, *, compiled: bool = False
) -> torch.Tensor:
    """The gradient of the batch's loss as one float64 vector on the processor."""
    model = job.model.to(dtype)
    model.zero_grad(set_to_none=True)
    encode = make_encoder(model, precision=precision, device=job.place.device, compiled=compiled)
    compute_gradients(replace(job, encode=encode), chunks)
    return torch.cat([p.grad.double().flatten().cpu() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("encoder", list(ENCODERS))
@pytest.mark.parametrize(("device", "compiled"), WAYS)
def test_the_gradient_is_that_of_float64(
    world: Path, encoder: str, device: str, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    changed = f"model.encoder={encoder}"
    exact = gradient(*opened(world, "cpu", changed), torch.float64, "fp32")
    for precision, most in MOST.items():
        found = gradient(*opened(world, device, changed), torch.float32, precision, compiled=compiled)
        assert (found - exact).norm() <= most * exact.norm(), precision


@pytest.mark.gpu
def test_memory_is_given_back_after_each_step_and_after_the_run(world: Path) -> None:
    def in_use() -> int:
        gc.collect()
        return torch.cuda.memory_allocated()

    before = in_use()
    job, chunks = opened(world, "cuda")
    train_step(job, chunks, learning_rate=1e-4)  # which makes the optimizer's state
    after_step = in_use()
    for _ in range(3):
        train_step(job, chunks, learning_rate=1e-4)
        assert in_use() == after_step
    del job, chunks
    assert in_use() <= before + 2**20  # cuBLAS keeps its workspace


@pytest.mark.gpu
def test_auto_is_the_gpu(world: Path) -> None:
    recipe = recipe_on(world, "auto")
    assert torch_device("auto").type == torch_device("cuda").type == "cuda"
    assert chosen_device(recipe) == "cuda"
    with process_group("cuda") as place:
        assert place == Place(0, 1, torch.device("cuda", 0))
        has_bf16 = torch.cuda.get_device_capability() >= (8, 0)
        assert chosen_precision(recipe, place) == ("bf16" if has_bf16 else "fp16")


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_a_group_of_one_process_trains_and_ends(world: Path, tmp_path: Path, device: str) -> None:
    """With gloo on a processor, with NCCL on a GPU."""
    out = tmp_path / "out"
    settings = ("--set", "optim.steps=2", "--set", f"run.device={device}", "--set", "run.compile=false")
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "1", "--standalone"]
    command = [sys.executable, *launcher, "-m", "clipvip.pipeline.train", *arguments(world, out, *settings)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((out / "log.jsonl").read_text().splitlines()[-1])["step"] == 2
    assert (out / "model" / "model.safetensors").exists()
