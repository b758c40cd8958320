"""The Python code of README gives what it should; its commands are checked by tests/docs."""

import contextlib
import io
import re
from pathlib import Path

import markdown
import pytest
import torch

import clipvip
from browser import fit_screens
from clipvip.experiments.demo.world import WEIGHTS
from clipvip.model import ClipVip, ClipVipConfig
from make_shards import make_shard_folder
from make_videos import make_video
from tiny_clip import tiny_text_config, tiny_tokenizer

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)

# As the hosts of code show a README: text of 16 pixels, tables that scroll where they are too wide.
SHEET = """body{font:16px/1.5 sans-serif;margin:0;padding:16px} img{max-width:100%} pre{overflow:auto}
table{display:block;width:max-content;max-width:100%;overflow:auto;border-collapse:collapse}
td,th{padding:6px 13px;border:1px solid}
code{font-size:85%;white-space:break-spaces} pre code{white-space:pre}"""


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


def run(code: str) -> str:
    """What it prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, "README.md", "exec"), {})  # noqa: S102 (our own README)
    return printed.getvalue().strip()


def test_five_lines_on_what_the_demo_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence finds the clip that `clipvip-eval search` finds."""
    code = BLOCKS[0]
    assert len(code.partition("\n\n")[2].strip().splitlines()) == 5  # after the imports
    monkeypatch.chdir(tmp_path)
    ClipVip.from_clip(WEIGHTS / "clip", temporal_size=4).save_pretrained("demo-out/tuned/model")
    make_shard_folder(tmp_path / "demo-out" / "shards-test", num_shards=1, clips_per_shard=9)
    (sentence,) = re.findall(r'"([a-z]+(?: [a-z]+)+)"', code)
    found = clipvip.search(sentence, model="demo-out/tuned/model", shards="demo-out/shards-test", top=1)
    assert run(code) == found.clips[0].text


def test_released_weights_to_similarities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code of README, run in a folder that has what it names."""
    code = BLOCKS[1]
    monkeypatch.chdir(tmp_path)
    model = write_released_checkpoint(tmp_path / "pretrain_clipvip_base_32.pt")
    model.tokenizer = tiny_tokenizer()
    model.tokenizer.save_pretrained(tmp_path / "openai" / "clip-vit-base-patch32")
    make_video(tmp_path / "clip.mp4", num_frames=40)

    sentences = re.findall(r'"([a-z ]+)"', code)
    expected = model.encode_text(sentences) @ model.encode_video([tmp_path / "clip.mp4"]).T
    assert expected.shape == (3, 1)
    assert run(code) == str(expected)


def test_the_first_page_of_the_site_says_the_same() -> None:
    """Up to how it is installed, of which the page says more."""
    body, page = (path.read_text() for path in (README, README.parent / "docs" / "index.md"))
    shared = body[body.index("`clipvip` adapts") : body.index("## Install")].replace("](docs/", "](")
    # Without a list of headings beside it, the code has room on a laptop's screen.
    assert page.partition("## Install")[0] == f"---\nhide: [toc]\n---\n\n# clipvip\n\n{shared}"


def test_its_table_is_what_the_demo_page_says() -> None:
    """The numbers of the demo's documentation, which a slow test compares with a run."""
    table = re.findall(r"\| [^|]*?(\d+\.\d)\**? \| (\d+\.\d to \d+\.\d) \|", README.read_text())
    said = (README.parent / "docs" / "demo.md").read_text()
    assert len(table) == 3 and all(mean in said and interval in said for mean, interval in table)


def test_code_is_not_cut_on_the_page_of_a_host() -> None:
    """It is some 830 pixels wide, and a character of code 8.2."""
    blocks = re.findall(r"```[a-z]+\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(blocks) == 4
    assert [line for block in blocks for line in block.splitlines() if len(line) > 97] == []


@pytest.mark.slow
@pytest.mark.needs("browser")
def test_tables_fit_a_phone_on_the_page_of_a_host() -> None:
    body = markdown.markdown(README.read_text(), extensions=["tables", "fenced_code"])
    fit = fit_screens(f"<!doctype html><style>{SHEET}</style>{body}".encode(), [400])[400]
    assert body.count("<table>") == 3 and fit == (400, 0)
