"""SigLIP and its loss through training: gradients of chunks and processes, and the command to its scores."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import webdataset as wds
from safetensors.torch import load_file

import commands
from clipvip.model import ClipVip
from clipvip.pipeline.domain_gap.encoder import load_text_encoder
from clipvip.pipeline.evaluate.cli import main as evaluate
from clipvip.pipeline.evaluate.embeddings import ClipEncoder, embed_pairs
from clipvip.pipeline.train.checkpoint import TrainState
from clipvip.pipeline.train.distributed import Place
from clipvip.pipeline.train.launch import launch
from clipvip.pipeline.train.loop import batches_of, prepare
from clipvip.pipeline.train.recipe import load_recipe, recipe_from_tree
from clipvip.pipeline.train.start import start_model
from clipvip.pipeline.train.step import batch_terms
from clipvip.shards.format.captions import write_captions
from clipvip.shards.tar.reader import list_shards
from clipvip.shards.tar.streaming import decode_clip
from make_shards import make_captioned_folder, make_shard_folder
from tiny_clip import MAX_TOKENS, make_clip
from tiny_siglip import WIDTH, make_siglip
from train_functions import gradients_and_steps, save_gradients_and_steps
from train_runs import RECIPE, run

ALONE = Place(0, 1, torch.device("cpu"))
NUM_STEPS = 3


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sigmoid")
    make_siglip(folder / "clip")
    make_shard_folder(folder / "clips", num_shards=2, clips_per_shard=8)
    (folder / "captions").mkdir()
    for shard in range(2):
        keys = [f"video{shard}_{number:05d}" for number in range(8) if number % 4]
        write_captions(
            folder / "captions" / f"{shard:06d}.parquet", [(key, f"picture {key}") for key in keys]
        )
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def tree(world: Path) -> dict[str, Any]:
    clips = {"shards": str(world / "clips"), "captions": str(world / "captions")}
    return {
        "data": {"sources": {"clips": clips}, "num_frames": 3, "max_text_tokens": MAX_TOKENS},
        "model": {"init": str(world / "clip"), "logit_scale": None},
        "loss": {"contrast": "sigmoid"},
        "optim": {"batch_size": 11, "steps": NUM_STEPS, "learning_rate": 1e-4},
        "run": {"workers": 0, "device": "cpu"},
    }


@pytest.fixture(scope="module")
def alone(tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    save_gradients_and_steps(tree, folder, NUM_STEPS, ALONE)
    return folder


def assert_close(first: Path, second: Path) -> None:
    one, other = (load_file(folder / "gradients.safetensors") for folder in (first, second))
    assert one.keys() == other.keys() and {"logit_bias", "logit_scale"} <= one.keys()
    for name, gradient in one.items():
        scale = gradient.abs().max().clamp(min=1e-2)
        assert (gradient - other[name]).abs().max() / scale < 1e-5, name
    one, other = (load_file(folder / "weights.safetensors") for folder in (first, second))
    assert max(float((one[name] - other[name]).abs().max()) for name in one) < 1e-6


def test_the_gradient_is_that_of_a_plain_backward_pass(tree: dict[str, Any], alone: Path) -> None:
    job = prepare(recipe_from_tree(tree, name="test"), ALONE, cache=Path("unused"))
    chunks = next(batches_of(job, TrainState()))
    embeddings = {(c.source, role): rows for c in chunks for role, rows in job.encode(c).items()}
    has_caption = {c.source: c.has_caption for c in chunks if c.has_caption is not None}
    scale, bias = job.model.logit_scale, job.model.logit_bias
    terms = batch_terms(embeddings, has_caption, scale, bias, plan=job.plan, loss=job.recipe.loss)
    assert set(terms) == {"clips/V->S", "clips/V->C", "clips/F->C"}
    torch.stack(list(terms.values())).sum().backward()
    for name, gradient in load_file(alone / "gradients.safetensors").items():
        found = job.model.get_parameter(name).grad
        assert found is not None
        assert (found - gradient).abs().max() < 1e-5 * gradient.abs().max().clamp(min=1e-2), name
    assert bias is not None and bias.grad is not None and bias.grad.abs() > 1e-3


def test_chunks_give_the_same_gradient_and_weights(tree: dict[str, Any], alone: Path, tmp_path: Path) -> None:
    chunked = {**tree, "run": {**tree["run"], "chunk_size": 3}}
    save_gradients_and_steps(chunked, tmp_path, NUM_STEPS, ALONE)
    assert_close(alone, tmp_path)
    start, end = -3.0, load_file(tmp_path / "weights.safetensors")["logit_bias"].item()
    assert start != end


@pytest.mark.slow
def test_two_processes_give_the_same_gradient_and_weights(
    tree: dict[str, Any], alone: Path, tmp_path: Path
) -> None:
    chunked = {**tree, "run": {**tree["run"], "chunk_size": 2}}
    assert launch(gradients_and_steps, chunked, str(tmp_path), NUM_STEPS, processes=2) == 0
    assert_close(alone, tmp_path)


def test_the_command_trains_scores_and_goes_on(world: Path, tmp_path: Path) -> None:
    out, settings = tmp_path / "run", ["--set", "model.logit_scale=null", "--set", "loss.contrast=sigmoid"]
    test = tmp_path / "test"
    make_captioned_folder(test, [["a dog runs"], ["a cat"], ["two birds"]])
    result = run(world, out, *settings, "--set", "optim.steps=3", "--test", str(test))
    assert result.exit_code == 0, result.output
    model = ClipVip.from_pretrained(out / "model")
    assert model.config.is_siglip and model.logit_bias is not None and model.logit_bias.item() != -3.0
    arguments = ["retrieval", "--model", str(out / "model"), "--shards", str(test), "--json"]
    scored = commands.run(*arguments, program=evaluate)
    assert scored.exit_code == 0, scored.output
    assert json.loads(scored.stdout)["result"]
    encoder = load_text_encoder(str(out / "model"), device=torch.device("cpu"))
    assert encoder.encode(["a dog runs"], batch_size=2).shape == (1, WIDTH)
    # As the start of another run, with the paper's loss.
    again = run(world, tmp_path / "again", "--init", str(out / "model"), "--set", "optim.steps=1",
                "--set", "model.logit_scale=null")  # fmt: skip
    assert again.exit_code == 0, again.output


def test_a_clip_begins_with_siglips_bias(tree: dict[str, Any], tmp_path: Path) -> None:
    init = {"model": {"init": str(make_clip(tmp_path)), "logit_scale": 2.0}}
    model = start_model(recipe_from_tree(tree | init, name="test"))
    assert model.logit_bias is not None and model.logit_bias.item() == -10.0
    without = tree | init | {"loss": {}}
    assert start_model(recipe_from_tree(without, name="test")).logit_bias is None


def test_longer_texts_than_siglips_table_are_refused(world: Path, tmp_path: Path) -> None:
    result = run(world, tmp_path / "run", "--set", "data.max_text_tokens=70")
    assert result.exit_code == 1 and f"takes {MAX_TOKENS} at most" in result.output


def test_a_setting_that_does_not_go_with_the_start_is_one_line(world: Path, tmp_path: Path) -> None:
    """Also of the packaged recipe `demo`, which begins with copies of the class token."""
    result = run(world, tmp_path / "run", "--set", "model.proxy_start=class", "--dry-run")
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert "does not go with model.proxy_start = 'class': SigLIP has no class token" in result.output
    assert not (tmp_path / "run").exists()


def test_the_recipe_of_siglip_2() -> None:
    recipe = load_recipe("pretrain_vip_siglip2_b16")
    assert (recipe.loss.contrast, recipe.model.logit_scale, recipe.data.max_text_tokens) == (
        "sigmoid",
        None,
        64,
    )


def test_scores_are_of_pixels_that_are_normalised_as_the_models(world: Path) -> None:
    model = ClipVip.from_clip(world / "clip", num_frames=3)
    shards = list_shards(world / "clips")
    found = embed_pairs(ClipEncoder(model, 4, shows_progress=False), shards)
    urls = [str(path) for path in shards]
    clips = list(wds.WebDataset(urls, shardshuffle=False).map(partial(decode_clip, num_frames=3)))
    expected = model.encode_video([clip["frames"] for clip in clips])
    # Loading processes resize in whole numbers, which changes a little.
    assert (torch.from_numpy(found.videos) - expected).abs().max() < 0.005
    model.config.image_mean = model.config.image_std = None
    assert (model.encode_video([clip["frames"] for clip in clips]) - expected).abs().max() > 0.03
