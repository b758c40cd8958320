"""SigLIP as a start: transformers' own embeddings, proxies beside them, and the sigmoid loss."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import SiglipModel

from clipvip.model import ClipVip, ClipVipConfig
from clipvip.model.errors import CheckpointError
from clipvip.model.losses import omnisource_loss, omnisource_terms
from clipvip.model.siglip import GATE_SPEED
from clipvip.model.variants import VARIANTS, inputs_of, pairs_of
from goldens import assert_close
from tiny_clip import MAX_TOKENS, make_clip
from tiny_siglip import WIDTH, make_siglip

SENTENCES = ["a dog runs", "", "Two cats", "word " * 30]
ENCODERS = ("vip", "full_attention", "mean_pool")


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_siglip(tmp_path_factory.mktemp("models") / "siglip")


def expected(folder: Path, pictures: Tensor, model: ClipVip) -> tuple[Tensor, Tensor]:
    """What transformers computes of the pictures and of SENTENCES, padded as its documentation says."""
    plain = SiglipModel.from_pretrained(folder).eval()
    ids = model.tokenizer(
        SENTENCES, padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
    )["input_ids"]
    with torch.no_grad():
        image, text = plain.get_image_features(pictures), plain.get_text_features(ids)
    return normalize(image.pooler_output, dim=-1), normalize(text.pooler_output, dim=-1)


def open_gates(model: ClipVip, by: float = 0.5 / GATE_SPEED) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("proxy_gate"):
                parameter.fill_(by)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_one_frame_and_texts_are_those_of_transformers(siglip: Path, encoder: str, tmp_path: Path) -> None:
    pictures = torch.randn(3, 3, 32, 32)
    model = ClipVip.from_clip(siglip, encoder=encoder)
    image, text = expected(siglip, pictures, model)
    model.save_pretrained(tmp_path)
    for one in (model, ClipVip.from_pretrained(tmp_path)):
        assert_close(one.get_video_features(pictures[:, None]), image, atol=1e-6)
        assert_close(one(pictures[:, None], embeds_only=True).video_embeds, image, atol=1e-6)
        assert_close(one.encode_text(SENTENCES), text, atol=1e-6)
        assert one.logit_scale.item() == 2.0 and one.logit_bias is not None
        assert one.logit_bias.item() == -3.0


def test_padding_is_as_in_training_however_texts_are_cut(siglip: Path) -> None:
    """The loader of training hands over the tokens of the longest text alone, and no mask."""
    model = ClipVip.from_clip(siglip)
    ids = model.tokenizer(["a dog"], return_tensors="pt")["input_ids"]
    assert ids.shape[1] < MAX_TOKENS
    mask = torch.ones_like(ids)
    for found in (model.get_text_features(ids), model.get_text_features(ids, mask)):
        assert_close(found, model.encode_text(["a dog"]), atol=1e-6)


def test_pixels_are_normalised_as_siglips(siglip: Path) -> None:
    model = ClipVip.from_clip(siglip)
    picture = torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8)
    pixels = picture.movedim(-1, 1) / 127.5 - 1
    assert_close(model.encode_video(picture), expected(siglip, pixels, model)[0], atol=1e-6)


def test_proxies_see_all_frames_and_the_head_reads_them(siglip: Path) -> None:
    model = ClipVip.from_clip(siglip, num_proxies=3)
    video = torch.randn(1, 4, 3, 32, 32)
    other = video.clone()
    other[:, 3] = torch.randn(3, 32, 32)
    patches = slice(3, 3 + 4)  # of the first frame

    def first_frame(pixels: Tensor) -> Tensor:
        hidden = model(pixels).vision_last_hidden_state
        assert hidden is not None and hidden.shape == (1, 3 + 4 * 4, WIDTH)
        return hidden[:, patches]

    with torch.no_grad():
        assert torch.equal(first_frame(video), first_frame(other))
        before = model.get_video_features(video)
        open_gates(model)
        assert (first_frame(video) - first_frame(other)).abs().max() > 1e-4
        assert (model.get_video_features(video) - before).abs().max() > 1e-4
        model.vision_model.embeddings.proxies.add_(1.0)
        changed = model.get_video_features(video)
        open_gates(model, 0.0)
        model.vision_model.head.proxy_gate.fill_(0.5 / GATE_SPEED)
        assert (model.get_video_features(video) - before).abs().max() > 1e-4
    assert (changed - before).abs().max() > 1e-4


def test_gates_are_trained_from_the_first_step_and_open_the_way_to_proxies(siglip: Path) -> None:
    model = ClipVip.from_clip(siglip)
    model.get_video_features(torch.randn(2, 3, 3, 32, 32))[:, 0].sum().backward()
    gates = [p for name, p in model.named_parameters() if name.endswith("proxy_gate")]
    assert len(gates) == 3 and all(gate.grad is not None and gate.grad.any() for gate in gates)
    proxies = model.vision_model.embeddings.proxies
    assert proxies.grad is not None and not proxies.grad.any()
    open_gates(model)
    model.get_video_features(torch.randn(2, 3, 3, 32, 32))[:, 0].sum().backward()
    assert proxies.grad.any()


@pytest.mark.parametrize("encoder", [*ENCODERS, "seq_transformer"])
def test_videos_of_any_length_other_sizes_and_a_start_from_itself(
    siglip: Path, encoder: str, tmp_path: Path
) -> None:
    model = ClipVip.from_clip(siglip, encoder=encoder, image_size=48, temporal_size=5)
    videos = [torch.randint(0, 256, (n, 40, 30, 3), dtype=torch.uint8) for n in (1, 5, 7)]
    embeds = model.encode_video(videos)
    assert embeds.shape == (3, WIDTH) and torch.isfinite(embeds).all()
    model.save_pretrained(tmp_path)
    again = ClipVip.from_clip(tmp_path, num_frames=7)
    assert_close(again.encode_video(videos), embeds, atol=1e-6)
    fresh = ClipVip(again.config)  # of `model.from_scratch`
    assert torch.isfinite(fresh.eval().get_video_features(torch.randn(1, 2, 3, 48, 48))).all()


def test_what_is_no_start(siglip: Path, tmp_path: Path) -> None:
    config = json.loads((siglip / "config.json").read_text())
    for content, says in (
        (config | {"model_type": "siglip2"}, "NaFlex"),
        (config | {"vision_config": config["vision_config"] | {"vision_use_head": False}}, "pooling head"),
        (config | {"text_config": config["text_config"] | {"projection_size": 7}}, "7 dimensions"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(content))
        with pytest.raises(CheckpointError, match=says) as raised:
            ClipVip.from_clip(tmp_path)
        assert str(tmp_path) in str(raised.value) and "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="no class token"):
        ClipVip.from_clip(siglip, proxy_start="class")
    with pytest.raises(ValueError, match="one is SigLIP's"):
        ClipVipConfig(vision_config={"model_type": "siglip_vision_model"})


def test_a_tokenizer_that_pads_otherwise(siglip: Path) -> None:
    model = ClipVip.from_clip(siglip)
    tokenizer = model.tokenizer
    tokenizer.pad_token = "!"
    with pytest.raises(CheckpointError, match="pads with token"):
        model.tokenizer = tokenizer


def test_a_clip_gets_a_bias_where_it_is_asked_for(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip")
    assert ClipVip.from_clip(clip).logit_bias is None
    model = ClipVip.from_clip(clip, logit_bias_init_value=-10.0)
    model.save_pretrained(tmp_path / "vip")
    again = ClipVip.from_pretrained(tmp_path / "vip")
    assert again.logit_bias is not None and again.logit_bias.item() == -10.0


# --- the loss ---


def rows(count: int) -> dict[str, Tensor]:
    names = ("video", "subtitle", "frame", "caption")
    return {name: normalize(torch.randn(count, 8, dtype=torch.float64), dim=-1) for name in names}


def plain_loss(first: Tensor, second: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Equation 1 of arXiv 2303.15343, pair by pair."""
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(first)):
        for j in range(len(second)):
            z = 1.0 if i == j else -1.0
            total = total - torch.log(1 / (1 + torch.exp(z * (-scale.exp() * (first[i] @ second[j]) - bias))))
    return total / len(first)


