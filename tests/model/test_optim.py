"""Learning rates and weight decay as in the published code."""

import math

import pytest
import torch

from clipvip.model import ClipVip, ClipVipConfig
from clipvip.model.optim import (
    freeze_key_biases,
    is_decayed,
    learning_rate,
    parameter_groups,
    rate_factors,
)
from goldens import PREFIX, full_config, largest_difference, manifest, tensors


@pytest.mark.parametrize("decay", ["cosine", "linear", "constant"])
def test_schedule(decay: str) -> None:
    golden = manifest("lr_schedule")
    checked = 0
    for base, by_step in golden["values"][decay].items():
        for step, expected in by_step.items():
            # The published code's constant rate has no warm-up; recipes say so by a fraction of zero.
            warmup = 0.0 if decay == "constant" else golden["warmup_ratio"]
            rate = learning_rate(
                float(base), int(step), golden["total_steps"], warmup_fraction=warmup, decay=decay
            )
            assert rate == pytest.approx(expected, rel=1e-12), (base, step)
            checked += 1
    assert checked == 27


def test_edges_of_the_schedule() -> None:
    edges = manifest("lr_schedule")["edge_cases"]
    found = {
        "past_the_end_1100": learning_rate(1e-6, 1100, 1000),
        "warmup_rounds_to_0 (50 steps) step 0": learning_rate(1e-6, 0, 50),
        "warmup_rounds_to_0 (50 steps) step 1": learning_rate(1e-6, 1, 50),
        "int(0.29*100)=28 warm-up step 28": learning_rate(1.0, 28, 100, warmup_fraction=0.29),
        "int(0.29*100)=28 step 27": learning_rate(1.0, 27, 100, warmup_fraction=0.29),
        "MSRVTT fine-tune 7032 steps, step 70": learning_rate(1e-6, 70, 7032),
        "step 7031 of 7032": learning_rate(1e-6, 7031, 7032),
        "linear past the end 1100": learning_rate(1e-6, 1100, 1000, decay="linear"),
    }
    for name, rate in found.items():
        assert rate == pytest.approx(edges[name], rel=1e-12), name
    assert set(edges) - set(found) == {"all warm-up (ratio 1) step 1000"}


def test_a_run_that_is_all_warm_up_reaches_the_base_rate() -> None:
    assert learning_rate(1.0, 10, 10, warmup_fraction=1.0) == 1.0
    assert learning_rate(1.0, 5, 10, warmup_fraction=1.0) == 0.5
    with pytest.raises(ValueError, match="must be positive"):
        learning_rate(1.0, 0, 0)


@pytest.mark.parametrize("size", ["B/32", "B/16"])
def test_groups_of_a_full_size_model(size: str) -> None:
    golden = manifest("full_size")["models"][size]
    expected = {
        entry["name"].removeprefix(PREFIX): entry["weight_decay"]
        for entry in golden["tensors"]
        if entry["kind"] == "parameter"
    }
    with torch.device("meta"):
        model = ClipVip(full_config(size))
    assert {name: is_decayed(name) for name, _ in model.named_parameters()} == expected
    decayed, others = parameter_groups(model, weight_decay=0.2)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.2, 0.0)
    assert len(decayed["params"]) == golden["n_decayed_parameters"]
    assert len(others["params"]) == golden["n_not_decayed"]
    assert len({id(p) for group in (decayed, others) for p in group["params"]}) == len(expected)


def test_frozen_parameters_are_in_no_group() -> None:
    model = torch.nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    decayed, others = parameter_groups(model, weight_decay=0.2)
    assert [len(decayed["params"]), len(others["params"])] == [1, 0]


