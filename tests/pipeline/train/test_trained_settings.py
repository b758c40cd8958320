"""A model is scored on the frames and text length that it was trained on, unless told otherwise."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import commands
from clipvip.model import ClipVip
from clipvip.pipeline.domain_gap.encoder import load_text_encoder
from clipvip.pipeline.evaluate.cli import main as evaluate
from clipvip.pipeline.train.command import main as train
from clipvip.shards.tar.reader import list_shards, read_shard
from make_shards import make_captioned_folder
from tiny_clip import MAX_TOKENS, make_clip

FRAMES, TOKENS = 5, 9
RECIPE = f"""
data: {{num_frames: {FRAMES}, max_text_tokens: {TOKENS}}}
loss: {{pairs: baseline}}
model: {{temporal_size: 3}}
optim: {{batch_size: 4, steps: 2, learning_rate: 3e-3}}
run: {{workers: 0, device: cpu, tensorboard: false}}
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps with a validation and a test split of long texts."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "recipe.yaml").write_text(RECIPE)
    make_clip(folder / "clip")
    for name in ("train", "val", "test"):
        texts = [
            [f"{name} {number} and what else there is to say about picture {number}"] for number in range(8)
        ]
        make_captioned_folder(folder / name, texts)
    result = CliRunner().invoke(
        train,
        [str(folder / "recipe.yaml"), "--shards", str(folder / "train"), "--init", str(folder / "clip"),
         "--validation", str(folder / "val"), "--test", str(folder / "test"), "--out", str(folder / "run")],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (folder / "classes.txt").write_text("val 0 and what else\nval 1 and what else\n")
    found = samples(folder / "val")
    (folder / "labels.csv").write_text("video,label\n" + "".join(
        f"{sample.key},val {number % 2} and what else\n" for number, sample in enumerate(found)
    ))  # fmt: skip
    (folder / "questions.jsonl").write_text("".join(
        json.dumps({"video": sample.key, "options": [f"a {n}" for n in range(3)], "answer": 0}) + "\n"
        for sample in samples(folder / "val")
    ))  # fmt: skip
    return folder


def samples(shards: Path) -> list[Any]:
    return [sample for path in list_shards(shards) for sample in read_shard(path)]


def invoke(world: Path, command: str, *more: object) -> Result:
    model = () if "--model" in more else ("--model", world / "run" / "model")
    return commands.run(
        command, *model, "--shards", world / "val", "--device", "cpu", *more, program=evaluate
    )


def result_of(world: Path, out: Path, command: str, *more: object) -> dict[str, Any]:
    result = invoke(world, command, "--out", out, *more)
    assert result.exit_code == 0, result.output
    (path,) = [path for path in out.glob("*.json") if path.name != "report.json"]
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_the_models_folder_says_it(world: Path) -> None:
    config = json.loads((world / "run" / "model" / "config.json").read_text())
    assert (config["num_frames"], config["max_text_tokens"], config["temporal_size"]) == (FRAMES, TOKENS, 3)
    assert f"| frames | {FRAMES} of a clip" in (world / "run" / "model" / "README.md").read_text()


COMMANDS = {
    "retrieval": (),
    "actions": ("--classes", "classes.txt", "--labels", "labels.csv"),
    "multiple-choice": ("--questions", "questions.jsonl"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_take_it_from_there_unless_told_otherwise(world: Path, tmp_path: Path, command: str) -> None:
    files = [value if value.startswith("--") else str(world / value) for value in COMMANDS[command]]
    found = result_of(world, tmp_path / "as-trained", command, *files)
    assert (found["num_frames"], found["max_text_tokens"]) == (FRAMES, TOKENS)
    same = ("--num-frames", FRAMES, "--max-text-tokens", TOKENS)
    assert result_of(world, tmp_path / "same", command, *files, *same) == found
    other = ("--num-frames", 2, "--max-text-tokens", 20)
    told = result_of(world, tmp_path / "other", command, *files, *other)
    assert (told["num_frames"], told["max_text_tokens"]) == (2, 20)
    report = json.loads((tmp_path / "other" / "report.json").read_text())
    assert (report["options"]["num_frames"], report["options"]["max_text_tokens"]) == (2, 20)
    result = invoke(world, command, *files, "--max-text-tokens", MAX_TOKENS + 1)
    assert result.exit_code == 1 and f"takes {MAX_TOKENS} at most" in result.output
    # A folder of before, which does not say it, is scored on its temporal size, and 70 tokens or its table.
    old = without_settings(world, tmp_path / "old")
    before = result_of(world, tmp_path / "before", command, *files, "--model", old)
    assert (before["num_frames"], before["max_text_tokens"]) == (3, MAX_TOKENS)


def without_settings(world: Path, folder: Path) -> Path:
    shutil.copytree(world / "run" / "model", folder)
    config = json.loads((folder / "config.json").read_text())
    del config["num_frames"], config["max_text_tokens"]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_validation_and_test_are_what_the_command_finds(world: Path, tmp_path: Path) -> None:
    last = json.loads((world / "run" / "validation.jsonl").read_text().splitlines()[-1])
    found = result_of(world, tmp_path / "val", "retrieval")["metrics"]["plain"]["text_to_video"]
    assert all(last[name] == pytest.approx(found[name]) for name in ("r1", "r5", "mean_rank"))
    test = json.loads((world / "run" / "test.json").read_text())
    assert (test["num_frames"], test["max_text_tokens"]) == (FRAMES, TOKENS)


def test_an_index_of_other_frames_is_noticed(world: Path, tmp_path: Path) -> None:
    index = ("--index", tmp_path / "index")
    assert invoke(world, "search", "a dog", *index).exit_code == 0
    assert json.loads((tmp_path / "index" / "index.json").read_text())["num_frames"] == FRAMES
    result = invoke(world, "search", "a dog", *index, "--num-frames", 2)
    assert result.exit_code == 1 and f"made with {FRAMES} frames a clip, not 2" in result.output
    old = without_settings(world, tmp_path / "old")
    result = invoke(world, "search", "a dog", *index, "--model", old)
    assert result.exit_code == 1 and f"made with {FRAMES} frames a clip, not 3" in result.output


def test_training_goes_on_from_a_model_with_settings_of_its_own(world: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        train,
        [str(world / "recipe.yaml"), "--shards", str(world / "train"), "--init", str(world / "run" / "model"),
         "--set", "data.num_frames=2", "--set", "model.temporal_size=null", "--out", str(tmp_path / "run")],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert ClipVip.from_pretrained(tmp_path / "run" / "model").config.scored_frames == 2


def test_features_of_texts_know_their_length(world: Path, tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    trained = load_text_encoder(str(world / "run" / "model"), device=cpu)
    old = load_text_encoder(str(without_settings(world, tmp_path / "old")), device=cpu)
    text = ["what else there is to say about it"]
    assert trained.fingerprint != old.fingerprint
    assert np.abs(trained.encode(text, batch_size=1) - old.encode(text, batch_size=1)).max() > 1e-4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eos_token_id": 5}, "the model takes a text's feature at token 5"),
        ({"vocab_size": 300}, "the model's table 300"),
    ],
)
def test_commands_refuse_a_tokenizer_that_does_not_fit(
    world: Path, tmp_path: Path, changes: dict[str, int], message: str
) -> None:
    for name, source in (("vip", world / "run" / "model"), ("clip", world / "clip")):
        shutil.copytree(source, tmp_path / name)
        config = json.loads((tmp_path / name / "config.json").read_text())
        config["text_config"] |= changes
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        start = [
            "--shards",
            str(world / "train"),
            "--out",
            str(tmp_path / "run"),
            "--init",
            str(tmp_path / name),
        ]
        result = commands.run(str(world / "recipe.yaml"), *start, program=train)
        (line,) = result.stderr.strip().splitlines()
        assert result.exit_code == 1 and message in line and str(tmp_path / name) in line
        assert not (tmp_path / "run").exists()
    if "vocab_size" not in changes:  # else the weights do not fit either
        for command in ("retrieval", "search"):
            result = invoke(
                world, command, *(["a dog"] if command == "search" else []), "--model", tmp_path / "vip"
            )
            assert result.exit_code == 1 and message in result.stderr
            assert len(result.stderr.strip().splitlines()) == 1


def test_a_model_without_a_tokenizer_is_told_in_one_line(world: Path, tmp_path: Path) -> None:
    model = shutil.copytree(world / "run" / "model", tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (model / name).unlink()
    result = invoke(world, "retrieval", "--model", model)
    assert result.exit_code == 1 and "has no tokenizer to read texts by" in result.output
    result = CliRunner().invoke(
        train,
        [
            str(world / "recipe.yaml"),
            "--shards",
            str(world / "train"),
            "--init",
            str(model),
            "--out",
            str(tmp_path / "r"),
        ],
    )
    assert result.exit_code == 1 and "has no tokenizer files beside its weights" in result.output
