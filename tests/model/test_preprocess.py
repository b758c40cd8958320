"""Pixels and tokens as the published transform makes them."""

import numpy as np
import pytest
import torch

from clipvip.model.errors import CheckpointError
from clipvip.model.preprocess import load_tokenizer, preprocess_frames, tokenize
from goldens import assert_close, manifest, tensors
from tiny_clip import MAX_TOKENS, make_clip, tiny_tokenizer

CASES = ["down_wide", "down_tall", "up", "same"]
VARIANTS = {True: "antialias_on_as_torchvision_0.28.0", False: "antialias_off"}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("antialias", [True, False])
def test_transform(case: str, antialias: bool) -> None:
    golden = tensors("preprocess")
    frames = golden[f"{case}/in/uint8"].permute(0, 2, 3, 1)
    size = manifest("preprocess")["cases"][case]["output"]
    expected = golden[f"{case}/out/{VARIANTS[antialias]}"]
    assert_close(preprocess_frames(frames, size, antialias=antialias), expected, atol=2e-5)
    assert_close(preprocess_frames(frames.numpy(), size, antialias=antialias), expected, atol=2e-5)


def test_leading_dimensions_are_kept() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 20, 30, 3), dtype=np.uint8)
    pixels = preprocess_frames(frames, 16)
    assert pixels.shape == (2, 3, 3, 16, 16)
    assert torch.equal(pixels[1, 2], preprocess_frames(frames[1, 2], 16))


def test_texts_are_padded_and_cut_to_one_length() -> None:
    tokenizer = tiny_tokenizer()
    tokens = tokenize(tokenizer, ["a b", "", "c" * 100], max_tokens=MAX_TOKENS)
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    assert ids.shape == mask.shape == (3, MAX_TOKENS) and ids.dtype == torch.int64
    assert mask.sum(1).tolist() == [4, 2, MAX_TOKENS]
    end = tokenizer.eos_token_id
    assert ids[2, -1] == end and ids[0, 3] == end and (ids[:, 0] == tokenizer.bos_token_id).all()
    shorter = tokenize(tokenizer, ["c" * 100], max_tokens=10)["input_ids"]
    assert shorter.shape == (1, 10) and shorter[0, -1] == end


def test_a_tokenizer_that_is_not_there(tmp_path: object) -> None:
    assert load_tokenizer(str(tmp_path)) is None
    with pytest.raises(CheckpointError, match="has no tokenizer that loads"):
        load_tokenizer(str(tmp_path), required=True)


def test_the_tokenizer_of_a_folder(tmp_path: object) -> None:
    loaded = load_tokenizer(str(make_clip(tmp_path)))
    texts = ["Some words, 12!", "Ünïcode"]
    assert loaded(texts)["input_ids"] == tiny_tokenizer()(texts)["input_ids"]
