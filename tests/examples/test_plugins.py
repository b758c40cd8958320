"""examples/plugins.

Each works with the installed package as it is, by an entry point or by CLIPVIP_PLUGINS.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clipvip.model import ClipVip
from clipvip.model.variants import VARIANTS
from clipvip.plugins import HINT, VARIABLE
from clipvip.shards.format.captions import read_captions
from clipvip.shards.tar.reader import list_shards, read_shard
from make_shards import make_shard_folder
from make_videos import make_video
from tiny_blip import WORDS, make_blip
from tiny_clip import make_clip

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "examples" / "plugins"
MAX_LINES = 40
DATA = "from clipvip.pipeline.cli import main; main()"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as a wheel installs it, and the plug-ins as another package's modules and entry points."""
    site = tmp_path_factory.mktemp("site")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src" / "clipvip", site / "clipvip", ignore=ignored)
    for folder in ("analysis", "experiments", "media", "model", "pipeline", "recipes", "shards"):
        if not (site / "clipvip" / folder).exists():  # source archives have no links
            shutil.copytree(ROOT / folder, site / "clipvip" / folder, ignore=ignored)
    return site


def install(site: Path, folder: Path, *names: str) -> Path:
    """A folder of installed packages: ours, and one with some plug-ins; give it to `run`."""
    folder.mkdir()
    (folder / "clipvip").symlink_to(site / "clipvip")
    described = folder / "more_for_clipvip-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: more-for-clipvip\nVersion: 1.0\n")
    points = "".join(f"{name} = {name}\n" for name in names)
    (described / "entry_points.txt").write_text(f"[clipvip.plugins]\n{points}")
    for name in names:
        if (PLUGINS / f"{name}.py").is_file():
            shutil.copy(PLUGINS / f"{name}.py", folder)
    return folder


