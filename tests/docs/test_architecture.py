"""The changes that docs/architecture.md shows: each applies to the code as it is, and does what the page says."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clipvip.shards.format.captions import read_captions
from clipvip.shards.tar.reader import list_shards, read_shard
from make_shards import make_shard_folder
from make_videos import make_video
from tiny_blip import WORDS, make_blip
from tiny_clip import make_clip

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("analysis", "experiments", "media", "model", "pipeline", "recipes", "shards")
MAX_LINES = 40


def diffs() -> dict[str, str]:
    """Encoder, loss, source, captioner -> the diff of its section."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    return dict(re.findall(r"^### A new (\w+)\n.*?^```diff\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE))


def changed_tree(what: str, tmp_path: Path) -> Path:
    """A copy of the code with one diff applied."""
    tree = tmp_path / "tree"
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, tree / folder, ignore=ignored)
    shutil.copytree(ROOT / "src", tree / "src", symlinks=True, ignore=ignored)
    for folder in FOLDERS:  # absent from source distributions, whose archives have no links
        if not (tree / "src/clipvip" / folder).exists():
            (tree / "src/clipvip" / folder).symlink_to(f"../../{folder}")
    # Inside a repository, git would apply to that instead.
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(tmp_path)}
    applied = subprocess.run(
        ["git", "apply", "-"],
        input=diffs()[what],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert applied.returncode == 0, applied.stderr
    return tree


def run_in(tree: Path, code: str, *arguments: object) -> str:
    """Run a script with the changed code; what it printed."""
    code = f"import clipvip\nassert clipvip.__file__.startswith({str(tree)!r}), clipvip.__file__\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_four_and_they_are_short() -> None:
    found = diffs()
    assert set(found) == {"encoder", "loss", "source", "captioner"}
    for what, diff in found.items():
        assert len(diff.splitlines()) < MAX_LINES, what
        # The text before a diff names the files that it takes.
        page = (ROOT / "docs" / "architecture.md").read_text()
        text = page[page.index(f"### A new {what}") : page.index(diff)]
        for path in re.findall(r"^--- a/(.*)$", diff, flags=re.MULTILINE):
            assert path in text, (what, path)


ENCODER = """
import sys
import torch
import torch.nn.functional as F
from clipvip.model import ClipVip
from clipvip.pipeline.train.recipe import load_recipe

assert load_recipe("demo", ["model.encoder=max_pool"]).model.encoder == "max_pool"
model = ClipVip.from_clip(sys.argv[1], encoder="max_pool").eval()
video = torch.randn(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    found = model(video).video_embeds
    frames = [model(video[:, [number]]).video_embeds for number in range(3)]
torch.testing.assert_close(found, F.normalize(torch.stack(frames).amax(dim=0), dim=-1))
assert not torch.allclose(found, F.normalize(torch.stack(frames).mean(dim=0), dim=-1), atol=1e-3)
print(tuple(found.shape))
"""


@pytest.mark.slow
def test_the_encoder_embeds_a_video(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip")
    assert run_in(changed_tree("encoder", tmp_path), ENCODER, clip) == "(2, 16)\n"


LOSS = """
import torch
import torch.nn.functional as F
from clipvip.model.losses import omnisource_loss
from clipvip.pipeline.train.recipe import load_recipe

assert load_recipe("demo", ["loss.pairs=crossed"]).loss.pairs == "crossed"
rows = torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
v, s, f, c = F.normalize(rows, dim=-1)
found = omnisource_loss(video=v, subtitle=s, frame=f, caption=c, logit_scale=torch.zeros(()), variant="crossed")
pairs = [(v, c), (c, v), (f, s), (s, f)]
torch.testing.assert_close(found, sum(F.cross_entropy(a @ b.T, torch.arange(5)) for a, b in pairs))
"""


def test_the_loss_has_the_value_of_its_terms(tmp_path: Path) -> None:
    run_in(changed_tree("loss", tmp_path), LOSS)


COMMAND = "from clipvip.pipeline.cli import main; main()"


def test_the_source_is_sharded_by_its_name(tmp_path: Path) -> None:
    records = [
        {"videoID": "abc_000010_000020", "enCap": ["A dog runs.", "The dog."], "chCap": ["-"]},
        {"videoID": "no_captions"},
    ]
    (tmp_path / "vatex_validation_v1.0.json").write_text(json.dumps(records))
    make_video(tmp_path / "videos" / "abc_000010_000020.mp4", num_frames=30)
    options = {"dataset": "vatex/val", "annotations": tmp_path, "videos": tmp_path / "videos", "workers": 1}
    arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
    out = tmp_path / "out"
    run_in(changed_tree("source", tmp_path), COMMAND, "shard", *arguments, "--out", out)
    (sample,) = (sample for path in list_shards(out) for sample in read_shard(path))
    assert sample.sentences == ["A dog runs.", "The dog."] and sample.sentences_are == "alternatives"
    skips = json.loads((out / "report.json").read_text())["skipped_by_reason"]
    assert skips["bad_annotation"]["count"] == 1


@pytest.mark.slow
def test_the_captioner_captions(tmp_path: Path) -> None:
    shards = make_shard_folder(tmp_path / "shards", num_shards=1)
    model = make_blip(tmp_path / "blip")
    options = {"shards": shards, "model": model, "out": tmp_path / "captions", "gpus": 0, "workers": 1}
    arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
    run_in(changed_tree("captioner", tmp_path), COMMAND, "caption", *arguments)
    captions = read_captions(tmp_path / "captions", "000000")
    assert len(captions) == 4 and len(set(captions.values())) > 1
    assert {word for caption in captions.values() for word in caption.split()} <= set(WORDS)
