"""A plain CLIP or SigLIP as a model: transformers' embeddings of each frame, averaged."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import BertConfig, CLIPModel

from clipvip.model import ClipVip
from clipvip.model.errors import CheckpointError
from clipvip.model.preprocess import preprocess_frames
from goldens import assert_close
from plain_clip import texts_by_hand, videos_by_hand
from tiny_clip import MAX_TOKENS, make_clip, make_text_tower
from tiny_siglip import make_siglip

SENTENCES = ["a dog runs", "", "Two cats", "word " * 30]


@pytest.fixture(scope="module", params=["clip", "siglip"])
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    make = make_clip if request.param == "clip" else make_siglip
    return make(tmp_path_factory.mktemp("models") / request.param)


def test_a_video_is_the_mean_of_transformers_embeddings_of_its_frames(plain: Path, tmp_path: Path) -> None:
    model = ClipVip.from_pretrained(plain)
    for num_frames in (1, 5, 13):
        pixels = torch.randn(2, num_frames, 3, 32, 32)
        assert_close(model.get_video_features(pixels), videos_by_hand(plain, pixels), atol=1e-5)
    model.save_pretrained(tmp_path)
    again = ClipVip.from_pretrained(tmp_path)
    assert again.config.encoder == "mean_pool" and not model.training
    assert_close(again.get_video_features(pixels), videos_by_hand(plain, pixels), atol=1e-5)


def test_frames_and_texts_go_in_as_the_models_own(plain: Path, tmp_path: Path) -> None:
    """Its colours' mean and deviation, its tokenizer, and its whole table of positions."""
    folder = shutil.copytree(plain, tmp_path / "other")
    settings = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    model = ClipVip.from_pretrained(folder)
    frames = np.random.default_rng(0).integers(0, 256, (model.config.scored_frames, 40, 60, 3), np.uint8)
    assert model.config.scored_frames == 12
    pixels = preprocess_frames(frames, 32, normalization=model.config.normalization)
    raw = preprocess_frames(frames, 32) * torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    raw += torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    mean, std = (torch.tensor(settings[name])[:, None, None] for name in ("image_mean", "image_std"))
    assert_close(pixels, (raw - mean) / std, atol=1e-5)
    assert_close(model.encode_video([frames]), videos_by_hand(folder, pixels[None]), atol=1e-5)
    assert model.config.scored_text_tokens == MAX_TOKENS
    assert_close(model.encode_text(SENTENCES), texts_by_hand(folder, SENTENCES), atol=1e-5)


def test_options_of_loading(plain: Path, tmp_path: Path) -> None:
    assert ClipVip.from_pretrained(plain, dtype=torch.bfloat16).dtype == torch.bfloat16
    assert ClipVip.from_pretrained(plain, dtype="float64").dtype == torch.float64
    for options in ({"num_frames": 3}, {"subfolder": "x"}, {"device_map": "cpu"}):
        shutil.copytree(plain, tmp_path / "x", dirs_exist_ok=True)
        source = tmp_path if "subfolder" in options else plain
        with pytest.raises(ValueError, match=f"takes dtype, .* not {next(iter(options))}"):
            ClipVip.from_pretrained(source, **options)


def test_a_tokenizer_of_another_folder(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip")
    toneless = shutil.copytree(clip, tmp_path / "toneless", ignore=shutil.ignore_patterns("tokenizer*"))
    assert ClipVip.from_pretrained(toneless).tokenizer is None
    named = ClipVip.from_pretrained(toneless, tokenizer=clip)
    assert_close(named.encode_text(SENTENCES), texts_by_hand(clip, SENTENCES), atol=1e-5)


def test_a_name_is_looked_up_where_it_is_said(plain: Path, tmp_path: Path) -> None:
    repository = tmp_path / "cache" / "models--me--clip"
    snapshot = repository / "snapshots" / ("0" * 40)
    shutil.copytree(plain, snapshot)
    (snapshot / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3]}')
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(snapshot.name)
    model = ClipVip.from_pretrained("me/clip", cache_dir=tmp_path / "cache", revision="main")
    assert model.config.image_mean == [0.1, 0.2, 0.3]
    assert_close(model.encode_text(SENTENCES), texts_by_hand(plain, SENTENCES), atol=1e-5)


def test_half_precision_weights_are_computed_with_in_float32(tmp_path: Path) -> None:
    folder = make_clip(tmp_path / "clip")
    CLIPModel.from_pretrained(folder).half().save_pretrained(folder)
    assert ClipVip.from_pretrained(folder).dtype == torch.float32


def test_what_is_neither_says_what_it_is_and_what_is_taken(plain: Path, tmp_path: Path) -> None:
    text = make_text_tower(tmp_path / "text")
    BertConfig().save_pretrained(tmp_path / "bert")
    shutil.copytree(plain, tmp_path / "cut")
    (tmp_path / "cut" / "model.safetensors").write_bytes(b"\0" * 100)
    save_file({"visual.conv1.weight": torch.zeros(1)}, tmp_path / "open_clip.safetensors")
    for name in (
        "openclip/open_clip_config.json",
        "run/model/config.json",
        "run/recipe.yaml",
        "run/checkpoints/step-7/tensors-00000.safetensors",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    cases = [
        (tmp_path / "openclip", "is a model of OpenCLIP: 'clipvip-data convert-openclip' makes a CLIP"),
        (tmp_path / "run", f"the folder of a training run: give {tmp_path / 'run' / 'model'}"),
        (
            tmp_path / "run" / "checkpoints" / "step-7",
            f"a checkpoint, from which training goes on: give {tmp_path / 'run' / 'model'}$",
        ),
        (text, "of type 'clip_text_model', expected clip or clip_vip or siglip"),
        (tmp_path / "bert", "of type 'bert', expected clip or clip_vip or siglip"),
        (tmp_path / "cut", "does not load"),
        (tmp_path / "open_clip.safetensors", "'clipvip-data convert-openclip' makes of OpenCLIP's files"),
    ]
    for source, says in cases:
        with pytest.raises(CheckpointError, match=says) as caught:
            ClipVip.from_pretrained(source)
        assert str(source) in str(caught.value) and "\n" not in str(caught.value)
