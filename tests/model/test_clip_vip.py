"""ClipVip as a model of its own: its encoders agree where they must, and it embeds files and strings."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModel, CLIPModel

from clipvip.media.whole_file import read_frames
from clipvip.model import ClipVip, ClipVipConfig
from clipvip.model.encoder import patches_as_product
from clipvip.model.model_card import write_card
from clipvip.model.preprocess import preprocess_frames, tokenize
from clipvip.model.variants import ENCODERS
from goldens import assert_close, tensors, tiny_model
from make_videos import make_video
from tiny_clip import MAX_TOKENS, make_clip, tiny_text_config, tiny_tokenizer


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture(scope="module")
def model(clip_folder: Path) -> ClipVip:
    """Trained-like: temporal positions are not zero."""
    model = ClipVip.from_clip(clip_folder)
    torch.nn.init.normal_(model.vision_model.embeddings.temporal_embedding, std=0.3)
    return model


def random_videos(batch: int, num_frames: int, *, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, num_frames, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


# --- encoders ---


def test_one_proxy_and_one_frame_is_plain_clip(clip_folder: Path) -> None:
    video = random_videos(3, 1)
    ours = ClipVip.from_clip(clip_folder, num_proxies=1)
    with torch.no_grad():
        plain = CLIPModel.from_pretrained(clip_folder).get_image_features(video[:, 0]).pooler_output
        assert_close(ours.get_video_features(video), F.normalize(plain, dim=-1), atol=1e-6)


@pytest.mark.parametrize("num_frames", [1, 4])
def test_mean_pool_averages_the_features_of_plain_clip(clip_folder: Path, num_frames: int) -> None:
    video = random_videos(2, num_frames)
    clip = CLIPModel.from_pretrained(clip_folder).eval()
    with torch.no_grad():
        features = clip.get_image_features(video.flatten(0, 1)).pooler_output.unflatten(0, (2, num_frames))
        expected = F.normalize(F.normalize(features, dim=-1).mean(1), dim=-1)
        assert_close(
            ClipVip.from_clip(clip_folder, encoder="mean_pool").get_video_features(video), expected, atol=1e-6
        )


def test_text_features_are_those_of_plain_clip(clip_folder: Path, model: ClipVip) -> None:
    tokens = tokenize(tiny_tokenizer(), ["a dog", "two dogs run, 12!"], max_tokens=MAX_TOKENS)
    with torch.no_grad():
        plain = CLIPModel.from_pretrained(clip_folder).get_text_features(**tokens).pooler_output
        assert_close(model.get_text_features(**tokens), F.normalize(plain, dim=-1), atol=1e-6)


def test_full_attention_differs_only_in_the_mask(clip_folder: Path) -> None:
    torch.manual_seed(0)
    full = ClipVip.from_clip(clip_folder, encoder="full_attention")
    vip = ClipVip.from_clip(clip_folder)
    vip.load_state_dict(full.state_dict())
    with torch.no_grad():
        image, video = random_videos(2, 1), random_videos(2, 5)
        assert_close(vip.get_video_features(image), full.get_video_features(image), atol=1e-6)
        difference = vip.get_video_features(video) - full.get_video_features(video)
    assert difference.abs().max() > 1e-4


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder_gives_unit_rows_and_gradients(clip_folder: Path, encoder: str) -> None:
    settings = {"num_frame_heads": 4} if encoder == "seq_transformer" else {}
    model = ClipVip.from_clip(clip_folder, encoder=encoder, **settings)
    output = model(random_videos(2, 3), **tokenize(tiny_tokenizer(), ["a", "b"], max_tokens=MAX_TOKENS))
    for embeds in (output.video_embeds, output.text_embeds):
        assert embeds.shape == (2, 16)
        assert_close(embeds.norm(dim=-1), torch.ones(2), atol=1e-6)
    (output.video_embeds @ output.text_embeds.T * output.logit_scale.exp()).diagonal().sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []


def test_frames_are_told_apart_by_temporal_positions(model: ClipVip, clip_folder: Path) -> None:
    video = random_videos(1, 6)
    with torch.no_grad():
        assert (model.get_video_features(video) - model.get_video_features(video.flip(1))).abs().max() > 1e-4
        fresh = ClipVip.from_clip(clip_folder)
        assert_close(fresh.get_video_features(video), fresh.get_video_features(video.flip(1)), atol=1e-6)


def test_bad_pixels_are_refused(model: ClipVip) -> None:
    with pytest.raises(ValueError, match=r"\(2, 3, 32, 32\), expected \(batch, frames, 3, 32, 32\)"):
        model(torch.zeros(2, 3, 32, 32))
    with pytest.raises(ValueError, match=r"\(1, 2, 3, 36, 37\), expected"):
        model(torch.zeros(1, 2, 3, 36, 37))


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="encoder 'vit' is none of vip, "):
        ClipVipConfig(encoder="vit")
    with pytest.raises(ValueError, match="num_proxies"):
        ClipVipConfig(num_proxies=0)


# --- training's options ---


@pytest.mark.parametrize("encoder", ENCODERS)
def test_gradient_checkpointing_gives_the_same_gradients(clip_folder: Path, encoder: str) -> None:
    settings = {"num_frame_heads": 4} if encoder == "seq_transformer" else {}
    model = ClipVip.from_clip(clip_folder, encoder=encoder, **settings).train()
    inputs = [random_videos(2, 3), torch.tensor([[1, 5, 8], [1, 6, 8]])]

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad()
        output = model(*inputs)
        (output.video_embeds * output.text_embeds).sum().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    plain = gradients()
    model.gradient_checkpointing_enable()
    calls = []
    layer = model.vision_model.encoder.layers[0]
    handle = layer.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    checkpointed = gradients()
    handle.remove()
    assert len(calls) == 2, "the layer runs again for the gradient"
    assert set(plain) == set(checkpointed)
    for name, gradient in plain.items():
        assert_close(checkpointed[name], gradient, atol=1e-7, rtol=1e-5)


def test_bfloat16_is_close() -> None:
    model = tiny_model("vip_tiny", encoder="vip")
    golden = tensors("vip_tiny.io")
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(golden["t12/in/video"], golden["t12/in/ids"], golden["t12/in/mask"])
    pairs = ((output.video_embeds, "t12/out/image_embeds"), (output.text_embeds, "t12/out/text_embeds"))
    for found, name in pairs:
        assert (F.normalize(found.float(), dim=-1) * golden[name]).sum(-1).min() > 0.999


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    num_images=st.integers(1, 4),
    rows=st.integers(1, 3),
    columns=st.integers(1, 3),
    size=st.integers(1, 5),
    width=st.integers(1, 6),
)
def test_patches_as_a_product_are_those_of_the_convolution(
    num_images: int, rows: int, columns: int, size: int, width: int
) -> None:
    torch.manual_seed(rows)
    images = torch.randn(num_images, 3, rows * size, columns * size, dtype=torch.float64)
    weight = torch.randn(width, 3, size, size, dtype=torch.float64)
    expected = F.conv2d(images, weight, stride=size).flatten(2).transpose(1, 2)
    assert_close(patches_as_product(images, weight), expected, atol=1e-12)


@pytest.mark.slow
def test_compiled_for_any_number_of_frames() -> None:
    model = tiny_model("vip_tiny", encoder="vip")
    compiled = torch.compile(model, dynamic=True, fullgraph=False)
    with torch.no_grad():
        for num_frames in (12, 5, 16, 7, 3):
            video = random_videos(2, num_frames)
            expected = model(video).video_embeds
            assert_close(compiled(video).video_embeds, expected, atol=2e-6)
        frames_compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        compiled(random_videos(2, 9))
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == frames_compiled


# --- folders ---


@pytest.mark.parametrize("encoder", ENCODERS)
def test_saved_and_loaded_bit_for_bit(clip_folder: Path, encoder: str, tmp_path: Path) -> None:
    settings = {"num_frame_heads": 4} if encoder == "seq_transformer" else {}
    model = ClipVip.from_clip(clip_folder, encoder=encoder, num_proxies=3, temporal_size=7, **settings)
    model.save_pretrained(tmp_path)
    for again in (ClipVip.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        assert type(again) is ClipVip and not again.training
        assert again.config.encoder == encoder and again.config.temporal_size == 7
        state = again.state_dict()
        assert set(state) == set(model.state_dict())
        assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
        with torch.no_grad():
            video = random_videos(1, 4)
            assert_close(again.get_video_features(video), model.get_video_features(video), atol=1e-6)
    assert type(AutoConfig.from_pretrained(tmp_path)) is ClipVipConfig
    texts = ["a dog runs"]
    assert_close(ClipVip.from_pretrained(tmp_path).encode_text(texts), model.encode_text(texts), atol=1e-6)


def test_half_precision_on_loading(model: ClipVip, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    half = ClipVip.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.logit_scale.dtype == torch.bfloat16
    with torch.no_grad():
        features = half.get_video_features(random_videos(1, 3).bfloat16())
    assert features.dtype == torch.bfloat16


# --- files and strings ---


def test_encode_video_takes_files_arrays_and_tensors(model: ClipVip, tmp_path: Path) -> None:
    path = make_video(tmp_path / "video.mp4", num_frames=40)
    frames = read_frames(path, 12)
    rows = model.encode_video([path, str(path), frames, torch.from_numpy(frames)])
    assert rows.shape == (4, 16) and rows.dtype == torch.float32
    with torch.no_grad():
        expected = model.get_video_features(preprocess_frames(frames, 32)[None])
    assert_close(rows, expected.expand(4, -1), atol=1e-6)
    fewer = model.encode_video([path], num_frames=5)
    assert_close(fewer, model.encode_video([read_frames(path, 5)]), atol=1e-6)
    assert (fewer - rows[:1]).abs().max() > 1e-4


def test_encode_video_of_different_lengths_and_sizes(model: ClipVip) -> None:
    random = np.random.default_rng(0)
    shapes = [(12, 40, 60), (3, 32, 32), (1, 20, 90), (12, 33, 31), (3, 50, 50)]
    videos = [random.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
    alone = torch.cat([model.encode_video([video]) for video in videos])
    for batch_size in (1, 2, 16):
        assert_close(model.encode_video(videos, batch_size=batch_size), alone, atol=1e-6)
    assert model.encode_video([]).shape == (0, 16)
    assert model.encode_text([]).shape == (0, 16)


def test_encode_video_names_what_is_wrong(model: ClipVip, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"missing\.mp4: no such video file"):
        model.encode_video([tmp_path / "missing.mp4"])
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ValueError, match=r"text\.mp4: does not decode as video"):
        model.encode_video([tmp_path / "text.mp4"])
    for wrong in (np.zeros((4, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8)):
        with pytest.raises(ValueError, match=r"expected \(frames, height, width, 3\) or"):
            model.encode_video([wrong])
    for nothing in (None, 3, [None], [{}]):
        with pytest.raises(ValueError, match="is no video: give the path of a file"):
            model.encode_video(nothing)  # type: ignore[arg-type]
    for wrong_count in ({"num_frames": 0}, {"batch_size": 0}):
        with pytest.raises(ValueError, match="give 1 or more"):
            model.encode_video(np.zeros((4, 8, 8, 3), np.uint8), **wrong_count)


@pytest.mark.needs_shared
@pytest.mark.parametrize("name", ["exo_av1_10bit.mp4", "no_duration.webm"])
def test_files_that_decord_refuses(shared_dir: Path, name: str) -> None:
    frames = read_frames(shared_dir / "data" / "videos" / name, 5)
    assert frames.dtype == np.uint8 and frames.ndim == 4 and len(frames) == 5 and frames.shape[-1] == 3
    assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 1


def test_arrays_however_they_lie_in_memory(model: ClipVip) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 40, 48, 3), np.uint8)
    expected = model.encode_video(frames[..., ::-1].copy())
    assert_close(model.encode_video(frames[..., ::-1]), expected, atol=0)
    frames.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_close(
            model.encode_video([frames[..., ::-1], frames]),
            torch.cat([expected, model.encode_video(frames.copy())]),
            atol=1e-6,
        )


def test_encode_video_takes_one_video_a_batch_or_a_list_of_any_lengths(
    model: ClipVip, tmp_path: Path
) -> None:
    size = model.config.vision_config.image_size
    rng = np.random.default_rng(0)
    long, short = (rng.integers(0, 256, (length, 40, 48, 3), np.uint8) for length in (5, 2))
    expected = torch.cat([model.encode_video([long]), model.encode_video([short])])
    assert_close(model.encode_video([long, short]), expected, atol=1e-6)
    assert_close(model.encode_video([short, long, short], batch_size=2), expected[[1, 0, 1]], atol=1e-6)
    assert_close(model.encode_video(long), expected[:1], atol=1e-6)
    assert_close(model.encode_video(np.stack([long, long])), expected[[0, 0]], atol=1e-6)
    planes = torch.from_numpy(long).movedim(-1, 1)
    assert_close(model.encode_video(planes), expected[:1], atol=1e-6)
    normalised = preprocess_frames(torch.from_numpy(long), size)
    assert_close(model.encode_video([normalised, short]), expected, atol=1e-6)
    path = make_video(tmp_path / "clip.mp4", num_frames=20)
    assert_close(model.encode_video(str(path)), model.encode_video([path]), atol=0)
    assert model.encode_video([]).shape == (0, model.config.projection_dim)
    with pytest.raises(ValueError, match="normalised and of the model's size"):
        model.encode_video(normalised[..., :-1])


def test_a_saved_model_has_a_card_and_loads_as_any_other(model: ClipVip, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["library_name"] == "clipvip" and "clip-vip" in header["tags"]
    assert "| video proxy tokens | 4 |" in card and "model.encode_video" in card
    assert card.count("*To be filled in: ") == 4  # training, its data, results, licence
    assert type(AutoModel.from_pretrained(tmp_path)) is ClipVip
    training = {"base_model": "a/b", "steps": "1"}
    write_card(tmp_path, model.config, training=training, recipe="seed: 42\n", scores="R@1 50.0")
    card = (tmp_path / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["base_model"] == "a/b" and "R@1 50.0" in card
    assert "```yaml\nseed: 42\n```" in card and card.count("*To be filled in: ") == 2
    (tmp_path / "README.md").write_text("my own words")
    model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "my own words"


def test_read_frames_repeats_those_of_a_short_video(tmp_path: Path) -> None:
    path = make_video(tmp_path / "short.mp4", num_frames=3)
    frames = read_frames(path, 6)
    assert len(frames) == 6
    assert np.array_equal(frames[0], frames[1]) and not np.array_equal(frames[0], frames[5])


def test_encode_text(model: ClipVip) -> None:
    texts = ["a dog", "two cats", "", "a very long text " * 20]
    rows = model.encode_text(texts)
    assert rows.shape == (4, 16)
    assert_close(model.encode_text(texts[0]), rows[:1], atol=1e-6)
    assert_close(model.encode_text(texts, batch_size=1), rows, atol=1e-6)
    tokens = tokenize(tiny_tokenizer(), texts, max_tokens=MAX_TOKENS)
    with torch.no_grad():
        assert_close(model.get_text_features(**tokens), rows, atol=1e-6)


def test_a_head_can_be_trained_on_embeddings(model: ClipVip) -> None:
    rows = torch.cat([model.encode_text("a dog"), model.encode_video(np.zeros((2, 8, 8, 3), np.uint8))])
    head = torch.nn.Linear(16, 1)
    head(model.encode_text("a dog")).sum().backward()
    assert head.weight.grad is not None and not rows.requires_grad
    head(model.encode_video(np.zeros((2, 8, 8, 3), np.uint8))).sum().backward()


def test_encode_text_takes_strings_alone(model: ClipVip) -> None:
    assert_close(
        model.encode_text(text for text in ("a dog", "b")), model.encode_text(["a dog", "b"]), atol=0
    )  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="texts are NoneType: give strings"):
        model.encode_text(["a", None])  # type: ignore[list-item]


def test_encode_text_without_a_tokenizer() -> None:
    tower = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "num_hidden_layers": 1}
    config = ClipVipConfig(tiny_text_config() | tower, tower | {"image_size": 32, "patch_size": 8})
    with pytest.raises(ValueError, match="came without a tokenizer"):
        ClipVip(config).encode_text(["a"])
