"""The converter of fairseq checkpoints: names as in the published pairs, the same network, nothing unsafe."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from clipvip.model.errors import CheckpointError
from clipvip.model.ofa import OfaConfig, OfaForConditionalGeneration, OfaTokenizer
from clipvip.model.ofa.convert import convert_fairseq, infer_config, rename_fairseq_key
from clipvip.pipeline.cli import main
from tiny_ofa import IMAGE_SIZE, make_fairseq, make_model, tiny_config, write_vocabulary

COMPUTED = ("token_rp_bucket", "image_rp_bucket", "image_position_idx")


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vocabulary")
    write_vocabulary(folder)
    return folder


@pytest.fixture(scope="module")
def model(vocabulary: Path) -> OfaForConditionalGeneration:
    return make_model(len(json.loads((vocabulary / "vocab.json").read_text())))


@pytest.fixture(scope="module")
def checkpoint(model: OfaForConditionalGeneration, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_fairseq(tmp_path_factory.mktemp("fairseq") / "caption.pt", model)


def convert(*arguments: Path | str) -> Result:
    return CliRunner().invoke(main, ["convert-ofa", *map(str, arguments)])


def key_rows(goldens_dir: Path) -> list[dict]:
    rows: list[dict] = json.loads((goldens_dir / "ofa/keys/fairseq_to_hf_ofa-base.json").read_text())["rows"]
    return rows


def test_every_name_of_ofa_base_becomes_the_published_one(goldens_dir: Path) -> None:
    rows = key_rows(goldens_dir)
    assert len(rows) == 967
    for row in rows:
        computed = row["hf"] is None or row["hf"].endswith(COMPUTED)
        assert rename_fairseq_key(row["fairseq"]) == (None if computed else row["hf"])
        assert rename_fairseq_key("model." + row["fairseq"]) == rename_fairseq_key(row["fairseq"])


def test_the_sizes_of_ofa_base_are_read_off_its_shapes(goldens_dir: Path) -> None:
    with torch.device("meta"):
        state = {
            name: torch.empty(row["shape"])
            for row in key_rows(goldens_dir)
            if (name := rename_fairseq_key(row["fairseq"])) is not None
        }
        model = OfaForConditionalGeneration(infer_config("base", state))
    assert model.config.to_dict() == OfaConfig().to_dict()
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in state.items()}


def test_the_folder_holds_the_same_network(
    checkpoint: Path, model: OfaForConditionalGeneration, vocabulary: Path, tmp_path: Path
) -> None:
    result = convert(checkpoint, "--vocab", vocabulary, "--out", tmp_path / "ofa", "--image-size", IMAGE_SIZE)
    assert result.exit_code == 0, result.output
    found = OfaForConditionalGeneration.from_pretrained(tmp_path / "ofa")
    theirs, ours = found.config.to_dict(), model.config.to_dict()
    for name in ("_name_or_path", "architectures", "dtype"):  # what saving adds
        theirs.pop(name, None), ours.pop(name, None)
    assert theirs == ours
    inputs = {
        "input_ids": torch.tensor([[0, 90, 100, 2]]),
        "patch_images": torch.rand(1, 3, IMAGE_SIZE, IMAGE_SIZE),
        "decoder_input_ids": torch.tensor([[0, 50, 60]]),
    }
    with torch.inference_mode():
        assert torch.equal(found(**inputs).logits, model(**inputs).logits)
    tokenizer = OfaTokenizer.from_pretrained(tmp_path / "ofa")
    assert tokenizer.decode(tokenizer(" a dog").input_ids, skip_special_tokens=True) == " a dog"
    names = sorted(path.name for path in (tmp_path / "ofa").iterdir())
    assert names == ["config.json", "generation_config.json", "merges.txt", "model.safetensors", "vocab.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["ofa"]


def test_images_are_as_large_as_the_model_takes(checkpoint: Path, vocabulary: Path, tmp_path: Path) -> None:
    assert convert_fairseq(checkpoint, tmp_path / "ofa", vocabulary=vocabulary).image_size == 6 * 16


def test_a_published_depth_keeps_its_name(vocabulary: Path) -> None:
    state = OfaForConditionalGeneration(
        tiny_config(300, resnet_blocks=None, resnet_type="resnet50")
    ).state_dict()
    found = infer_config("tiny", state)
    assert (found.resnet_type, found.resnet_blocks) == ("resnet50", None)


class Harmful:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path("harm-done"),)


def test_what_is_no_fairseq_ofa_is_told_in_one_line(
    model: OfaForConditionalGeneration, vocabulary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    (tmp_path / "text.pt").write_text("no checkpoint")
    (tmp_path / "empty.pt").touch()
    (tmp_path / "page.pt").write_text("<!DOCTYPE html><title>404</title>")
    (tmp_path / "pointer.pt").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    )
    (tmp_path / "harmful.pt").write_bytes(pickle.dumps({"model": Harmful()}))
    torch.save({"model": {}, "more": Harmful()}, tmp_path / "harmful2.pt")
    torch.save({"state": 1}, tmp_path / "other.pt")
    torch.save({"model": {"a.weight": torch.zeros(2)}}, tmp_path / "tensors.pt")
    make_fairseq(tmp_path / "extra.pt", model, **{"decoder.adapter.weight": torch.zeros(2)})
    make_fairseq(tmp_path / "shape.pt", model, **{"encoder.image_proj.bias": torch.zeros(2)})
    other_table = torch.zeros_like(model.encoder.embed_tokens.weight)
    make_fairseq(tmp_path / "untied.pt", model, **{"decoder.embed_tokens.weight": other_table})
    whole = make_fairseq(tmp_path / "cut.pt", model).read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    cases = {
        "missing.pt": "no such checkpoint file",
        "text.pt": "is no checkpoint of torch",
        "harmful.pt": "would run code when loaded",
        "harmful2.pt": "would run code when loaded",
        "cut.pt": "is cut off",
        "empty.pt": "is empty",
        "page.pt": "is an HTML page",
        "pointer.pt": "is a Git LFS pointer",
        "other.pt": "no fairseq checkpoint",
        "tensors.pt": "do not show the model",
        "extra.pt": "1 unexpected: decoder.adapter.weight",
        "shape.pt": "1 of another shape: encoder.image_proj.bias",
        "untied.pt": "not equal to the encoder's table: decoder.embed_tokens.weight",
    }
    for name, message in cases.items():
        result = convert(tmp_path / name, "--vocab", vocabulary, "--out", out)
        assert result.exit_code == 1, name
        assert message in result.output
        assert name in result.output
        assert len(result.output.strip().splitlines()) == 1, result.output
        assert not out.exists()
    assert not (tmp_path / "harm-done").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_vocabulary_that_is_not_its_own_is_refused(
    checkpoint: Path, vocabulary: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    (tmp_path / "large").mkdir()
    (tmp_path / "large/merges.txt").write_text("")
    (tmp_path / "large/vocab.json").write_text(json.dumps({str(number): number for number in range(9999)}))
    for folder, message in (("empty", "no vocab.json and no merges.txt"), ("large", "9999 tokens")):
        result = convert(checkpoint, "--vocab", tmp_path / folder, "--out", out)
        assert result.exit_code == 1
        assert message in result.output
        assert not out.exists()
    out.mkdir()
    (out / "mine").write_text("")
    with pytest.raises(CheckpointError, match="already exists"):
        convert_fairseq(checkpoint, out, vocabulary=vocabulary)
    assert [path.name for path in out.iterdir()] == ["mine"]
