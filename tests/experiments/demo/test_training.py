"""The commands that made the shipped weights.

A few steps of each give a model that loads, again and again the same.
"""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from clipvip.experiments.demo.cli import main
from clipvip.model import ClipVip
from clipvip.model.ofa import OfaForConditionalGeneration

FEW = ["--steps", "2", "--batch-size", "4", "--pictures", "8"]


@pytest.fixture(autouse=True)
def _threads() -> object:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def _run(*arguments: str) -> None:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == 0, result.output


@pytest.mark.slow
def test_train_ofa_is_seeded_and_goes_on_from_a_model(tmp_path: Path) -> None:
    for name in ("one", "two"):
        _run("train-ofa", "--out", str(tmp_path / name), *FEW)
    for file in ("model.safetensors", "vocab.json", "merges.txt", "config.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    _run("train-ofa", "--init", str(tmp_path / "one"), "--out", str(tmp_path / "on"), *FEW)
    model = OfaForConditionalGeneration.from_pretrained(str(tmp_path / "on"))
    assert model.config.d_model == 96


@pytest.mark.slow
def test_train_clip_is_seeded(tmp_path: Path) -> None:
    for name in ("one", "two"):
        _run("train-clip", "--out", str(tmp_path / name), *FEW)
    one, two = (tmp_path / name / "model.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert ClipVip.from_clip(tmp_path / "one").encode_text(["a red ring"]).shape == (1, 64)
