"""What settings of the optimizer do to an update: multipliers, frozen parts, decay over layers."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from clipvip.pipeline.train.batches import Chunk
from clipvip.pipeline.train.checkpoint import TrainState
from clipvip.pipeline.train.distributed import Place
from clipvip.pipeline.train.loop import batches_of, prepare
from clipvip.pipeline.train.recipe import load_recipe, recipe_from_tree
from clipvip.pipeline.train.step import Job, train_step
from make_shards import make_shard_folder
from tiny_clip import MAX_TOKENS, make_clip
from train_runs import RECIPE, run

ALONE = Place(0, 1, torch.device("cpu"))
RATE = 1e-2


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("optim")
    make_clip(folder / "clip")
    make_shard_folder(folder / "clips", num_shards=2, clips_per_shard=8)
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


def job_of(
    world: Path, optim: dict[str, Any], chunk_size: int | None = None, contrast: str = "softmax"
) -> Job:
    # Without weight decay and with so small an epsilon, Adam's first step is the rate itself.
    base = {"batch_size": 8, "steps": 3, "weight_decay": 0.0, "epsilon": 1e-30, "clip_norm": 1e9}
    tree = {
        "data": {"sources": {"clips": {"shards": str(world / "clips")}}, "num_frames": 3,
                 "max_text_tokens": MAX_TOKENS},
        "model": {"init": str(world / "clip"), "logit_scale": 2.0},
        "loss": {"pairs": "baseline", "contrast": contrast},
        "optim": {**base, **optim},
        "run": {"workers": 0, "device": "cpu", "chunk_size": chunk_size},
    }  # fmt: skip
    return prepare(recipe_from_tree(tree, name="test"), ALONE, cache=Path("unused"))


def batch_of(job: Job) -> list[Chunk]:
    return next(batches_of(job, TrainState()))


def change(job: Job) -> dict[str, torch.Tensor]:
    before = {name: parameter.detach().clone() for name, parameter in job.model.named_parameters()}
    train_step(job, batch_of(job), learning_rate=RATE).read()
    return {name: parameter.detach() - before[name] for name, parameter in job.model.named_parameters()}


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_an_update_is_multiplied_by_the_factors(world: Path, chunk_size: int | None) -> None:
    plain = change(job_of(world, {}, chunk_size))
    multipliers = {"text_*": 0.5, "logit_scale": 10}
    found = change(job_of(world, {"multipliers": multipliers, "layer_decay": 0.5}, chunk_size))
    below = {"vision_model.embeddings.patch_embedding.weight": 0.125, "visual_projection.weight": 1.0,
             "vision_model.encoder.layers.1.mlp.fc1.weight": 0.5, "text_projection.weight": 0.5,
             "text_model.encoder.layers.0.mlp.fc1.weight": 0.125, "logit_scale": 10.0}  # fmt: skip
    for name, factor in below.items():
        assert plain[name].abs().max() == pytest.approx(RATE, rel=1e-3)
        torch.testing.assert_close(found[name], factor * plain[name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("chunk_size", [None, 3])
@pytest.mark.parametrize("frozen", ["text_*", "vi*", "logit_scale", "[!l]*", "*.embeddings.*"])
def test_what_is_frozen_keeps_its_weights_and_has_no_state(
    world: Path, frozen: str, chunk_size: int | None
) -> None:
    plain = change(job_of(world, {}, chunk_size))
    job = job_of(world, {"multipliers": {frozen: 0}}, chunk_size)
    found = change(job)
    still = {name for name, parameter in job.model.named_parameters() if not parameter.requires_grad}
    assert still > {name for name in still if name.endswith("k_proj.bias")}
    assert all(not found[name].any() for name in still)
    with_state = {name for name, p in job.model.named_parameters() if p in job.optimizer.state}
    assert not with_state & still
    # What is trained goes the way that it goes beside a trained rest.
    for name in found.keys() - still:
        torch.testing.assert_close(found[name], plain[name], rtol=1e-3, atol=1e-6)


def test_the_bias_of_the_sigmoid_loss_has_a_factor_and_can_be_frozen(world: Path) -> None:
    found = [
        change(job_of(world, {"multipliers": {"logit_bias": factor}}, contrast="sigmoid"))[
            "logit_bias"
        ].item()
        for factor in (1, 0.5, 0)
    ]
    assert abs(found[0]) == pytest.approx(RATE, rel=1e-3)
    assert found[1] == pytest.approx(0.5 * found[0], rel=1e-3) and found[2] == 0


def test_a_frozen_part_goes_on_from_a_checkpoint(world: Path, tmp_path: Path) -> None:
    settings = ("--captions", "", "--set", "loss.pairs=baseline", "--set", "optim.steps=4",
                "--set", "optim.multipliers={'text_model.*': 0}", "--set", "optim.layer_decay=0.8",
                "--set", "run.save_every_steps=2")  # fmt: skip
    assert run(world, tmp_path / "whole", *settings).exit_code == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    for done in ("checkpoints/step-00000004", "model"):
        shutil.rmtree(tmp_path / "again" / done)
    assert run(world, tmp_path / "again", *settings).exit_code == 0
    one, other = (tmp_path / name / "model" / "model.safetensors" for name in ("whole", "again"))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_pattern_that_matches_nothing_is_refused_in_one_line(
    world: Path, tmp_path: Path, dry: tuple[str, ...]
) -> None:
    wrong = ("--set", "optim.multipliers={'visual.*': 0.1}")
    result = run(world, tmp_path / "out", "--captions", "", *wrong, *dry)
    assert result.exit_code == 1
    assert result.output.startswith("Error: optim.multipliers: 'visual.*' matches no parameter")
    assert result.output.count("\n") == 1 and not (tmp_path / "out" / "recipe.yaml").exists()


def test_the_temperature_of_didemo_is_trained_at_ten_times_the_rate() -> None:
    assert load_recipe("finetune_didemo_b16").optim.multipliers == {"logit_scale": 10.0}
    assert load_recipe("finetune_didemo_b32").optim.multipliers == {}
