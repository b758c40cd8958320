"""The Python code of README gives what it should; its commands are checked by tests/docs."""

import contextlib
import io
import re
from pathlib import Path

import pytest
import torch

from clipvip.model import ClipVip, ClipVipConfig
from make_videos import make_video
from tiny_clip import tiny_text_config, tiny_tokenizer

README = Path(__file__).resolve().parents[1] / "README.md"


def write_released_checkpoint(path: Path) -> ClipVip:
    """A model in the layout of the authors' files, with heads of 64 as all of CLIP's are."""
    torch.manual_seed(0)
    tower = {"hidden_size": 64, "num_attention_heads": 1, "intermediate_size": 128, "num_hidden_layers": 2}
    config = ClipVipConfig(
        text_config=tiny_text_config() | tower | {"bos_token_id": 0, "eos_token_id": 2},
        vision_config=tower | {"image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    model = ClipVip(config).eval()
    torch.save({f"clipmodel.{name}": tensor for name, tensor in model.state_dict().items()}, path)
    return model


def test_five_lines_from_released_weights_to_similarities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code of README, run in a folder that has what it names."""
    block = re.search(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert block is not None
    code = block.group(1)
    assert len(code.strip().splitlines()) == 5

    monkeypatch.chdir(tmp_path)
    model = write_released_checkpoint(tmp_path / "pretrain_clipvip_base_32.pt")
    model.tokenizer = tiny_tokenizer()
    model.tokenizer.save_pretrained(tmp_path / "openai" / "clip-vit-base-patch32")
    make_video(tmp_path / "clip.mp4", num_frames=40)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, "README.md", "exec"), {})  # noqa: S102 (our own README)

    sentences = re.findall(r'"([a-z ]+)"', code.splitlines()[3])
    expected = model.encode_video([tmp_path / "clip.mp4"]) @ model.encode_text(sentences).T
    assert expected.shape == (1, 3)
    assert printed.getvalue().strip() == str(expected)
