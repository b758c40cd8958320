"""OFA's tokenizer against BART's on a small vocabulary, its codes and bins behind one of published size."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer, BartTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from clipvip.model.ofa import OfaTokenizer
from goldens import GOLDENS
from tiny_ofa import make_ofa, write_vocabulary

TEXTS = [
    " what does the image describe?",
    "what does the image describe?",
    " what does the image describe? ",
    " Café naïve 12 o'clock – ünïcode 日本 🙂",
    "two  spaces,\ta tab\nand a line",
    "",
    " the dog runs on the beach",
]
MERGES = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("Ġ", "d"), ("o", "g"), ("Ġd", "og"), ("i", "n"), ("Ġ", "w")]


def vocabulary_folder(folder: Path, *, fill_to: int | None = None) -> Path:
    """vocab.json and merges.txt laid out as BART's; `fill_to` adds tokens that no text has."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *bytes_to_unicode().values()]
    tokens += ["".join(pair) for pair in MERGES]
    if fill_to is not None:
        tokens += [f"madeupword{n:05d}" for n in range(fill_to - len(tokens) - 1)]
    tokens.append("<mask>")
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in MERGES)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def published_size(tmp_path_factory: pytest.TempPathFactory) -> OfaTokenizer:
    folder = vocabulary_folder(tmp_path_factory.mktemp("vocabulary"), fill_to=50265)
    return OfaTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_barts(text: str, tmp_path: Path) -> None:
    folder = vocabulary_folder(tmp_path)
    ours, theirs = OfaTokenizer.from_pretrained(folder), BartTokenizer.from_pretrained(folder)
    assert ours(text).input_ids == theirs(text).input_ids
    assert len(ours) == len(theirs), "no codes behind a vocabulary of another size"


@pytest.mark.parametrize("text", TEXTS)
def test_ids_do_not_change_with_codes_and_bins(
    text: str, published_size: OfaTokenizer, tmp_path: Path
) -> None:
    small = OfaTokenizer.from_pretrained(vocabulary_folder(tmp_path))
    assert published_size(text).input_ids == small(text).input_ids


@pytest.mark.parametrize("text", TEXTS)
def test_there_and_back(text: str, published_size: OfaTokenizer) -> None:
    ids = published_size(text).input_ids
    assert (ids[0], ids[-1]) == (0, 2)
    assert published_size.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) == text


def test_merges_are_applied(tmp_path: Path) -> None:
    tokenizer = OfaTokenizer.from_pretrained(vocabulary_folder(tmp_path))
    assert tokenizer.convert_ids_to_tokens(tokenizer(" the dog").input_ids) == ["<s>", "Ġthe", "Ġdog", "</s>"]


def test_codes_and_bins(published_size: OfaTokenizer) -> None:
    special = json.loads((GOLDENS / "ofa/aux/tokenizer.json").read_text())["special"]
    assert {token: published_size.convert_tokens_to_ids(token) for token in special} == special
    assert len(published_size) == 59457
    assert special["<code_0>"] == 50265 and special["<bin_0>"] == 58457


@pytest.mark.parametrize("text", [" region: <bin_12> <bin_999> <code_0>", " <code_8191>"])
def test_spaces_before_codes_are_no_tokens(text: str, published_size: OfaTokenizer) -> None:
    """As in the published tokenizer; the text before is of our own vocabulary."""
    cases = json.loads((GOLDENS / "ofa/aux/tokenizer.json").read_text())["encode"]
    (expected,) = [case["input_ids"] for case in cases if case["text"] == text]
    found = published_size(text).input_ids
    assert [i for i in found if i >= 50265] == [i for i in expected if i >= 50265]
    before = text.split("<")[0].rstrip()
    assert found == published_size(before).input_ids[:-1] + [i for i in expected if i >= 50265] + [2]


def test_batches_are_padded_with_pad(published_size: OfaTokenizer) -> None:
    batch = published_size(["a dog", "a"], padding=True, return_tensors="pt")
    assert set(batch) == {"input_ids", "attention_mask"}
    assert (batch.input_ids == 1).equal(batch.attention_mask == 0)
    assert (batch.input_ids[1] == 1).any()


def test_found_by_the_models_configuration(tmp_path: Path) -> None:
    folder = make_ofa(tmp_path / "model")
    assert type(AutoTokenizer.from_pretrained(folder)) is OfaTokenizer
    assert len(OfaTokenizer.from_pretrained(folder)) == write_vocabulary(tmp_path / "again")


def test_saved_and_loaded(published_size: OfaTokenizer, tmp_path: Path) -> None:
    published_size.save_pretrained(tmp_path)
    again = OfaTokenizer.from_pretrained(tmp_path)
    assert len(again) == 59457
    for text in [*TEXTS, " region: <bin_12> <code_0>"]:
        assert again(text).input_ids == published_size(text).input_ids
