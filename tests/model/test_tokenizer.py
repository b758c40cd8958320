"""Tokenizer and configuration of a model fit each other, or it does not load.

What a model's texts are cut to.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoTokenizer, CLIPTextConfig, PreTrainedTokenizerFast

from clipvip.model import ClipVip, ClipVipConfig
from clipvip.model.config import MAX_TEXT_TOKENS
from clipvip.model.errors import CheckpointError
from clipvip.model.preprocess import check_tokenizer, load_tokenizer, tokenize
from goldens import assert_close
from tiny_clip import MAX_TOKENS, make_clip, tiny_text_config, tiny_tokenizer

TEXTS = ["a red square moves", "a blue circle stands still", "", "far too many words " * 9]
END = len(tiny_tokenizer()) - 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    ClipVip.from_clip(make_clip(folder / "clip")).save_pretrained(folder / "vip")
    return folder


@pytest.fixture(params=["clip", "vip"])
def folder(request: pytest.FixtureRequest, whole: Path, tmp_path: Path) -> Path:
    """A plain CLIP, or a ClipVip, that a test may spoil."""
    return shutil.copytree(whole / request.param, tmp_path / request.param)


def load(folder: Path) -> ClipVip:
    return ClipVip.from_clip(folder) if folder.name == "clip" else ClipVip.from_pretrained(folder)


def change_text_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["text_config"] |= changes
    path.write_text(json.dumps(config))


def change_tokenizer(folder: Path, **changes: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    tokenizer.save_pretrained(folder)


def refused(folder: Path, *numbers: int) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    message = str(caught.value)
    assert "\n" not in message and str(folder) in message
    assert all(str(number) in message for number in numbers), message
    return message


@pytest.mark.parametrize("token", [0, 5, END - 1])
def test_another_end_token(folder: Path, token: int) -> None:
    change_text_config(folder, eos_token_id=token)
    assert "ends a text with token" in refused(folder, END, token)


@pytest.mark.parametrize("token", [2, None, 49407])
def test_the_highest_token_is_the_end(folder: Path, whole: Path, token: int | None) -> None:
    """CLIP's first configurations have eos_token_id 2 and mean the highest.

    Ones outside a small vocabulary do too.
    """
    change_text_config(folder, eos_token_id=token)
    expected = load(whole / folder.name).encode_text(TEXTS)
    assert_close(load(folder).encode_text(TEXTS), expected, atol=1e-6)


def test_more_tokens_than_the_table(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<new>", "<newer>"])
    tokenizer.save_pretrained(folder)
    assert "its tokenizer has 516 tokens, the model's table 514" in refused(folder)


def test_the_tokenizer_of_another_kind_of_model(folder: Path) -> None:
    """It puts no end where CLIP's is: all texts would get one embedding."""
    backend = Tokenizer(WordLevel({"a": 0, "dog": 1, "[UNK]": 2, "[PAD]": 3}, unk_token="[UNK]"))
    backend.pre_tokenizer = Whitespace()
    other = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]")
    other.save_pretrained(folder)
    assert "ends a text with token none" in refused(folder, END)


def test_padding_and_cutting_on_the_left_change_nothing(folder: Path, whole: Path) -> None:
    expected = load(whole / folder.name).encode_text(TEXTS)
    change_tokenizer(folder, padding_side="left", truncation_side="left")
    model = load(folder)
    assert_close(model.encode_text(TEXTS), expected, atol=1e-6)
    model.tokenizer.padding_side = "left"
    assert_close(model.encode_text(TEXTS), expected, atol=1e-6)


def test_a_tokenizer_without_padding_pads_with_its_end(folder: Path, whole: Path) -> None:
    expected = load(whole / folder.name).encode_text(TEXTS)
    change_tokenizer(folder, pad_token=None)
    assert AutoTokenizer.from_pretrained(folder).pad_token is None
    assert_close(load(folder).encode_text(TEXTS), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["", "{", "<html>", "[]"])
def test_damaged_tokenizer_files(folder: Path, name: str, content: str) -> None:
    """A damaged tokenizer is no absent one."""
    (folder / name).write_text(content)
    refused(folder)


def test_a_tokenizer_is_checked_whenever_it_is_set(whole: Path) -> None:
    model = ClipVip.from_pretrained(whole / "vip")
    other = tiny_tokenizer()
    other.add_tokens(["<new>"])
    with pytest.raises(CheckpointError, match="its tokenizer has 515 tokens, the model's table 514"):
        model.tokenizer = other
    assert model.encode_text(["a"]).shape == (1, 16)
    model.tokenizer = None
    assert model.tokenizer is None


def test_an_absent_tokenizer_is_none(tmp_path: Path) -> None:
    assert load_tokenizer(str(tmp_path)) is None
    with pytest.raises(CheckpointError, match="has no tokenizer that loads"):
        load_tokenizer(str(tmp_path), required=True)


