"""Fine-tuning: validation while training, the choice of weights, and the test split, scored once."""

import json
import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

import commands
from clipvip.pipeline.evaluate.cli import main as evaluate
from clipvip.pipeline.train.command import main
from clipvip.pipeline.train.recipe import load_recipe
from clipvip.pipeline.train.start import start_model
from make_shards import make_captioned_folder
from tiny_clip import make_clip

RECIPE = """
data: {num_frames: 3, max_text_tokens: 20, sampling: uniform}
loss: {pairs: baseline}
optim: {batch_size: 4, steps: 8, learning_rate: 3e-3, clip_norm: 1.0}
evaluation: {every_steps: 2}
run: {workers: 0, device: cpu, save_every_steps: 3, tensorboard: false}
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    (folder / "recipe.yaml").write_text(RECIPE)
    make_clip(folder / "clip")
    for name in ("train", "val", "test"):
        texts = [[f"{name} picture {number}", f"a {number}"] for number in range(8)]
        make_captioned_folder(folder / name, texts if name == "train" else [[text] for text, _ in texts])
    return folder


def arguments(world: Path, out: Path, *more: str) -> list[str]:
    shards = ["--shards", str(world / "train"), "--init", str(world / "clip"), "--out", str(out)]
    return [str(world / "recipe.yaml"), *shards, *more]


def splits(world: Path) -> list[str]:
    return ["--validation", str(world / "val"), "--test", str(world / "test")]


def run(world: Path, out: Path, *more: str) -> Result:
    return commands.run(*arguments(world, out, *more), program=main)


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "validation.jsonl").read_text().splitlines()]


def weights(out: Path) -> bytes:
    return (out / "model" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def best(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("best") / "run"
    result = run(world, out, *splits(world), "--select", "best")
    assert result.exit_code == 0, result.output
    (out / "stdout.txt").write_text(result.stdout)
    return out


def test_validation_leaves_training_as_it_is(world: Path, best: Path, tmp_path: Path) -> None:
    plain = run(world, tmp_path / "plain")
    assert plain.exit_code == 0 and "weights of step 8 (last)" in plain.stdout
    result = run(world, tmp_path / "last", *splits(world))
    assert result.exit_code == 0, result.output
    assert weights(tmp_path / "plain") == weights(tmp_path / "last")
    assert rows(tmp_path / "last") == rows(best)
    assert "weights of step 8 (last of 4 validations)" in result.stdout


def test_the_best_validation_chooses_the_weights(world: Path, best: Path, tmp_path: Path) -> None:
    scores = {row["step"]: row["mean_recall"] for row in rows(best)}
    assert list(scores) == [2, 4, 6, 8]
    chosen = max(scores, key=lambda step: (scores[step], -step))
    stated = re.search(r"weights of step (\d+) \(best of 4 validations\)", (best / "stdout.txt").read_text())
    assert stated is not None and int(stated[1]) == chosen
    # A run that ends there, with the same learning rates, has the same weights: score them as a user would.
    command = ["retrieval", "--model", str(best / "model"), "--num-frames", "3", "--device", "cpu", "--out"]
    result = commands.run(*command, str(tmp_path), "--shards", str(world / "val"), program=evaluate)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "retrieval.json").read_text())["metrics"]["plain"]["text_to_video"]
    row = next(row for row in rows(best) if row["step"] == chosen)
    assert {name: row[name] for name in found} == found


def test_the_test_split_is_scored_as_clipvip_eval_does(world: Path, best: Path, tmp_path: Path) -> None:
    written = json.loads((best / "test.json").read_text())
    command = ["retrieval", "--model", str(best / "model"), "--num-frames", "3", "--device", "cpu", "--out"]
    assert (
        commands.run(*command, str(tmp_path), "--shards", str(world / "test"), program=evaluate).exit_code
        == 0
    )
    found = json.loads((tmp_path / "retrieval.json").read_text())
    assert written["metrics"] == found["metrics"]
    assert (written["select"], written["shards"]) == ("best", str(world / "test"))
    assert "text to video" in (best / "stdout.txt").read_text()
    card = (best / "model" / "README.md").read_text()
    assert "text to video" in card and "| learning rate | 0.003, weight decay 0.05 |" in card
    assert "its terms are weighted as in the authors' code |" in card
    assert "  learning_rate: 0.003\n" in card and str(world) not in card


def test_a_finished_run_scores_a_test_split_only_once(world: Path, best: Path) -> None:
    path = best / "test.json"
    before, time_before = path.read_bytes(), path.stat().st_mtime_ns
    assert run(world, best, *splits(world), "--select", "best").exit_code == 0
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, time_before)


def test_a_test_split_may_come_later(world: Path, tmp_path: Path) -> None:
    assert run(world, tmp_path / "run").exit_code == 0
    assert not (tmp_path / "run" / "test.json").exists()
    assert run(world, tmp_path / "run", "--test", str(world / "test")).exit_code == 0
    assert json.loads((tmp_path / "run" / "test.json").read_text())["step"] == 8


def test_the_start_is_scored_and_models_on_the_way_are_kept(world: Path, best: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ("--set", "evaluation.at_start=true", "--set", "run.keep_models_every_steps=4")
    assert run(world, out, *splits(world), *options).exit_code == 0
    assert [row["step"] for row in rows(out)] == [0, 2, 4, 6, 8]
    assert rows(out)[1:] == rows(best)
    assert sorted(path.name for path in (out / "models").iterdir()) == ["step-000004", "step-000008"]
    assert (out / "models" / "step-000008" / "model.safetensors").read_bytes() == weights(out)
    # The model on the way is that of step 4: it has the scores of that step.
    command = [
        "retrieval",
        "--model",
        str(out / "models" / "step-000004"),
        "--num-frames",
        "3",
        "--device",
        "cpu",
    ]
    result = commands.run(*command, "--out", str(tmp_path), "--shards", str(world / "val"), program=evaluate)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "retrieval.json").read_text())["metrics"]["plain"]["text_to_video"]
    assert {name: rows(out)[2][name] for name in found} == found


def test_training_from_scratch_takes_only_sizes_and_words_of_its_start(world: Path, tmp_path: Path) -> None:
    recipe = load_recipe(str(world / "recipe.yaml"), options={"model.init": str(world / "clip")})
    start = start_model(recipe)
    scratch = start_model(replace(recipe, model=replace(recipe.model, from_scratch=True)))
    again = start_model(replace(recipe, model=replace(recipe.model, from_scratch=True)))
    assert scratch.config.to_dict() == start.config.to_dict()
    assert scratch.encode_text("a 1").isfinite().all()
    for name, parameter in scratch.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name))
        if parameter.numel() > 1 and parameter.std() > 0 and name != "logit_scale":
            assert not torch.allclose(parameter, start.get_parameter(name))


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_choice(world: Path, best: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = arguments(world, out, *splits(world), "--select", "best")
    process = commands.start(*words, program="clipvip.pipeline.train.command")
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if (out / "validation.jsonl").exists() and len(rows(out)) >= 2:
            os.killpg(process.pid, signal.SIGKILL)
        time.sleep(0.005)
    assert process.wait() == -signal.SIGKILL
    assert run(world, out, *splits(world), "--select", "best").exit_code == 0
    assert rows(out) == rows(best)
    assert weights(out) == weights(best)
    assert (out / "test.json").read_bytes() == (best / "test.json").read_bytes()


@pytest.mark.slow
def test_two_processes_score_as_one(world: Path, best: Path, tmp_path: Path) -> None:
    result = run(
        world, tmp_path / "run", *splits(world), "--set", "run.processes=2", "--set", "optim.steps=2"
    )
    assert result.exit_code == 0, result.output
    alone = run(world, tmp_path / "alone", *splits(world), "--set", "optim.steps=2")
    assert alone.exit_code == 0, alone.output
    (two,), (one,) = rows(tmp_path / "run"), rows(tmp_path / "alone")
    assert {name: two[name] for name in ("r1", "r5", "r10")} == {
        name: one[name] for name in ("r1", "r5", "r10")
    }


def test_what_would_spoil_the_test_is_refused(world: Path, tmp_path: Path) -> None:
    val, test, train = (str(world / name) for name in ("val", "test", "train"))
    late = make_captioned_folder(tmp_path / "late", [["one"], ["two"], ["three", "four"]])
    for options, message in [
        (["--test", str(late)], "clip late2_00002 has 2 captions"),
        (["--select", "best"], "needs a split to choose by"),
        (["--validation", val, "--test", val], "also in --validation"),
        (["--test", train], "has 2 captions"),
        (["--validation", str(world / "none")], "no such folder"),
    ]:
        result = run(world, tmp_path / "run", *options)
        assert result.exit_code == 1, result.output
        assert message in result.output
        assert not (tmp_path / "run").exists()
    again = run(world, tmp_path / "run", "--shards", test, "--test", test)
    assert again.exit_code == 1 and "also in training" in again.output


def test_another_recipe_is_refused_even_where_its_copy_was_deleted(world: Path, best: Path) -> None:
    saved = best / "recipe.yaml"
    content = saved.read_bytes()
    saved.unlink()
    result = run(world, best, *splits(world), "--select", "best", "--set", "optim.learning_rate=1e-4")
    assert result.exit_code == 1
    assert "optim.learning_rate: 0.003, now 0.0001" in result.output
    saved.write_bytes(content)


def test_validation_goes_to_tensorboard(world: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = [*splits(world), "--set", "run.tensorboard=true", "--set", "optim.steps=2"]
    assert run(world, tmp_path / "run", *options).exit_code == 0
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert {"validation/r1", "validation/mean_recall"} <= set(events.Tags()["scalars"])
