"""Recipes: reading, overriding, and one line on every mistake."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.train.recipe import (
    Optim,
    Recipe,
    differences,
    dump_recipe,
    load_recipe,
    recipe_from_tree,
)
from clipvip.pipeline.train.recipe_names import packaged_recipes


def read(tmp_path: Path, text: str, *overrides: str) -> Recipe:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    return load_recipe(str(path), overrides)


def test_numbers_without_a_dot_are_numbers(tmp_path: Path) -> None:
    recipe = read(tmp_path, "optim: {epochs: 3, learning_rate: 5e-6}", "optim.weight_decay=5e-2")
    assert recipe.optim.learning_rate == 5e-6
    assert recipe.optim.weight_decay == 0.05


def test_override_makes_sections_and_takes_yaml_values(tmp_path: Path) -> None:
    recipe = read(
        tmp_path,
        "",
        "optim.epochs=2",
        "data.sources.clips.shards=[a, b]",
        "data.sources.pictures.kind=images",
        "model.num_proxies=8",
    )
    assert recipe.data.sources["clips"].shards == ["a", "b"]
    assert recipe.data.sources["pictures"].kind == "images"
    assert recipe.model.num_proxies == 8
    assert list(read(tmp_path, "", "data.sources.more.kind=images").data.sources) == ["clips", "more"]


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        (
            "optim: {epochs: 1, learning_rat: 1}",
            (),
            "unknown key optim.learning_rat; did you mean optim.learning_rate?",
        ),
        ("", ("data.keep=",), "--set data.keep=: has no value; give one, or data.keep=null for none"),
        ("", ("optim.steps=99999999999", "optim.epochs=null"), "optim.steps: 99999999999 is more than"),
        ("", ("optim.clip_norm=1e300", "optim.steps=1"), "optim.clip_norm: 1e+300 is more than 3.4e+38"),
        ("run: {batch_size: 3}", (), "unknown key run.batch_size; did you mean optim.batch_size?"),
        ("otim: {}", (), "unknown key otim; did you mean optim?"),
        ("data: {sources: {clips: {shard: x}}}", (), "did you mean data.sources.clips.shards?"),
        (
            "optim: {epochs: 1, learning_rate: fast}",
            (),
            "optim.learning_rate: input should be a valid number",
        ),
        ("optim: {epochs: 1, learning_rate: -1}", (), "optim.learning_rate: input should be greater than 0"),
        ("optim: {epochs: 1, steps: 2}", (), "either epochs or steps: --set optim.epochs=null or --set"),
        (
            "optim: {epochs: 1}",
            ("optim.steps=2",),
            "either epochs or steps: --set optim.epochs=null or --set",
        ),
        ("optim: {}", (), "give either epochs or steps"),
        ("model: {num_proxy: 2}", (), "unknown key model.num_proxy; did you mean model.num_proxies?"),
        ("model: {encoder: nope}", (), "model.encoder: encoder 'nope' is none of vip, mean_pool"),
        ("loss: {pairs: e}", (), "loss.pairs: loss 'e' is none of baseline, a, b"),
        ("data: {sources: {}}", (), "data.sources: "),
        ("[1, 2]", (), "a recipe is a mapping"),
        ("a: [", (), "not YAML"),
        ("", ("optim.learning_rate",), "write it as key=value"),
        ("seed: 3", ("seed.x=4",), "seed is a value, not a section"),
        (f"seed: {2**63}", (), "seed: input should be less than"),
        (
            "model: {temporal_size: 1000000000}",
            (),
            "model.temporal_size: input should be less than or equal to",
        ),
        ("data: {num_frames: true}", (), "data.num_frames: input should be a number (given: True)"),
        ("model: {logit_scale: 5.4}", (), "model.logit_scale is 5.4, above 5.298"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, text: str, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read(tmp_path, text, *overrides)
    assert "\n" not in caught.value.message


def test_a_recipe_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"recipe\.yaml: a recipe is a mapping of sections"):
        load_recipe(str(path))


def test_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'pretrain_vip_b32'"):
        load_recipe("pretrain_b32")


def test_packaged_recipes_hold_the_papers_numbers() -> None:
    assert {"pretrain_vip_b16", "pretrain_vip_b32"} <= set(packaged_recipes())
    for name in packaged_recipes():
        load_recipe(name)
    recipe = load_recipe("pretrain_vip_b32")
    expected = Optim(
        batch_size=1024,
        epochs=3,
        learning_rate=5e-6,
        weight_decay=0.05,
        beta1=0.9,
        beta2=0.98,
        epsilon=1e-6,
        warmup_fraction=0.01,
        clip_norm=5.0,
        max_scale=200.0,
        precision="auto",
    )
    assert recipe.optim == expected
    assert (recipe.data.num_frames, recipe.data.max_text_tokens) == (12, 70)
    assert (recipe.loss.pairs, recipe.loss.weighting) == ("d", "released")
    assert recipe.model.logit_scale == 4.6
    changed = differences(recipe, load_recipe("pretrain_vip_b16"))
    assert changed == ["model.init: 'openai/clip-vit-base-patch32', now 'openai/clip-vit-base-patch16'"]


@pytest.mark.parametrize(
    ("name", "epochs", "num_frames", "max_text_tokens"),
    [
        ("msrvtt", 100, 12, {"b32": 50, "b16": 50}),
        ("didemo", 20, 12, {"b32": 50, "b16": 70}),
        ("lsmdc", 10, 12, {"b32": 50, "b16": 50}),
        ("activitynet", 20, 32, {"b32": 70, "b16": 70}),
    ],
)
def test_fine_tuning_recipes_hold_the_papers_numbers(
    name: str, epochs: int, num_frames: int, max_text_tokens: dict[str, int]
) -> None:
    for size, tokens in max_text_tokens.items():
        recipe = load_recipe(f"finetune_{name}_{size}")
        optim = recipe.optim
        assert (optim.batch_size, optim.learning_rate, optim.weight_decay) == (128, 1e-6, 0.2)
        assert (optim.epochs, optim.clip_norm, optim.warmup_fraction) == (epochs, 1.0, 0.01)
        assert (recipe.data.num_frames, recipe.data.max_text_tokens) == (num_frames, tokens)
        assert (recipe.loss.pairs, recipe.model.logit_scale) == ("baseline", None)


@given(
    seed=st.integers(0, 2**40),
    learning_rate=st.floats(1e-12, 1e3),
    shards=st.one_of(st.text(), st.lists(st.text(), min_size=1)),
    pairs=st.sampled_from(["baseline", "a", "b", "c", "d", "V-C"]),
)
def test_saved_recipe_reads_back_equal(seed: int, learning_rate: float, shards: object, pairs: str) -> None:
    import yaml

    tree = {
        "seed": seed,
        "optim": {"steps": 3, "learning_rate": learning_rate},
        "data": {"sources": {"clips": {"shards": shards}}},
        "loss": {"pairs": pairs},
    }
    recipe = recipe_from_tree(tree, name="test")
    assert recipe_from_tree(yaml.safe_load(dump_recipe(recipe)), name="test") == recipe


def test_differences_leave_out_how_it_is_computed(tmp_path: Path) -> None:
    first = read(tmp_path, "optim: {epochs: 1}")
    second = read(tmp_path, "optim: {epochs: 1}", "run.workers=9", "loss.pairs=a")
    assert differences(first, second) == ["loss.pairs: 'd', now 'a'"]
