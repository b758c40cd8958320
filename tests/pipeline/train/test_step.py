"""Gradients: chunks and processes give what one plain backward pass over the joined batch gives."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from clipvip.pipeline.train import step
from clipvip.pipeline.train.batches import Chunk
from clipvip.pipeline.train.checkpoint import TrainState
from clipvip.pipeline.train.distributed import Place
from clipvip.pipeline.train.launch import launch
from clipvip.pipeline.train.loop import batches_of, prepare
from clipvip.pipeline.train.recipe import recipe_from_tree
from clipvip.pipeline.train.step import NotFinite, compute_gradients
from clipvip.shards.format.captions import write_captions
from make_shards import make_shard_folder
from tiny_clip import MAX_TOKENS, make_clip
from train_functions import gradients_and_steps, plain_gradients, save_gradients_and_steps

ALONE = Place(0, 1, torch.device("cpu"))
NUM_STEPS = 3


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A recipe with two sources of clips of different sizes, resized where the model is, a batch that no two
    processes divide evenly, and missing captions."""
    folder = tmp_path_factory.mktemp("step")
    make_clip(folder / "clip")
    make_shard_folder(folder / "clips", num_shards=2, clips_per_shard=8)
    make_shard_folder(folder / "wide", num_shards=2, clips_per_shard=8, width=64)
    (folder / "captions").mkdir()
    for shard in range(2):
        keys = [f"video{shard}_{number:05d}" for number in range(8) if number % 4]
        write_captions(
            folder / "captions" / f"{shard:06d}.parquet", [(key, f"picture {key}") for key in keys]
        )
    clips = {"shards": str(folder / "clips"), "captions": str(folder / "captions")}
    wide = {**clips, "shards": str(folder / "wide"), "weight": 0.75}
    return {
        "data": {"sources": {"clips": clips, "more": wide}, "num_frames": 3, "resize": "device",
                 "max_text_tokens": MAX_TOKENS},
        "model": {"init": str(folder / "clip"), "logit_scale": 2.0},
        "optim": {"batch_size": 12, "steps": NUM_STEPS, "learning_rate": 1e-4},
        "run": {"workers": 0, "device": "cpu"},
    }  # fmt: skip


def with_chunks(tree: dict[str, Any], size: int | None) -> dict[str, Any]:
    return {**tree, "run": {**tree["run"], "chunk_size": size}}


def assert_close(first: Path, second: Path) -> None:
    """Equal but for the rounding of float32: gradients relative to each tensor's largest value."""
    assert_gradients_close(
        load_file(first / "gradients.safetensors"), load_file(second / "gradients.safetensors")
    )
    one, other = load_file(first / "weights.safetensors"), load_file(second / "weights.safetensors")
    assert max(float((one[name] - other[name]).abs().max()) for name in one) < 1e-6


def assert_gradients_close(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, gradient in first.items():
        # Key biases have no gradient but rounding, hence a floor.
        scale = gradient.abs().max().clamp(min=1e-2)
        assert (gradient - second[name]).abs().max() / scale < 1e-5, name


@pytest.fixture(scope="module")
def alone(tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    save_gradients_and_steps(tree, folder, NUM_STEPS, ALONE)
    return folder


def test_the_gradient_is_that_of_a_plain_backward_pass(tree: dict[str, Any], alone: Path) -> None:
    assert_gradients_close(plain_gradients(tree), load_file(alone / "gradients.safetensors"))


def test_chunks_give_the_same_gradient_and_weights(tree: dict[str, Any], alone: Path, tmp_path: Path) -> None:
    save_gradients_and_steps(with_chunks(tree, 3), tmp_path, NUM_STEPS, ALONE)
    assert_close(alone, tmp_path)


def test_the_second_pass_draws_the_numbers_of_the_first(tree: dict[str, Any]) -> None:
    """As dropout needs it; what comes after is as after a single pass."""
    job = prepare(recipe_from_tree(with_chunks(tree, 3), name="test"), ALONE, cache=Path("unused"))
    chunks = next(batches_of(job, TrainState()))
    drawn: list[float] = []

    def encode(chunk: Chunk) -> dict[str, torch.Tensor]:
        drawn.append(torch.rand(()).item())
        return job.encode(chunk)

    torch.manual_seed(5)
    compute_gradients(replace(job, encode=encode), chunks)
    after = torch.rand(()).item()
    torch.manual_seed(5)
    once = [torch.rand(()).item() for _ in chunks]
    assert len(chunks) > 2 and drawn == once * 2 and after == torch.rand(()).item()


def fp16_gradients(tree: dict[str, Any], largest: float | None) -> dict[str, torch.Tensor]:
    """The gradient of the first batch with the encoder in fp16."""
    half = {**tree, "optim": {**tree["optim"], "precision": "fp16"}}
    job = prepare(recipe_from_tree(half, name="test"), ALONE, cache=Path("unused"))
    chunks = next(batches_of(job, TrainState()))
    compute_gradients(job, chunks, largest=largest)
    return {name: p.grad for name, p in job.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_fp16_gives_the_gradient_up_to_its_rounding(tree: dict[str, Any], chunk_size: int | None) -> None:
    exact = plain_gradients(tree)
    half = fp16_gradients(with_chunks(tree, chunk_size), largest=16.0)
    for name, gradient in exact.items():
        scale = gradient.abs().max().clamp(min=1e-2)
        assert (gradient - half[name]).abs().max() / scale < 0.02, name


def test_fp16_tries_again_where_a_gradient_overflows(
    tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overflown = fp16_gradients(tree, largest=2.0**40)
    assert not all(gradient.isfinite().all() for gradient in overflown.values())
    half = {**tree, "optim": {**tree["optim"], "precision": "fp16"}}
    for name, tried in (("once", (16.0,)), ("twice", (2.0**40, 16.0))):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(step, "_LARGEST_FP16", tried)
        save_gradients_and_steps(half, tmp_path / name, NUM_STEPS, ALONE)
    once, twice = (load_file(tmp_path / name / "weights.safetensors") for name in ("once", "twice"))
    assert all(torch.equal(once[name], twice[name]) for name in once)
    monkeypatch.setattr(step, "_LARGEST_FP16", (2.0**40,))
    with pytest.raises(NotFinite, match="gradient norm"):
        save_gradients_and_steps(half, tmp_path, NUM_STEPS, ALONE)


@pytest.mark.parametrize("chunk_size", [pytest.param(None, marks=pytest.mark.slow), 2])
def test_two_processes_give_the_same_gradient_and_weights(
    tree: dict[str, Any], alone: Path, tmp_path: Path, chunk_size: int | None
) -> None:
    assert (
        launch(gradients_and_steps, with_chunks(tree, chunk_size), str(tmp_path), NUM_STEPS, processes=2) == 0
    )
    assert_close(alone, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_compiled_encoders_give_the_same_gradient_for_sources_of_different_sizes(
    tree: dict[str, Any], alone: Path, tmp_path: Path
) -> None:
    compiled = {**tree, "run": {**tree["run"], "compile": True}}
    save_gradients_and_steps(compiled, tmp_path, NUM_STEPS, ALONE)
    assert_close(alone, tmp_path)
