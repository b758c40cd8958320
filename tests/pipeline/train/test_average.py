"""The moving average of the weights: what it is, where it is used, and that it survives an interruption."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import commands
from clipvip.pipeline.evaluate.cli import main as evaluate
from clipvip.pipeline.train.average import WeightAverage
from clipvip.pipeline.train.checkpoint import list_checkpoints
from make_shards import make_captioned_folder
from tiny_clip import make_clip
from train_runs import RECIPE, run

SETTINGS = ("--captions", "", "--set", "loss.pairs=baseline", "--set", "optim.steps=6",
            "--set", "run.save_every_steps=1", "--set", "run.keep_checkpoints=9")  # fmt: skip
EMA = ("--set", "optim.ema=0.75")
Weights = dict[str, torch.Tensor]


def weights(path: Path) -> Weights:
    return load_file(path / "model.safetensors")


def in_checkpoint(folder: Path, what: str) -> Weights:
    stored = load_file(folder / "tensors-00000.safetensors")
    return {name.removeprefix(what): value for name, value in stored.items() if name.startswith(what)}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("average")
    make_clip(folder / "clip")
    make_captioned_folder(folder / "clips", [[f"picture {number}"] for number in range(16)])
    make_captioned_folder(folder / "val", [[f"other picture {number}"] for number in range(8)])
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def averaged(world: Path) -> Path:
    split = ("--validation", str(world / "val"), "--set", "evaluation.every_steps=2")
    kept = ("--set", "run.keep_models_every_steps=4")
    result = run(world, world / "averaged", *SETTINGS, *EMA, *split, *kept)
    assert result.exit_code == 0, result.output
    return world / "averaged"


def test_training_is_the_same_and_the_model_is_the_average(world: Path, averaged: Path) -> None:
    assert run(world, world / "plain", *SETTINGS).exit_code == 0
    plain, found = list_checkpoints(world / "plain"), list_checkpoints(averaged)
    assert len(plain) == len(found) == 6
    of_steps = [in_checkpoint(folder, "model/") for folder in found]
    for step, folder in enumerate(plain):
        others = in_checkpoint(folder, "model/")
        assert all(torch.equal(others[name], value) for name, value in of_steps[step].items())
    averages = [in_checkpoint(folder, "average/") for folder in found]
    for earlier, weights_then, later in zip(averages, of_steps[1:], averages[1:], strict=False):
        for name in later:
            torch.testing.assert_close(later[name], 0.75 * earlier[name] + 0.25 * weights_then[name])
    model = weights(averaged / "model")
    assert all(torch.equal(model[name], value) for name, value in averages[-1].items())
    assert not torch.equal(model["visual_projection.weight"], of_steps[-1]["visual_projection.weight"])
    kept = weights(averaged / "models" / "step-000004")
    assert all(torch.equal(kept[name], value) for name, value in averages[3].items())
    assert "averaged over steps with a decay of 0.75" in (averaged / "model" / "README.md").read_text()
    assert "averaged" not in (world / "plain" / "model" / "README.md").read_text()


def test_the_average_is_what_is_validated(world: Path, averaged: Path, tmp_path: Path) -> None:
    command = ["retrieval", "--model", str(averaged / "model"), "--device", "cpu", "--out", str(tmp_path)]
    assert commands.run(*command, "--shards", str(world / "val"), program=evaluate).exit_code == 0
    scores = json.loads((tmp_path / "retrieval.json").read_text())["metrics"]["plain"]["text_to_video"]
    last = json.loads((averaged / "validation.jsonl").read_text().splitlines()[-1])
    assert {name: last[name] for name in scores} == scores


def test_it_goes_on_to_the_bit(world: Path, averaged: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert run(world, again, *SETTINGS, *EMA).exit_code == 0
    for folder in list_checkpoints(again)[2:]:
        shutil.rmtree(folder)
    shutil.rmtree(again / "model")
    assert run(world, again, *SETTINGS, *EMA).exit_code == 0
    model = (again / "model" / "model.safetensors").read_bytes()
    assert model == (averaged / "model" / "model.safetensors").read_bytes()
    # Another decay is another run.
    result = run(world, again, *SETTINGS, "--set", "optim.ema=0.9")
    assert result.exit_code == 1 and "optim.ema: 0.75, now 0.9" in result.output


def test_the_first_average_is_of_the_start_and_what_is_frozen_has_none() -> None:
    model = torch.nn.Linear(2, 1)
    model.bias.requires_grad_(False)
    start = model.weight.detach().clone()
    average = WeightAverage(model, decay=0.9)
    with torch.no_grad():
        model.weight.add_(1.0)
    average.update()
    assert list(average.tensors) == ["weight"]
    torch.testing.assert_close(average.tensors["weight"], start + 0.1)
    trained = model.weight.detach().clone()
    with pytest.raises(RuntimeError), average.in_the_model():
        torch.testing.assert_close(model.weight.detach(), start + 0.1)
        raise RuntimeError
    assert torch.equal(model.weight, trained)