@pytest.mark.parametrize("weighting", ["released", "paper"])
@pytest.mark.parametrize("variant", list(VARIANTS))
def test_the_sigmoid_loss_is_that_of_the_paper(variant: str, weighting: str) -> None:
    given = rows(6)
    scale, bias = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (1.3, -2.0))
    loss = omnisource_loss(
        **given,
        logit_scale=scale,
        logit_bias=bias,
        contrast="sigmoid",
        variant=variant,
        weighting=weighting,  # type: ignore[arg-type]
    )
    letters = dict(zip("VSFC", given.values(), strict=True))
    pairs = {"baseline": ["VS"], "a": ["VS", "FC"], "b": ["VS", "VC"], "V-C": ["VC"]}
    wanted = pairs.get(variant, ["VS", "VC", "FC"])
    plain = sum((plain_loss(letters[x], letters[y], scale, bias) for x, y in wanted), torch.zeros(()))
    assert abs((loss - plain).item()) < 1e-12
    found, correct = (torch.autograd.grad(value, [scale, bias]) for value in (loss, plain))
    assert all(abs(x - y) < 1e-12 for x, y in zip(found, correct, strict=True))
    assert {letter for pair in pairs_of(variant) for letter in (pair.anchor, pair.positives)} == inputs_of(
        variant
    )


