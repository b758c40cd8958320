"""The command `clipvip-data caption` with image-to-text models of transformers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from caption_runs import BAD, NUM_SHARDS, caption
from clipvip.model.captioners import find_captioner
from clipvip.shards.format.captions import read_caption_file, read_captions
from clipvip.shards.tar.reader import list_shards, read_shard
from outputs import content, report
from tiny_captioners import KINDS, make_tokenizer
from tiny_clip import make_clip


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llava") / "tiny-llava"
    KINDS["llava"](folder)
    return folder


@pytest.mark.slow
def test_a_chat_model_captions_and_goes_on(shards: Path, llava: Path, tmp_path: Path) -> None:
    options = ("--prompt", "what is this", "--max-length", "5", "--batch-size", "2", "--workers", "1")
    result = caption(shards, tmp_path / "out", llava, *options)
    assert result.exit_code == 0, result.output
    captioner = find_captioner(str(llava)).load(
        str(llava),
        device=torch.device("cpu"),
        dtype=torch.float32,
        batch_size=2,
        prompt="what is this",
        num_beams=1,
        max_length=5,
        image_size=None,
    )
    for path in list_shards(shards):
        samples = {sample.key: sample for sample in read_shard(path) if sample.key != BAD}
        expected = captioner.caption([sample.middle_frame() for sample in samples.values()])
        assert list(read_captions(tmp_path / "out", path.stem).values()) == expected
    found = read_caption_file(tmp_path / "out" / "000000.parquet", with_origins=True)
    (origin,) = found.origins
    assert origin.model == "tiny-llava" and origin.revision.startswith("sha256:")
    assert json.loads(origin.options) == {
        "prompt": "what is this",
        "num_beams": 1,
        "max_length": 5,
        "dtype": "float32",
    }
    before = content(tmp_path / "out")
    (tmp_path / "out" / "000002.parquet").unlink()
    assert caption(shards, tmp_path / "out", llava, *options).exit_code == 0
    assert content(tmp_path / "out") == before
    # What the processor goes by belongs to the model.
    (llava / "chat_template.jinja").write_text((llava / "chat_template.jinja").read_text() + " ")
    refused = caption(shards, tmp_path / "out", llava, *options)
    assert refused.exit_code == 1 and "made with other options" in refused.output


@pytest.mark.slow
def test_captions_that_are_no_text_are_counted_and_left_out(shards: Path, tmp_path: Path) -> None:
    KINDS["blip"](tmp_path / "blip")
    whole = caption(shards, tmp_path / "whole", tmp_path / "blip", "--workers", "1")
    assert whole.exit_code == 0, whole.output
    texts = [
        text for n in range(NUM_SHARDS) for text in read_captions(tmp_path / "whole", f"{n:06d}").values()
    ]
    word = next(word for word in texts[0].split() if any(word not in text.split() for text in texts))
    tokenizer = tmp_path / "blip" / "tokenizer.json"
    written = json.loads(tokenizer.read_text())
    vocabulary = written["model"]["vocab"]
    vocabulary["\ufffd"] = vocabulary.pop(word)
    tokenizer.write_text(json.dumps(written))
    result = caption(shards, tmp_path / "out", tmp_path / "blip", "--workers", "1")
    assert result.exit_code == 0, result.output
    garbled = sum(word in text.split() for text in texts)
    kept = [text for n in range(NUM_SHARDS) for text in read_captions(tmp_path / "out", f"{n:06d}").values()]
    assert kept == [text for text in texts if word not in text.split()]
    assert report(tmp_path / "out")["skipped_by_reason"]["garbled_caption"]["count"] == garbled > 0


def test_a_model_that_makes_no_text_is_one_line(shards: Path, tmp_path: Path) -> None:
    result = caption(shards, tmp_path / "out", make_clip(tmp_path / "clip"))
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert "holds a model of type 'clip', which does not turn images into text" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("is_on_the_hub", [False, True])
def test_a_package_that_a_chat_model_lacks_is_named_before_anything_is_done(
    shards: Path, tmp_path: Path, is_on_the_hub: bool
) -> None:
    """Of Qwen2.5-VL without torchvision; the model has no weights, so none can have been loaded."""
    model, commit = tmp_path / "qwen", "1" * 40
    if is_on_the_hub:
        kept = tmp_path / "hub" / "models--user--qwen"
        (kept / "refs").mkdir(parents=True)
        (kept / "refs" / "main").write_text(commit)
        model = kept / "snapshots" / commit
    make_tokenizer().save_pretrained(model)
    files = {
        "config.json": {"model_type": "qwen2_5_vl"},
        "preprocessor_config.json": {
            "processor_class": "Qwen2_5_VLProcessor",
            "image_processor_type": "Qwen2VLImageProcessor",
        },
        "video_preprocessor_config.json": {"video_processor_type": "Qwen2VLVideoProcessor"},
    }
    for name, content_of_file in files.items():
        (model / name).write_text(json.dumps(content_of_file))
    words = ["caption", "--shards", shards, "--out", tmp_path / "out", "--gpus", "0"]
    words += ["--model", "user/qwen" if is_on_the_hub else model]
    script = (
        "import sys; sys.modules['torchvision'] = None\n"
        f"from clipvip.pipeline.cli import main; main({list(map(str, words))!r})"
    )
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub")}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=offline, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("[transformers]")]
    assert "pip install '.[chat]'" in line and "orchvision" in line
    assert not (tmp_path / "out").exists()
