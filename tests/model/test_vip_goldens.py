"""ClipVip and the mean-pool baseline against what the published code computed on the same random weights."""

import pytest
import torch
from torch import Tensor
from transformers import CLIPTextConfig

from clipvip.model import ClipVip, ClipVipConfig
from clipvip.model.losses import omnisource_loss
from goldens import PREFIX, assert_close, tensors, tiny_config, tiny_model

MODELS = {"vip_tiny": "vip", "meanpool_tiny": "mean_pool"}
VIDEO_CASES = [
    ("vip_tiny", "t12"),
    ("vip_tiny", "t5"),
    ("vip_tiny", "t1"),
    ("vip_tiny", "t16"),
    ("vip_tiny", "ocl"),
    ("meanpool_tiny", "t12"),
    ("meanpool_tiny", "t5"),
    ("meanpool_tiny", "t1"),
]
# Where every parameter has a golden gradient.
ALL_GRADIENTS = {("vip_tiny", "t12"), ("vip_tiny", "ocl"), ("meanpool_tiny", "t12")}


def case_tensors(name: str, case: str) -> dict[str, Tensor]:
    prefix = f"{case}/"
    return {key.removeprefix(prefix): value for key, value in tensors(f"{name}.io").items()
            if key.startswith(prefix)}  # fmt: skip


def run(model: ClipVip, case: dict[str, Tensor], *, embeds_only: bool = False) -> dict[str, Tensor]:
    """Outputs and loss under the goldens' names."""
    dtype = model.logit_scale.dtype
    output = model(case["in/video"].to(dtype), case["in/ids"], case["in/mask"], embeds_only=embeds_only)
    found = {
        "image_embeds": output.video_embeds,
        "text_embeds": output.text_embeds,
        "vision_last_hidden_state": output.vision_last_hidden_state,
        "text_last_hidden_state": output.text_last_hidden_state,
    }
    sources = {"video": output.video_embeds, "subtitle": output.text_embeds}
    if "in/image" in case:
        found["img_features"] = sources["frame"] = model.get_video_features(case["in/image"].to(dtype))
        found["cap_features"] = sources["caption"] = model.get_text_features(
            case["in/cap_ids"].flatten(0, 1), case["in/cap_mask"].flatten(0, 1)
        )
    variant = "d" if "in/image" in case else "baseline"
    found["loss"] = omnisource_loss(**sources, logit_scale=output.logit_scale, variant=variant)
    return found


@pytest.mark.parametrize("embeds_only", [False, True])
@pytest.mark.parametrize(("name", "case_name"), VIDEO_CASES)
def test_float32_outputs_and_gradients(name: str, case_name: str, embeds_only: bool) -> None:
    case, model = case_tensors(name, case_name), tiny_model(name, encoder=MODELS[name])
    found = run(model, case, embeds_only=embeds_only)
    for output in ("image_embeds", "text_embeds", "img_features", "cap_features"):
        assert (f"out/{output}" in case) == (output in found)
        if output in found:
            assert_close(found[output], case[f"out/{output}"], atol=1e-6)
    if embeds_only:
        assert found["vision_last_hidden_state"] is None
    else:
        assert_close(found["vision_last_hidden_state"], case["out/vision_last_hidden_state"], atol=5e-5)
    real = case["in/mask"].bool()
    assert_close(found["text_last_hidden_state"][real], case["out/text_last_hidden_state"][real], atol=5e-5)
    assert_close(found["loss"], case["out/loss"], rtol=1e-5)

    found["loss"].backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    expected = {key.removeprefix(f"grad/{PREFIX}"): g for key, g in case.items() if key.startswith("grad/")}
    expected = {key: gradient for key, gradient in expected.items() if gradient.numel()}
    assert len(expected) >= 6
    if (name, case_name) in ALL_GRADIENTS:
        assert set(expected) == set(gradients)
    for key, gradient in expected.items():
        torch.testing.assert_close(
            gradients[key], gradient, atol=1e-5, rtol=1e-4, msg=lambda m, k=key: f"{k}: {m}"
        )


