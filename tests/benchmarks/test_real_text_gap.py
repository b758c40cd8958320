"""The domain gap on real text: the script's table and figure say what `nmi` found."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import transformers
from click.testing import CliRunner
from real_text_gap import SOURCES, TARGETS, main

from tiny_encoders import SPECIAL, WORDS, make_text_model


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    config = transformers.BertConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=24,
        pad_token_id=0,
    )
    make_text_model(tmp_path / "encoder", transformers.BertModel, config)
    return tmp_path / "encoder"


def run(*words: object) -> None:
    result = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_table_and_figure_say_what_was_found(tmp_path: Path, encoder: Path) -> None:
    texts, out = tmp_path / "texts", tmp_path / "out"
    texts.mkdir()
    for place, name in enumerate([*(file for file, _ in SOURCES.values()), *TARGETS.values()]):
        lines = [f"{WORDS[(n + place) % 7]} {WORDS[n % (2 + place)]} {WORDS[n % 14]}" for n in range(60)]
        (texts / name).write_text("\n".join(lines))
    run("--texts", texts, "--model", encoder, "--out", out, "--samples", 40, "--repeats", 2)
    gaps = json.loads((out / "nmi.json").read_text())["gaps"]
    assert len(gaps) == len(SOURCES) * len(TARGETS)
    written = (out / "real_text_gap.md").read_text()
    drawn = ElementTree.parse(out / "real_text_gap.svg").getroot()
    values = [text.text for text in drawn.iter() if text.get("class") == "value"]
    assert sorted(values) == sorted(f"{gap['mean']:.2f}" for gap in gaps)
    for gap in gaps:
        (row,) = (line for line in written.splitlines() if f"| {gap['source']} |" in line)
        assert f"{gap['mean']:.3f} ± {gap['std']:.3f}" in row
    width = float(re.findall(r"\d+", drawn.attrib["viewBox"])[2])
    ends = [float(r.get("x", 0)) + float(r.get("width", 0)) for r in drawn.iter() if r.tag.endswith("rect")]
    assert max(ends) <= width
