"""Training on clips with several captions, of several folders: one drawn on each pass, or all of them."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPTokenizer

import train_runs
from batch_plans import batches, joined, plan_of
from clipvip.model.flops import text_flops
from clipvip.model.variants import VARIANTS
from clipvip.pipeline.train.batches import plan_batches
from clipvip.pipeline.train.checkpoint import TrainState
from clipvip.pipeline.train.distributed import Place
from clipvip.pipeline.train.launch import launch
from clipvip.pipeline.train.loop import batches_of, prepare
from clipvip.pipeline.train.memory import saved_bytes
from clipvip.pipeline.train.recipe import Recipe, recipe_from_tree
from clipvip.pipeline.train.step import compute_gradients, step_flops
from clipvip.shards.format.captions import write_captions
from clipvip.shards.format.manifest import write_manifest
from make_shards import make_shard_folder
from plain_captions import plain_softmax
from tiny_clip import MAX_TOKENS, make_clip
from train_functions import gradients_and_steps, plain_gradients, save_gradients_and_steps

ALONE = Place(0, 1, torch.device("cpu"))
NUM_STEPS = 2
NUM_CLIPS = 8


def caption_of(folder: str, shard: int, clip: int, n: int) -> str:
    return f"{folder} {n} sees {shard} {clip}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, and two folders of captions: clip i has i % 4 captions in one, and one or none in the other."""
    folder = tmp_path_factory.mktemp("several")
    (folder / "recipe.yaml").write_text(train_runs.RECIPE)
    make_clip(folder / "clip")
    make_shard_folder(folder / "clips", num_shards=2, clips_per_shard=NUM_CLIPS)
    for name in ("ofa", "blip"):
        (folder / name).mkdir()
    for shard in range(2):
        keys = {number: f"video{shard}_{number:05d}" for number in range(NUM_CLIPS)}
        texts = {
            key: [caption_of("ofa", shard, number, n) for n in range(number % 4)]
            for number, key in keys.items()
            if number % 4
        }
        path = folder / "ofa" / f"{shard:06d}.parquet"
        several = {key: some for key, some in texts.items() if len(some) > 1}
        write_captions(path, [(key, some[0]) for key, some in texts.items()], alternatives=several)
        rows = [(key, caption_of("blip", shard, number, 0)) for number, key in keys.items() if number != 4]
        write_captions(folder / "blip" / f"{shard:06d}.parquet", rows)
    return folder


def tree_of(world: Path, **data: Any) -> dict[str, Any]:
    captions = [str(world / "ofa"), str(world / "blip")]
    return {
        "data": {"sources": {"clips": {"shards": str(world / "clips"), "captions": captions}},
                 "num_frames": 3, "max_text_tokens": MAX_TOKENS, **data},
        "model": {"init": str(world / "clip"), "logit_scale": 2.0},
        "optim": {"batch_size": 13, "steps": NUM_STEPS, "learning_rate": 1e-4},
        "run": {"workers": 0, "device": "cpu"},
    }  # fmt: skip


def recipe_of(tree: dict[str, Any], **run: Any) -> Recipe:
    return recipe_from_tree({**tree, "run": {**tree["run"], **run}}, name="test")


def expected_captions(key: str) -> list[str]:
    shard, number = int(key[5]), int(key[-5:])
    of_ofa = [caption_of("ofa", shard, number, n) for n in range(number % 4)]
    return of_ofa + ([caption_of("blip", shard, number, 0)] if number != 4 else [])


def texts_of(chunks: list[Any], tokenizer: CLIPTokenizer) -> dict[str, list[str]]:
    """Key -> the captions that its row is given, in order."""
    found = {}
    for chunk in chunks:
        texts = tokenizer.batch_decode(chunk.caption_ids, skip_special_tokens=True)
        of_row = len(texts) // len(chunk.keys)
        has = chunk.has_caption.view(len(chunk.keys), -1)
        for row, key in enumerate(chunk.keys):
            some = texts[row * of_row : (row + 1) * of_row]
            found[key] = some[: int(has[row].sum())]
            assert not any(some[len(found[key]) :])
    return found


def spoken(tokenizer: CLIPTokenizer, texts: list[str]) -> list[str]:
    ids = tokenizer(texts, truncation=True, max_length=MAX_TOKENS)["input_ids"] if texts else []
    return tokenizer.batch_decode(ids, skip_special_tokens=True) if ids else []