@pytest.mark.parametrize("embeds_only", [False, True])
@pytest.mark.parametrize(("name", "case_name"), VIDEO_CASES)
def test_float64_outputs(name: str, case_name: str, embeds_only: bool) -> None:
    case, model = case_tensors(name, case_name), tiny_model(name, encoder=MODELS[name]).double()
    with torch.no_grad():
        found = run(model, case, embeds_only=embeds_only)
    expected = {key.removeprefix("out_f64/"): v for key, v in case.items() if key.startswith("out_f64/")}
    assert {"image_embeds", "text_embeds", "loss"} <= set(expected)
    for output, value in expected.items():
        assert_close(found[output], value, atol=1e-10)


def test_hidden_states_of_each_layer() -> None:
    case, model = case_tensors("vip_tiny", "t12"), tiny_model("vip_tiny", encoder="vip")
    vision = model.vision_model
    seen: dict[str, Tensor] = {}
    modules = {"embeddings": vision.embeddings, "pre_layernorm": vision.pre_layrnorm}
    modules |= {f"layer{n}": layer for n, layer in enumerate(vision.encoder.layers)}
    for where, module in modules.items():
        module.register_forward_hook(lambda _m, _i, output, where=where: seen.update({where: output}))
    features = []
    vision.post_layernorm.register_forward_hook(lambda _m, _i, output: features.append(output))
    with torch.no_grad():
        model(case["in/video"])
    assert set(seen) == {key.split("/")[-1] for key in case if key.startswith("out/vision_hidden/")}
    for where, value in seen.items():
        assert_close(value, case[f"out/vision_hidden/{where}"], atol=5e-5)
    assert_close(features[0], case["out/vision_pooler_output"], atol=5e-5)


@pytest.mark.parametrize("case_name", ["text_padeot", "text_pad0", "text_hole"])
def test_text_alone(case_name: str) -> None:
    """Padded with the end token, with zeros, and with a masked token in the middle."""
    case, model = case_tensors("vip_tiny", case_name), tiny_model("vip_tiny", encoder="vip")
    with torch.no_grad():
        embeds = model.get_text_features(case["in/ids"], case["in/mask"])
        assert_close(embeds, case["out/text_embeds"], atol=1e-6)
        if "out_f64/text_embeds" in case:
            exact = model.double().get_text_features(case["in/ids"], case["in/mask"])
            assert_close(exact, case["out_f64/text_embeds"], atol=1e-10)


@pytest.mark.parametrize("as_object", [False, True])
def test_a_small_vocabulary_needs_no_token_ids(as_object: bool) -> None:
    """CLIP's own ids of start and end are in no small vocabulary: the highest id ends a text then."""
    known = tiny_config("vip_tiny", encoder="vip")
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size",
             "max_position_embeddings")  # fmt: skip
    text = {name: getattr(known.text_config, name) for name in names}
    config = ClipVipConfig(
        CLIPTextConfig(**text) if as_object else text,
        known.vision_config,
        projection_dim=known.projection_dim,
    )
    model = ClipVip.from_released(tensors("vip_tiny.weights"), config)
    for case_name in ("t12", "text_padeot", "text_pad0", "text_hole"):
        case = case_tensors("vip_tiny", case_name)
        with torch.no_grad():
            embeds = model.get_text_features(case["in/ids"], case["in/mask"])
        assert_close(embeds, case["out/text_embeds"], atol=1e-6)


def test_padding_does_not_matter() -> None:
    padded_with_end, padded_with_zero = (case_tensors("vip_tiny", f"text_pad{what}") for what in ("eot", "0"))
    assert_close(padded_with_end["out/text_embeds"], padded_with_zero["out/text_embeds"], atol=1e-6)
    model = tiny_model("vip_tiny", encoder="vip")
    with torch.no_grad():
        first, second = (
            model.get_text_features(case["in/ids"], case["in/mask"])
            for case in (padded_with_end, padded_with_zero)
        )
    assert_close(first, second, atol=1e-6)


def test_one_video_is_as_in_a_batch() -> None:
    case, model = case_tensors("vip_tiny", "t12"), tiny_model("vip_tiny", encoder="vip")
    with torch.no_grad():
        alone = torch.cat([model.get_video_features(video[None]) for video in case["in/video"]])
    assert_close(alone, case["out/image_embeds"], atol=1e-6)