def run(
    installed: Path, code: str, *arguments: object, plugins: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Run Python code with what is installed there, outside the checkout."""
    where = f"import clipvip; assert clipvip.__file__.startswith({str(installed)!r}), clipvip.__file__\n"
    paths = os.pathsep.join([str(installed), *([str(PLUGINS)] if plugins else [])])
    return subprocess.run(
        [sys.executable, "-c", where + code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": paths, VARIABLE: plugins, "OMP_NUM_THREADS": "1"},
        cwd=installed.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def run_well(installed: Path, code: str, *arguments: object, plugins: str = "") -> str:
    done = run(installed, code, *arguments, plugins=plugins)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_each_example_is_short_and_named_in_the_documentation() -> None:
    names = {path.stem for path in PLUGINS.glob("*.py")}
    assert names == {"max_pool", "crossed", "charades_sta", "blip"}
    page = (ROOT / "docs" / "architecture.md").read_text()
    for name in names:
        assert f"`examples/plugins/{name}.py`" in page
        assert len((PLUGINS / f"{name}.py").read_text().splitlines()) < MAX_LINES


ENCODER = """
import sys
import torch
import torch.nn.functional as F
from clipvip.model import ClipVip
from clipvip.pipeline.train.recipe import load_recipe

assert load_recipe("demo", ["model.encoder=max_pool"]).model.encoder == "max_pool"
ClipVip.from_clip(sys.argv[1], encoder="max_pool").save_pretrained(sys.argv[2])
model = ClipVip.from_pretrained(sys.argv[2]).eval()
video = torch.randn(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    found = model(video).video_embeds
    frames = [model(video[:, [number]]).video_embeds for number in range(3)]
torch.testing.assert_close(found, F.normalize(torch.stack(frames).amax(dim=0), dim=-1))
assert not torch.allclose(found, F.normalize(torch.stack(frames).mean(dim=0), dim=-1), atol=1e-3)
print(tuple(found.shape))
"""
LOAD = "import sys\nfrom clipvip.model import ClipVip\nClipVip.from_pretrained(sys.argv[1])"


@pytest.mark.slow
def test_the_encoder_embeds_a_video(site: Path, tmp_path: Path) -> None:
    installed = install(site, tmp_path / "installed", "max_pool")
    arguments = (make_clip(tmp_path / "clip"), tmp_path / "model")
    assert run_well(installed, ENCODER, *arguments) == "(2, 16)\n"
    # Where the plug-in is not installed, the folder that names it says so.
    done = run(install(site, tmp_path / "bare"), LOAD, tmp_path / "model")
    assert done.stderr.splitlines()[-1].endswith(
        f"{tmp_path / 'model'}: does not load (encoder 'max_pool' is none of vip, mean_pool, "
        "seq_transformer, "
        "full_attention; did you mean mean_pool? if a plug-in adds it, install that, or name its module in "
        "CLIPVIP_PLUGINS)"
    )


LOSS = """
import torch
import torch.nn.functional as F
from clipvip.model.losses import omnisource_loss
from clipvip.model.variants import inputs_of
from clipvip.pipeline.train.recipe import load_recipe

assert load_recipe("demo", ["loss.pairs=crossed"]).loss.pairs == "crossed"
assert inputs_of("crossed") == set("VSFC")
rows = torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
v, s, f, c = F.normalize(rows, dim=-1)
rows = {"video": v, "subtitle": s, "frame": f, "caption": c}
found = omnisource_loss(**rows, logit_scale=torch.zeros(()), variant="crossed")
pairs = [(v, c), (c, v), (f, s), (s, f)]
torch.testing.assert_close(found, sum(F.cross_entropy(a @ b.T, torch.arange(5)) for a, b in pairs))
print("right")
"""


@pytest.mark.parametrize("by", ["entry point", pytest.param("variable", marks=pytest.mark.slow)])
def test_the_loss_has_the_value_of_its_terms(site: Path, tmp_path: Path, by: str) -> None:
    names = ("crossed",) if by == "entry point" else ()
    installed = install(site, tmp_path / "installed", *names)
    assert run_well(installed, LOSS, plugins="" if names else "max_pool, crossed") == "right\n"


TRAIN = "from clipvip.pipeline.train.command import main; main()"


@pytest.mark.slow
def test_a_run_of_several_processes_trains_with_plug_ins(site: Path, tmp_path: Path) -> None:
    """Launched processes and loading ones find them too, with nothing told to them."""
    installed = install(site, tmp_path / "installed", "max_pool", "crossed")
    shards = make_shard_folder(tmp_path / "shards", num_shards=2, clips_per_shard=4)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "data: {num_frames: 2, max_text_tokens: 8}\nmodel: {encoder: max_pool}\nloss: {pairs: V-C}\n"
        "optim: {batch_size: 4, steps: 2}\nrun: {processes: 2, workers: 1, device: cpu, tensorboard: false}\n"
    )
    captions = tmp_path / "captions"
    run_well(
        installed,
        DATA,
        *("caption", "--shards", shards, "--out", captions, "--gpus", 0, "--workers", 1),
        *("--model", make_blip(tmp_path / "blip")),
        plugins="blip",
    )
    out = tmp_path / "out"
    options = (
        "--shards",
        shards,
        "--captions",
        captions,
        "--init",
        make_clip(tmp_path / "clip"),
        "--out",
        out,
    )
    run_well(installed, TRAIN, recipe, *options, "--set", "loss.pairs=crossed")
    assert json.loads((out / "model" / "config.json").read_text())["encoder"] == "max_pool"
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert {name for name in rows[0] if name.startswith("loss/clips/")} >= {"loss/clips/F->S"}


def shard_charades(folder: Path, name: str = "charades_sta/test") -> tuple[object, ...]:
    """The words of `shard` for three lines of Charades-STA, one of which has no moment."""
    lines = "AO8RW 0.2 0.8##a dog runs.\nAO8RW 0.2 0.8##the dog.\nAO8RW##a bird\n"
    (folder / "charades_sta_test.txt").write_text(lines)
    make_video(folder / "videos" / "AO8RW.mp4", num_frames=30)
    inputs = ("--dataset", name, "--annotations", folder, "--videos", folder / "videos")
    return ("shard", *inputs, "--workers", 1, "--out", folder / "out")


def test_the_source_is_sharded_by_its_name(site: Path, tmp_path: Path) -> None:
    run_well(install(site, tmp_path / "installed", "charades_sta"), DATA, *shard_charades(tmp_path))
    (sample,) = (sample for path in list_shards(tmp_path / "out") for sample in read_shard(path))
    assert sample.sentences == ["a dog runs.", "the dog."] and sample.sentences_are == "alternatives"
    assert sample.record.span_seconds == (0.2, 0.8)
    skips = json.loads((tmp_path / "out" / "report.json").read_text())["skipped_by_reason"]
    assert skips["bad_annotation"]["count"] == 1


@pytest.mark.slow
def test_the_captioner_captions(site: Path, tmp_path: Path) -> None:
    shards = make_shard_folder(tmp_path / "shards", num_shards=1)
    options = ("--shards", shards, "--model", make_blip(tmp_path / "blip"), "--out", tmp_path / "captions")
    words = ("caption", *options, "--gpus", 0, "--workers", 1)
    # The folder has no image processor: our own way of loading a BLIP needs one, the plug-in does not.
    done = run(install(site, tmp_path / "bare"), DATA, *words)
    assert done.returncode == 1
    assert "its processor does not load (" in done.stderr.splitlines()[-1]
    run_well(install(site, tmp_path / "installed", "blip"), DATA, *words)
    captions = read_captions(tmp_path / "captions", "000000")
    assert len(captions) == 4 and len(set(captions.values())) > 1
    assert {word for caption in captions.values() for word in caption.split()} <= set(WORDS)


def test_a_plug_in_that_does_not_load_is_one_line(site: Path, tmp_path: Path) -> None:
    installed = install(site, tmp_path / "installed", "absent")
    for plugins, message in (
        ("", "plug-in absent (of the package more-for-clipvip): does not load (ModuleNotFoundError: "),
        ("nothing_there", "plug-in nothing_there (named in CLIPVIP_PLUGINS): does not load (ModuleNot"),
    ):
        done = run(installed, DATA, *shard_charades(tmp_path), plugins=plugins)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"Error: {message}")
        assert not (tmp_path / "out").exists()
    # Names of our own need no plug-in.
    assert "shard" in run_well(installed, DATA, "--help")
    done = run(installed, DATA, *shard_charades(tmp_path, "msrvtt/1ka"))
    assert "plug-in" not in done.stderr and "has no annotations of msrvtt/1ka" in done.stderr


def test_names_are_taken_once_and_typos_get_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="'d' is already taken"):
        VARIANTS["d"] = []
    monkeypatch.setitem(VARIANTS.data, "crossed", [])
    assert VARIANTS.refusal("loss", "croised").endswith("V-C, crossed; did you mean crossed? " + HINT)
    assert VARIANTS.get("nothing") is None and next(iter(VARIANTS)) == "baseline"
    with pytest.raises(
        ValueError, match=r"encoder 'maxpool' is none of .*full_attention; did you mean mean_pool\?"
    ):
        ClipVip.config_class(encoder="maxpool")