def test_all_captions_of_all_folders_are_encoded(
    world: Path, tokenizer: CLIPTokenizer, tmp_path: Path
) -> None:
    sources = tree_of(world)["data"]["sources"]
    plan = plan_of(sources, tmp_path, data={"captions": "all"}, pairs="d", batch_size=16)
    (chunks,) = batches(plan, tokenizer, steps=range(1), chunk_size=5)
    found = texts_of(chunks, tokenizer)
    assert len(found) == 16
    for key, texts in found.items():
        assert texts == spoken(tokenizer, expected_captions(key)), key
    assert sum(chunk.num_rows_without_caption for chunk in chunks) == 2  # the fourth clips have none
    two = plan_of(sources, tmp_path, data={"captions": "all", "max_captions": 2}, pairs="d", batch_size=16)
    passes = [texts_of(chunks, tokenizer) for chunks in batches(two, tokenizer, steps=range(6))]
    for key in found:
        drawn = [tuple(one[key]) for one in passes]
        assert {len(some) for some in drawn} == {min(2, len(found[key]))}
        assert all(set(some) <= set(found[key]) for some in drawn)
    assert len({tuple(one["video0_00003"]) for one in passes}) > 1


def test_one_is_drawn_on_each_pass_of_all_folders(
    world: Path, tokenizer: CLIPTokenizer, tmp_path: Path
) -> None:
    """The same whoever loads it, and another on another pass."""
    sources = tree_of(world)["data"]["sources"]
    plan = plan_of(sources, tmp_path, pairs="d", batch_size=16)
    drawn: dict[str, set[str]] = {}
    for chunks in batches(plan, tokenizer, steps=range(40)):
        for key, texts in texts_of(chunks, tokenizer).items():
            drawn.setdefault(key, set()).update(texts)
    for key, texts in drawn.items():
        assert texts == set(spoken(tokenizer, expected_captions(key))), key
    alone = batches(plan, tokenizer, steps=range(3))
    both = [batches(plan, tokenizer, steps=range(3), rank=rank, world_size=2) for rank in range(2)]
    for step, whole in enumerate(alone):
        halves = [*both[0][step], *both[1][step]]
        assert torch.equal(joined(halves, "caption_ids"), joined(whole, "caption_ids"))


def test_the_loss_is_that_of_its_definition(world: Path) -> None:
    """In float64, of the embeddings one by one; of the step's chunks, each with room for other numbers."""
    job = prepare(recipe_of(tree_of(world, captions="all"), chunk_size=1), ALONE, cache=Path("unused"))
    chunks = next(batches_of(job, TrainState()))
    assert len({chunk.num_texts / len(chunk.keys) for chunk in chunks}) > 1
    loss, terms = compute_gradients(job, chunks)
    with torch.no_grad():
        encoded = [job.encode(chunk) for chunk in chunks]
    roles = {"V": "video", "S": "text", "F": "frame", "C": "caption"}
    rows = {x: torch.cat([one[role] for one in encoded]).double() for x, role in roles.items()}
    mask = torch.cat([chunk.has_caption for chunk in chunks if chunk.has_caption is not None])
    expected = {term.name: plain_softmax(rows, mask, 2.0, term) for term in VARIANTS["d"]}
    found = {name.partition("/")[2]: value.item() for name, value in terms.items()}
    assert found == pytest.approx(expected, rel=2e-5)
    assert loss.item() == pytest.approx(sum(expected.values()), rel=2e-5)