def test_samples_without_a_caption_are_no_pairs_of_it() -> None:
    given, mask = rows(6), torch.tensor([True, False, True, True, False, True])
    given["caption"][~mask] = torch.nan
    scale, bias = torch.tensor(1.0, dtype=torch.float64), torch.tensor(-1.0, dtype=torch.float64)
    terms = omnisource_terms(
        **given, logit_scale=scale, logit_bias=bias, contrast="sigmoid", variant="c", caption_mask=mask
    )
    assert set(terms) == {"V->S", "V->C", "F->C"}
    kept = {name: value[mask] for name, value in given.items()}
    assert_close(terms["V->S"], plain_loss(given["video"], given["subtitle"], scale, bias), atol=1e-12)
    assert_close(terms["V->C"], plain_loss(kept["video"], kept["caption"], scale, bias), atol=1e-12)
    assert_close(terms["F->C"], plain_loss(kept["frame"], kept["caption"], scale, bias), atol=1e-12)


def test_many_rows_are_made_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {name: value.requires_grad_() for name, value in rows(7).items()}
    settings = {"logit_scale": 1.0, "logit_bias": -1.0, "contrast": "sigmoid"}

    def gradient() -> tuple[Tensor, ...]:
        return torch.autograd.grad(omnisource_loss(**given, **settings), list(given.values()))  # type: ignore[arg-type]

    whole = gradient()
    monkeypatch.setattr("clipvip.model.losses._ROWS_PER_CHUNK", 3)
    assert all((x - y).abs().max() < 1e-12 for x, y in zip(whole, gradient(), strict=True))


@pytest.mark.parametrize(("contrast", "bias"), [("sigmoid", None), ("softmax", -1.0), ("cosine", None)])
def test_contrast_and_bias_go_together(contrast: str, bias: float | None) -> None:
    with pytest.raises(ValueError, match="give softmax without, or sigmoid with it"):
        omnisource_loss(**rows(3), logit_scale=1.0, contrast=contrast, logit_bias=bias)  # type: ignore[arg-type]
