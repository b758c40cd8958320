"""`clipvip-data interpolate`: what lies between two models, and that its ends are the models themselves."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from safetensors.torch import load_file, save_file

import clipvip
import commands
from clipvip.model import ClipVip, ClipVipConfig
from clipvip.pipeline.cli import main
from clipvip.pipeline.evaluate.cli import main as evaluate
from clipvip.pipeline.train.recipe import load_recipe
from clipvip.pipeline.train.start import start_model
from clipvip.shards.tar.reader import Sample
from make_shards import make_captioned_folder
from tiny_clip import make_clip, tiny_tokenizer, wide_model
from tiny_siglip import make_siglip
from train_runs import RECIPE
from train_runs import run as train

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)


def interpolate(*words: object) -> Result:
    return commands.run("interpolate", *map(str, words), "--device", "cpu", program=main)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def train_from(world: Path, out: Path, *more: str) -> Path:
    settings = ("--captions", "", "--set", "loss.pairs=baseline", "--set", "optim.steps=4", "--set", "seed=7")
    result = train(world, out, *settings, *more)
    assert result.exit_code == 0, result.output
    return out / "model"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interpolate")
    make_clip(folder / "clip")
    make_captioned_folder(folder / "clips", [[f"picture {number}"] for number in range(12)])
    make_captioned_folder(folder / "val", [[f"other picture {number}"] for number in range(21)])
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def tuned(world: Path) -> Path:
    return train_from(world, world / "tuned")


@pytest.fixture(scope="module")
def start(world: Path, tuned: Path) -> Path:
    """What `tuned` was trained from, as training made it."""
    recipe = load_recipe(str(tuned.parent / "recipe.yaml"))
    start_model(recipe).save_pretrained(world / "start")
    return world / "start"


def scored(model: Path, shards: Path, tmp_path: Path) -> dict[str, dict[str, float]]:
    out = tmp_path / f"scores-of-{model.name}"
    words = ("--model", str(model), "--shards", str(shards), "--device", "cpu", "--out", str(out))
    assert commands.run("retrieval", *words, program=evaluate).exit_code == 0
    found = json.loads((out / "retrieval.json").read_text())["metrics"]["plain"]
    return {name: found[name] for name in ("text_to_video", "video_to_text")}


def test_weights_are_on_the_line_and_the_start_is_that_of_training(
    world: Path, tuned: Path, start: Path, tmp_path: Path
) -> None:
    ends = weights(start), weights(tuned)
    for alpha in (0, 0.25, 0.5, 1):
        out = tmp_path / str(alpha)
        result = interpolate(world / "clip", tuned, "--alpha", alpha, "--seed", 7, "--out", out)
        assert result.exit_code == 0, result.output
        assert result.output.endswith(f"-> {out}\n")
        for name, value in weights(out).items():
            if name == "logit_scale":  # a setting of the recipe, not of CLIP
                continue
            one, other = (end[name].double() for end in ends)
            if alpha in (0, 1):
                assert torch.equal(value, ends[alpha][name]), name
            expected = (1 - alpha) * one + alpha * other
            torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-8)
        model = ClipVip.from_pretrained(out)
        assert model.config.num_frames == 3 and model.tokenizer is not None
    card = (tmp_path / "0.25" / "README.md").read_text()
    assert "0.75 of the start's and 0.25 of the fine-tuned model's" in card and str(world) not in card


def test_the_ends_of_the_curve_are_what_the_evaluation_gives(
    world: Path, tuned: Path, start: Path, tmp_path: Path
) -> None:
    words = ("--alpha", "1,0,0.25,.5,0.50,0.75", "--eval", world / "val", "--bootstrap", 50)
    result = interpolate(start, tuned, *words, "--results", tmp_path / "curve", "--out", tmp_path / "best")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "curve" / "interpolation.json").read_text())
    points = {point.pop("alpha"): point for point in found["points"]}
    assert tuple(points) == ALPHAS
    for alpha, model in ((0.0, start), (1.0, tuned)):
        expected = scored(model, world / "val", tmp_path)
        for direction, metrics in expected.items():
            metrics.pop("intervals")
            point = points[alpha][direction]
            assert point.pop("intervals")["mean_recall"] and point == metrics
    best = found["best"]["alpha"]
    means = {alpha: point["text_to_video"]["mean_recall"] for alpha, point in points.items()}
    assert means[best] == max(means.values()) and best == min(a for a in means if means[a] == means[best])
    # The best is what was saved, and it scores what the curve says.
    again = scored(tmp_path / "best", world / "val", tmp_path)
    assert again["text_to_video"]["mean_recall"] == means[best]
    assert f"alpha {best:g} of {start} to {tuned}" in result.output
    for alpha in ALPHAS:
        assert any(line.split()[:1] == [f"{alpha:g}"] for line in result.output.splitlines())
    svg = (tmp_path / "curve" / "interpolation.svg").read_text()
    assert svg.startswith("<svg xmlns=") and "alpha" in svg and "text to video" in svg
    assert found["num_clips"] == 21 and found["queries"] == "subtitles"


def test_points_between_score_what_their_models_score_and_clips_are_read_once(
    world: Path, tuned: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, read = Sample.decode, []

    def counting(sample: Sample, *arguments: Any, **options: Any) -> Any:
        read.append(sample.key)
        return decode(sample, *arguments, **options)

    monkeypatch.setattr(Sample, "decode", counting)
    report = clipvip.interpolate(start, tuned, alpha=ALPHAS, eval=world / "val", bootstrap=0, device="cpu")
    assert len(read) == len(set(read)) == 21
    monkeypatch.undo()
    assert interpolate(start, tuned, "--alpha", "0.75", "--out", tmp_path / "m").exit_code == 0
    expected = scored(tmp_path / "m", world / "val", tmp_path)
    plain = report.scores[0.75].metrics["plain"]
    for direction, metrics in expected.items():
        assert getattr(plain, direction).mean_recall == metrics["mean_recall"]
        assert getattr(plain, direction).mean_rank == metrics["mean_rank"]


def _other_size(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["num_attention_heads"] = 2
    (folder / "config.json").write_text(json.dumps(config))


def _other_proxies(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_proxies": 2}))


def _other_colours(folder: Path) -> None:
    config = ClipVipConfig.from_pretrained(folder)
    config.image_mean = [0.5, 0.5, 0.5]
    config.save_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (_other_size, "vision_config.num_attention_heads is 2 and 4"),
        (_other_proxies, "num_proxies is 2 and 4"),
        (_other_colours, "normalization is"),
        (lambda folder: ClipVip.from_clip(folder, encoder="mean_pool").save_pretrained(folder),
         "encoder is 'mean_pool' and 'vip'"),
        (lambda folder: (shutil.rmtree(folder), make_siglip(folder)), "projection_dim is 32 and 16"),
    ],
)  # fmt: skip
def test_other_architectures_are_refused_in_one_line_that_names_the_field(
    tuned: Path, start: Path, tmp_path: Path, change: Callable[[Path], object], field: str
) -> None:
    shutil.copytree(start, tmp_path / "a")
    change(tmp_path / "a")
    result = interpolate(tmp_path / "a", tuned, "--alpha", 0.5, "--out", tmp_path / "out")
    assert result.exit_code == 1 and result.output.count("\n") == 1
    assert f"are of different architectures, {field}" in result.output
    assert not (tmp_path / "out").exists()


def test_a_clip_of_other_sizes_is_refused(world: Path, tuned: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "clip", tmp_path / "clip")
    _other_size(tmp_path / "clip")
    result = interpolate(tmp_path / "clip", tuned, "--alpha", 0.5, "--out", tmp_path / "out")
    assert result.exit_code == 1 and "vision_config.num_attention_heads is 2 and 4" in result.output


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        (("--alpha", "0.5"), "there is nothing to do", 2),
        (("--alpha", "0,1", "--out", "OUT"), "give --eval to choose by", 2),
        (("--alpha", "1.5", "--out", "OUT"), "give numbers from 0 to 1", 2),
        (("--alpha", "-1", "--out", "OUT"), "give numbers from 0 to 1", 2),
        (("--alpha", ",", "--out", "OUT"), "give numbers from 0 to 1", 2),
        (("--alpha", "1", "--out", "OUT", "--results", "x"), "--results: works only with --eval", 2),
        (("--alpha", "1", "--out", "FULL"), "already exists", 1),
        (("--alpha", "1", "--out", "OUT", "--eval", "nothing"), "nothing", 1),
    ],
)
def test_what_makes_no_sense_is_refused(
    tuned: Path, start: Path, tmp_path: Path, words: tuple[str, ...], message: str, code: int
) -> None:
    places = {"OUT": str(tmp_path / "out"), "FULL": str(tuned)}
    result = interpolate(start, tuned, *(places.get(word, word) for word in words))
    assert result.exit_code == code and message in result.output
    assert not (tmp_path / "out").exists()


def test_both_may_be_released_checkpoints(tmp_path: Path) -> None:
    start, end = wide_model(), wide_model()
    start.tokenizer = tiny_tokenizer()
    start.save_pretrained(tmp_path / "a")
    with torch.no_grad():
        for parameter in end.parameters():
            parameter.add_(0.1)
    for name, model in (("a.pt", start), ("b.pt", end)):
        state = {f"clipmodel.{name}": value for name, value in model.state_dict().items()}
        torch.save(state, tmp_path / name)
    out = tmp_path / "of-files"
    result = interpolate(tmp_path / "a.pt", tmp_path / "b.pt", "--alpha", 0, "--out", out)
    assert result.exit_code == 0, result.output
    assert all(torch.equal(weights(out)[name], value) for name, value in start.state_dict().items())
    out = tmp_path / "out"
    result = interpolate(tmp_path / "a", tmp_path / "b.pt", "--alpha", 0.25, "--out", out)
    assert result.exit_code == 0, result.output
    for name, value in start.state_dict().items():
        torch.testing.assert_close(weights(out)[name], value + 0.025)
    assert ClipVip.from_pretrained(out).tokenizer is not None


def test_a_clip_as_b_or_a_damaged_model_is_refused(world: Path, tuned: Path, tmp_path: Path) -> None:
    result = interpolate(tuned, world / "clip", "--alpha", 0.5, "--out", tmp_path / "out")
    assert result.exit_code == 1 and "encoder is 'vip' and 'mean_pool'" in result.output
    shutil.copytree(tuned, tmp_path / "b")
    state = weights(tmp_path / "b")
    save_file({**state, "logit_scale": torch.tensor(torch.nan)}, tmp_path / "b" / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    result = interpolate(tuned, tmp_path / "b", "--alpha", 0.5, "--out", tmp_path / "out")
    assert result.exit_code == 1 and "not finite" in result.output and not (tmp_path / "out").exists()


def test_other_starts_frames_by_themselves_another_size_and_siglip(world: Path, tmp_path: Path) -> None:
    make_siglip(tmp_path / "siglip")
    for number, (clip, more) in enumerate(
        [
            (world / "clip", ("model.encoder=seq_transformer", "model.num_frame_layers=1")),
            (world / "clip", ("model.image_size=48", "model.proxy_start=class")),
            (tmp_path / "siglip", ("model.num_proxies=2", "loss.contrast=sigmoid")),
        ]
    ):
        settings = [word for setting in more for word in ("--set", setting)]
        end = train_from(world, tmp_path / f"end{number}", *settings, "--init", str(clip))
        start_model(load_recipe(str(end.parent / "recipe.yaml"))).save_pretrained(tmp_path / f"start{number}")
        out = tmp_path / f"out{number}"
        result = interpolate(clip, end, "--alpha", 0, "--seed", 7, "--out", out)
        assert result.exit_code == 0, result.output
        expected = weights(tmp_path / f"start{number}")
        found = weights(out)
        assert all(torch.equal(found[name], expected[name]) for name in found.keys() - {"logit_scale"})
