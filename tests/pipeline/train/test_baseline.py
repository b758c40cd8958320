"""The baseline of a run: the plain CLIP that it starts from, scored once, beside every validation."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import commands
from clipvip.analysis.retrieval import embedding_ranks
from clipvip.model import ClipVip
from clipvip.pipeline.evaluate.cli import main as evaluate
from clipvip.pipeline.train.baseline import baseline_of
from clipvip.pipeline.train.command import main
from clipvip.pipeline.train.recipe import load_recipe
from commands import error_of
from make_shards import make_captioned_folder
from plain_clip import shards_by_hand, texts_by_hand
from s3_server import s3_server, use_s3
from tiny_clip import make_clip, make_text_tower

RECIPE = """
data: {num_frames: 3, max_text_tokens: 20, sampling: uniform}
loss: {pairs: baseline}
optim: {batch_size: 4, steps: 4, learning_rate: 3e-3, clip_norm: 1.0}
evaluation: {every_steps: 2}
run: {workers: 0, device: cpu, save_every_steps: 3, tensorboard: false}
"""
NONE = ("--set", "evaluation.baseline=null")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    (folder / "recipe.yaml").write_text(RECIPE)
    ClipVip.from_clip(make_clip(folder / "clip")).save_pretrained(folder / "vip")
    for name in ("train", "val", "test"):
        make_captioned_folder(folder / name, [[f"{name} picture {number}"] for number in range(8)])
    return folder


def run(world: Path, out: Path, *more: object, start: str = "clip") -> Result:
    given = {"--shards": world / "train", "--init": world / start, "--out": out}
    given |= {"--validation": world / "val", "--test": world / "test"}
    words = [word for pair in given.items() for word in pair]
    return commands.run(world / "recipe.yaml", *words, *more, program=main)


def run_well(world: Path, out: Path, *more: object, start: str = "clip") -> str:
    result = run(world, out, *more, start=start)
    assert result.exit_code == 0, result.output
    return result.output


def content(out: Path, name: str = "baseline.json") -> dict[str, Any]:
    return json.loads((out / name).read_text())


@pytest.fixture(scope="module")
def trained(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    said = run_well(world, out)
    (out.parent / "said.txt").write_text(said)
    return out


def test_the_start_is_scored_with_its_frames_averaged(world: Path, trained: Path, tmp_path: Path) -> None:
    clip = str(world / "clip")
    written = content(trained)
    assert written["model"] == clip and list(written["splits"]) == ["validation", "test"]
    for split, shards in (("validation", "val"), ("test", "test")):
        found = written["splits"][split]
        _, texts, videos = shards_by_hand(world / "clip", world / shards, num_frames=3)
        ranks = embedding_ranks(texts_by_hand(world / "clip", texts).numpy(), videos).metrics()
        of_text = found["metrics"]["plain"]["text_to_video"]
        assert {name: of_text[name] for name in ranks} == pytest.approx(ranks)
        # As `clipvip-eval` has it, with intervals.
        command = [
            "retrieval",
            "--model",
            clip,
            "--num-frames",
            3,
            "--max-text-tokens",
            20,
            "--device",
            "cpu",
        ]
        out = ["--shards", world / shards, "--out", tmp_path / shards]
        commands.run_well(*command, *out, program=evaluate)
        assert found["metrics"] == content(tmp_path / shards, "retrieval.json")["metrics"]
    assert content(trained, "test.json")["baselines"] == {clip: written["splits"]["test"]}


def test_it_is_told_beside_every_validation(world: Path, trained: Path) -> None:
    said = (trained.parent / "said.txt").read_text()
    written = content(trained)["splits"]
    of_text = written["validation"]["metrics"]["plain"]["text_to_video"]
    assert f"baseline {world / 'clip'}: validation R@1 {100 * of_text['r1']:.1f}" in said
    assert said.count(f"(baseline {100 * of_text['mean_recall']:.1f})") == 2
    for split in ("validation", "test"):
        ends = written[split]["metrics"]["plain"]["text_to_video"]["intervals"]["r5"]
        rows = [line for line in said.splitlines() if line.endswith(f"  {world / 'clip'}")]
        assert any(f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}" in row for row in rows)
    card = (trained / "model" / "README.md").read_text()
    assert "this model" in card and "  baseline" in card and str(world) not in card


def test_training_and_its_own_scores_are_as_without(world: Path, trained: Path, tmp_path: Path) -> None:
    said = run_well(world, tmp_path / "none", *NONE)
    assert "baseline" not in said and not (tmp_path / "none" / "baseline.json").exists()
    for name in ("model/model.safetensors", "validation.jsonl", "log.jsonl"):
        assert (tmp_path / "none" / name).read_bytes() == (trained / name).read_bytes()
    alone, beside = content(tmp_path / "none", "test.json"), content(trained, "test.json")
    assert beside.pop("baselines") and beside == alone
    # A run that was made without one, as by earlier versions, gets one when the command runs again.
    run_well(world, tmp_path / "none")
    assert content(tmp_path / "none") == content(trained)
    assert content(tmp_path / "none", "test.json") == content(trained, "test.json")


def test_a_run_that_goes_on_does_not_score_it_again(world: Path, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(trained, out)
    *_, last = sorted((out / "checkpoints").iterdir())
    shutil.rmtree(last)
    shutil.rmtree(out / "model")
    (out / "test.json").unlink()
    changed = content(out)
    changed["splits"]["validation"]["metrics"]["plain"]["text_to_video"]["r1"] = 0.123
    (out / "baseline.json").write_text(json.dumps(changed))
    said = run_well(world, out)
    assert "validation R@1 12.3" in said and content(out) == changed
    assert (out / "test.json").read_bytes() == (trained / "test.json").read_bytes()
    # A damaged file is made again.
    (out / "baseline.json").write_text("{")
    run_well(world, out)
    assert content(out) == content(trained)


def test_which_it_is(world: Path, tmp_path: Path) -> None:
    def of(**options: object) -> str | None:
        given = {key.replace("__", "."): value for key, value in options.items()}
        return baseline_of(load_recipe(str(world / "recipe.yaml"), options=given))

    clip, vip = str(world / "clip"), str(world / "vip")
    assert of(model__init=clip) == clip
    assert of(model__init=clip, model__from_scratch=True) is None
    assert of(model__init=vip) is None
    assert of(model__init=vip, evaluation__baseline=clip) == clip
    assert of(model__init=clip, evaluation__baseline=None) is None
    run_well(world, tmp_path / "vip", start="vip")
    assert not (tmp_path / "vip" / "baseline.json").exists()
    run_well(world, tmp_path / "vip", "--set", f"evaluation.baseline={clip}", start="vip")
    assert content(tmp_path / "vip")["model"] == clip


def test_a_start_in_a_store(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("clip", "vip"):
        shutil.copytree(world / name, tmp_path / "bucket" / name)
    with s3_server(tmp_path) as address:
        use_s3(monkeypatch, address)
        for name, wanted in (("clip", "s3://bucket/clip"), ("vip", None)):
            options = {"model.init": f"s3://bucket/{name}"}
            assert baseline_of(load_recipe(str(world / "recipe.yaml"), options=options)) == wanted


def test_mistakes_are_told_before_anything_is_trained(world: Path, tmp_path: Path) -> None:
    make_text_tower(tmp_path / "text")
    toneless = shutil.copytree(world / "clip", tmp_path / "toneless")
    for path in toneless.glob("tokenizer*"):
        path.unlink()
    for model, says in (
        (tmp_path / "text", "of type 'clip_text_model', expected clip or clip_vip or siglip"),
        (tmp_path / "none", "none: no such model folder"),
        (toneless, "no model folder with a tokenizer"),
        (world / "recipe.yaml", "no model folder with a tokenizer"),
        ("none", "evaluation.baseline: none is no model; write null for no baseline"),
    ):
        line = error_of(run(world, tmp_path / "run", "--set", f"evaluation.baseline={model}"))
        assert str(model) in line and says in line and line.startswith("Error: evaluation.baseline: ")
        assert not (tmp_path / "run").exists()


def test_tensorboard_has_it_in_the_same_charts(world: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_well(world, tmp_path / "run", "--set", "run.tensorboard=true")
    found = {}
    for name in ("", "baseline"):
        events = EventAccumulator(str(tmp_path / "run" / "tensorboard" / name))
        events.Reload()
        found[name] = [(event.step, event.value) for event in events.Scalars("validation/mean_rank")]
    of_text = content(tmp_path / "run")["splits"]["validation"]["metrics"]["plain"]["text_to_video"]
    assert [step for step, _ in found["baseline"]] == [step for step, _ in found[""]] == [2, 4]
    assert [value for _, value in found["baseline"]] == pytest.approx([of_text["mean_rank"]] * 2)


@pytest.mark.slow
def test_two_processes_score_it_as_one(world: Path, trained: Path, tmp_path: Path) -> None:
    run_well(world, tmp_path / "run", "--set", "run.processes=2")
    two, one = (content(out)["splits"]["test"]["metrics"] for out in (tmp_path / "run", trained))
    for name in ("r1", "r5", "r10", "mean_rank"):
        assert two["plain"]["text_to_video"][name] == pytest.approx(one["plain"]["text_to_video"][name])