def test_key_biases_are_frozen_since_they_change_nothing() -> None:
    torch.manual_seed(0)
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = {**tower, "image_size": 32, "patch_size": 16}
    model = ClipVip(ClipVipConfig(vision_config=vision, text_config={**tower, "vocab_size": 30}))
    pixels = torch.randn(1, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before = model.get_video_features(pixels)
    freeze_key_biases(model)
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert len(frozen) == sum(name.endswith("k_proj.bias") for name, _ in model.named_parameters()) > 0
    with torch.no_grad():
        for name in frozen:
            model.get_parameter(name).add_(1.0)
    torch.testing.assert_close(model.get_video_features(pixels), before, rtol=1e-5, atol=1e-6)


def test_rates_fall_from_the_head_to_the_embeddings_in_both_towers() -> None:
    with torch.device("meta"):
        model = ClipVip(full_config("B/32"))
    factors = rate_factors(model, multipliers={}, layer_decay=0.5)
    for tower in ("text_model", "vision_model"):
        of_layers = [factors[f"{tower}.encoder.layers.{layer}.mlp.fc1.weight"] for layer in range(12)]
        assert of_layers == [0.5**below for below in range(12, 0, -1)]
        assert factors[f"{tower}.embeddings.position_embedding.weight"] == 0.5**13 == min(factors.values())
    whole = {name for name, factor in factors.items() if factor == 1.0}
    heads = ("visual_projection", "text_projection", "final_layer_norm", "post_layernorm", "logit_scale")
    assert whole == {name for name in factors if any(head in name for head in heads)}
    for lowest in ("embeddings.added_cls", "pre_layrnorm.bias"):
        assert factors[f"vision_model.{lowest}"] == 0.5**13
    # Towers of other depths each count their own layers.
    shallow = ClipVip(ClipVipConfig(vision_config={"num_hidden_layers": 2}, text_config={"vocab_size": 30}))
    factors = rate_factors(shallow, multipliers={}, layer_decay=0.5)
    assert factors["vision_model.encoder.layers.0.mlp.fc1.weight"] == 0.25
    assert factors["text_model.encoder.layers.0.mlp.fc1.weight"] == 0.5**12


def test_the_last_pattern_counts_on_top_of_layer_decay() -> None:
    with torch.device("meta"):
        model = ClipVip(full_config("B/32"))
    patterns = {"*": 0.0, "vision_model.*": 2.0, "*.layers.11.*": 3.0, "logit_scal?": 10.0}
    factors = rate_factors(model, multipliers=patterns, layer_decay=0.5)
    assert factors["logit_scale"] == 10.0 and factors["text_projection.weight"] == 0.0
    assert factors["vision_model.encoder.layers.10.mlp.fc1.bias"] == 2.0 * 0.25
    assert factors["text_model.encoder.layers.11.mlp.fc1.bias"] == 3.0 * 0.5
    with pytest.raises(ValueError, match=r"'vision\.\*' matches no parameter; names are such as log"):
        rate_factors(model, multipliers={"vision.*": 0.1})
    with pytest.raises(ValueError, match="leave something to train"):
        rate_factors(model, multipliers={"*": 0})


def test_groups_hold_each_parameter_once_by_its_factor() -> None:
    with torch.device("meta"):
        model = ClipVip(full_config("B/32"))
    factors = rate_factors(model, multipliers={"logit_scale": 10.0}, layer_decay=0.9)
    groups = parameter_groups(model, weight_decay=0.2, factors=factors)
    found = {id(p): (g["rate_factor"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert sum(len(group["params"]) for group in groups) == len(found) == len(factors)
    for name, parameter in model.named_parameters():
        assert found[id(parameter)] == (factors[name], 0.2 if is_decayed(name) else 0.0)


def _steps(optimizer_class: type, **options: object) -> list[dict[str, torch.Tensor]]:
    golden = tensors("adamw")
    leaves = {n: golden[f"in/{n}"].double().clone().requires_grad_() for n in ("decayed", "not_decayed")}
    optimizer = optimizer_class(
        [
            {"params": [leaves["decayed"]], "weight_decay": 0.2},
            {"params": [leaves["not_decayed"]], "weight_decay": 0.0},
        ],
        lr=1e-2,
        betas=(0.9, 0.98),
        **options,
    )
    history = []
    for step in range(6):
        for name, leaf in leaves.items():
            leaf.grad = golden[f"in/grad/{step}/{name}"].double()
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (step + 1) / 6
        optimizer.step()
        history.append({name: leaf.detach().clone() for name, leaf in leaves.items()})
    return history


def test_fused_adamw_stays_by_the_published_variant() -> None:
    """It decays before the update and adds epsilon after bias correction: within 0.2 % of the way gone."""
    golden = tensors("adamw")
    steps = _steps(torch.optim.AdamW, eps=1e-6, fused=True)
    assert len(steps) > 3 and all(len(found) > 1 for found in steps)
    for step, found in enumerate(steps):
        for name, value in found.items():
            expected = golden[f"out_f64/{step}/{name}"]
            way = (expected - golden[f"in/{name}"].double()).abs().max().item()
            assert largest_difference(value, expected) <= 2e-3 * way
            assert largest_difference(value, expected) <= 3.2e-5
    assert math.isclose(
        manifest("adamw")["torch_adamw_distance_max_abs_f64"]["torch.optim.AdamW eps=1e-06"],
        max(
            largest_difference(value, golden[f"out_f64/{step}/{name}"])
            for step, found in enumerate(_steps(torch.optim.AdamW, eps=1e-6))
            for name, value in found.items()
        ),
        rel_tol=1e-3,
    )