def test_a_larger_table_than_the_tokenizer_is_fine() -> None:
    check_tokenizer(tiny_tokenizer(), CLIPTextConfig(**tiny_text_config() | {"vocab_size": 600}))


# --- how a model was trained ---


def test_a_folder_remembers_frames_and_tokens(whole: Path, tmp_path: Path) -> None:
    model = ClipVip.from_pretrained(whole / "vip")
    assert (model.config.num_frames, model.config.max_text_tokens) == (None, None)
    assert (model.config.scored_frames, model.config.scored_text_tokens) == (12, MAX_TOKENS)
    config = json.loads((whole / "vip" / "config.json").read_text())
    for name in ("num_frames", "max_text_tokens"):  # a folder of before
        del config[name]
    (shutil.copytree(whole / "vip", tmp_path / "old") / "config.json").write_text(json.dumps(config))
    old = ClipVip.from_pretrained(tmp_path / "old").config
    assert (old.scored_frames, old.scored_text_tokens) == (12, MAX_TOKENS)
    model.config.num_frames, model.config.max_text_tokens = 5, 9
    model.save_pretrained(tmp_path)
    again = ClipVip.from_pretrained(tmp_path)
    assert (again.config.scored_frames, again.config.scored_text_tokens) == (5, 9)
    assert (again.config.temporal_size, again.config.num_frames, again.config.max_text_tokens) == (12, 5, 9)
    assert_close(again.encode_text(TEXTS), model.encode_text(TEXTS), atol=1e-6)
    assert "| frames | 5 of a clip; temporal positions for 12 |" in (tmp_path / "README.md").read_text()
    with torch.no_grad():
        tokens = tokenize(tiny_tokenizer(), TEXTS, max_tokens=9)
        assert_close(again.encode_text(TEXTS), again.get_text_features(**tokens), atol=1e-6)
        all_tokens = tokenize(tiny_tokenizer(), TEXTS, max_tokens=MAX_TOKENS)
        assert_close(
            again.encode_text(TEXTS, max_tokens=MAX_TOKENS), again.get_text_features(**all_tokens), atol=1e-6
        )
    assert (again.encode_text(TEXTS) - again.encode_text(TEXTS, max_tokens=20)).abs().max() > 1e-3
    for wrong in (0, 2, MAX_TOKENS + 1):
        with pytest.raises(ValueError, match=f"give 3 to {MAX_TOKENS} tokens"):
            again.encode_text(TEXTS, max_tokens=wrong)
    assert ClipVip.from_clip(tmp_path, encoder="mean_pool").config.scored_frames == 5


def test_frames_of_a_file_are_those_of_training(whole: Path, tmp_path: Path) -> None:
    from clipvip.media.whole_file import read_frames
    from make_videos import make_video

    path = make_video(tmp_path / "video.mp4", num_frames=40)
    model = ClipVip.from_pretrained(whole / "vip")
    assert_close(model.encode_video(path), model.encode_video([read_frames(path, 12)]), atol=1e-6)
    model.config.num_frames = 5
    assert_close(model.encode_video(path), model.encode_video([read_frames(path, 5)]), atol=1e-6)
    assert_close(
        model.encode_video(path, num_frames=3), model.encode_video([read_frames(path, 3)]), atol=1e-6
    )


def test_the_defaults_are_the_papers() -> None:
    config = ClipVipConfig()
    assert (config.scored_frames, config.scored_text_tokens) == (12, MAX_TEXT_TOKENS) == (12, 70)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_frames": 0}, "num_frames is 0; it must be a whole number of at least 1"),
        ({"num_frames": 2.5}, "num_frames is 2.5; it must be"),
        ({"num_frames": True}, "num_frames is True; it must be"),
        ({"max_text_tokens": 2}, "max_text_tokens is 2; it must be a whole number of at least 3"),
        ({"max_text_tokens": "50"}, "max_text_tokens is '50'; it must be"),
        ({"max_text_tokens": 78}, "max_text_tokens = 78 is more than the 77 of the model's table"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        ClipVipConfig(**settings)
    shutil.copytree(whole / "vip", tmp_path / "vip")
    path = tmp_path / "vip" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    with pytest.raises(CheckpointError, match="does not load") as caught:
        ClipVip.from_pretrained(tmp_path / "vip")
    assert "\n" not in str(caught.value)


def test_half_a_surrogate_pair_is_no_character_and_loses_no_other_text(whole: Path) -> None:
    model = load(whole / "clip")
    alone = model.encode_text(["a red square moves"])
    assert_close(model.encode_text(["\ud800", "a red square moves"])[1:], alone, atol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_finite_numbers_do_not_load(folder: Path, value: float) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["text_projection.weight"][0, 0] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"holds weights that are not finite numbers \(such as text_projection.weight\)"
    ):
        load(folder)


def test_a_configuration_nested_too_deep_is_a_checkpoint_error(folder: Path) -> None:
    (folder / "config.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError):
        load(folder)