@pytest.fixture(scope="module")
def alone(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    save_gradients_and_steps(tree_of(world, captions="all"), folder, NUM_STEPS, ALONE)
    return folder


def assert_close(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, gradient in first.items():
        scale = gradient.abs().max().clamp(min=1e-2)
        assert (gradient - second[name]).abs().max() / scale < 1e-5, name


def test_chunks_and_a_plain_backward_pass_give_the_same(world: Path, alone: Path, tmp_path: Path) -> None:
    tree = tree_of(world, captions="all")
    gradients = load_file(alone / "gradients.safetensors")
    assert_close(plain_gradients(tree), gradients)
    in_chunks = {**tree, "run": {**tree["run"], "chunk_size": 3}}
    save_gradients_and_steps(in_chunks, tmp_path, NUM_STEPS, ALONE)
    assert_close(load_file(tmp_path / "gradients.safetensors"), gradients)
    one, other = load_file(alone / "weights.safetensors"), load_file(tmp_path / "weights.safetensors")
    assert max(float((one[name] - other[name]).abs().max()) for name in one) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("captions", ["all", "one"])
def test_two_processes_give_the_same(world: Path, captions: str, tmp_path: Path) -> None:
    tree = tree_of(world, captions=captions)
    tree["run"]["chunk_size"] = 3
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    save_gradients_and_steps(tree, tmp_path / "one", NUM_STEPS, ALONE)
    assert launch(gradients_and_steps, tree, str(tmp_path / "two"), NUM_STEPS, processes=2) == 0
    one, two = (load_file(tmp_path / name / "gradients.safetensors") for name in ("one", "two"))
    assert_close(one, two)


@pytest.mark.parametrize("captions", ["all", "one"])
def test_a_run_that_is_interrupted_ends_in_the_same_bytes(world: Path, captions: str, tmp_path: Path) -> None:
    def run(out: Path, steps: int) -> None:
        settings = (f"data.captions={captions}", f"optim.steps={steps}", "run.save_every_steps=3")
        changes = [word for one in settings for word in ("--set", one)]
        folders = ["--captions", str(world / "ofa"), "--captions", str(world / "blip")]
        places = {"shards": world / "clips", "init": world / "clip", "out": out}
        arguments = [word for name, place in places.items() for word in (f"--{name}", str(place))]
        result = train_runs.commands.run(
            str(world / "recipe.yaml"), *arguments, *folders, *changes, program=train_runs.main
        )
        assert result.exit_code == 0, result.output

    run(tmp_path / "whole", 6)
    resumed = Path(shutil.copytree(tmp_path / "whole", tmp_path / "resumed"))
    shutil.rmtree(resumed / "checkpoints" / "step-00000006")
    shutil.rmtree(resumed / "model")
    run(resumed, 6)
    name = "model/model.safetensors"
    assert (resumed / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_what_all_captions_cost_is_counted(world: Path) -> None:
    one, job = (
        prepare(recipe_of(tree_of(world, captions=captions)), ALONE, cache=Path("unused"))
        for captions in ("one", "all")
    )
    config = job.model.config
    single, several = one.plan.parts[0].settings, job.plan.parts[0].settings
    # Of folders that others made nobody knows how many they hold.
    assert (single.texts_of_row, several.texts_of_row) == (2, 17)
    fewer, more = (
        saved_bytes(config, settings, num_tokens=MAX_TOKENS, precision="fp32").per_row
        for settings in (single, several)
    )
    assert more > 2 * fewer
    (chunk,), (of_one,) = next(batches_of(job, TrainState())), next(batches_of(one, TrainState()))
    assert chunk.num_tokens == of_one.num_tokens
    num_more = chunk.num_texts - of_one.num_texts
    assert num_more == 3 * len(chunk.keys)
    of_texts = 3 * num_more * text_flops(config, chunk.num_tokens)
    assert step_flops([chunk], config) == step_flops([of_one], config) + of_texts


def test_how_many_a_clip_may_have_is_known_of_our_own_folders(world: Path, tmp_path: Path) -> None:
    folders = []
    for name, options in (("ofa", {"num_beams": 5, "frames": 3}), ("blip", {"num_beams": 5})):
        folders.append(Path(shutil.copytree(world / name, tmp_path / name)))
        write_manifest(folders[-1], stage="caption", options=options, shards=[])
    tree = tree_of(world, captions="all")
    tree["data"]["sources"]["clips"]["captions"] = list(map(str, folders))
    (part,) = plan_batches(recipe_of(tree), cache=tmp_path).parts
    assert part.settings.num_captions == 4
    (part,) = plan_batches(recipe_of(tree_of(world, captions="all", max_captions=2)), cache=tmp_path).parts
    assert part.settings.num_captions == 2


def test_a_run_that_an_earlier_version_began_takes_the_first_folder_that_has_a_clip(
    world: Path, tokenizer: CLIPTokenizer, tmp_path: Path
) -> None:
    plan = plan_batches(recipe_of(tree_of(world)), cache=tmp_path, order_version=2)
    drawn: dict[str, set[str]] = {}
    for chunks in batches(plan, tokenizer, steps=range(30)):
        for key, texts in texts_of(chunks, tokenizer).items():
            drawn.setdefault(key, set()).update(texts)
    for key, texts in drawn.items():
        expected = expected_captions(key)
        of_first = [text for text in expected if text.startswith("ofa")] or expected
        assert texts == set(spoken(tokenizer, of_first)), key
