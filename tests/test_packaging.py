"""What is installed: every package and data file, one top-level name, and a start without torch."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import clipvip
from resources import need

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = ("analysis", "experiments", "media", "model", "pipeline", "recipes", "shards")


def test_every_package_is_listed() -> None:
    """A nested package that is not listed works in the checkout and is absent from the wheel."""
    found = {"clipvip"}
    for folder in FOLDERS:
        for init in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join(("clipvip", *init.parent.relative_to(ROOT).parts)))
    assert found == set(SETTINGS["tool"]["setuptools"]["packages"])


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == clipvip.__version__
    assert citation["license"] == SETTINGS["project"]["license"]
    assert citation["authors"] == SETTINGS["project"]["authors"]


def test_every_dependency_has_its_line() -> None:
    """In the first column of the table, or in the prose below where it is for the site or for development."""
    table, prose = (ROOT / "docs" / "dependencies.md").read_text().split("\n\nWorker processes", 1)
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")]
    extras = SETTINGS["project"]["optional-dependencies"]
    for_users = [extras[name] for name in sorted(set(extras) - {"docs", "dev"})]
    named = sum(for_users, SETTINGS["project"]["dependencies"])
    assert len(cells) > 20
    assert names_of(named) - words_of(" ".join(cells)) == set()
    others = names_of([*extras["docs"], *extras["dev"]]) - {"clipvip"}
    assert {name for name in others if not name.startswith("types-")} - words_of(prose) == set()


def names_of(requirements: list[str]) -> set[str]:
    """The distributions of requirements such as `yt-dlp[default]>=2025.11.12`."""
    return {re.match(r"[A-Za-z0-9._-]+", line)[0].lower() for line in requirements}  # type: ignore[index]


def words_of(text: str) -> set[str]:
    """Whole words, in which hyphens count: `faiss-cpu` does not name `faiss`."""
    return {word.lower().strip(".") for word in re.findall(r"[A-Za-z0-9._-]+", text)}


@pytest.mark.parametrize(
    ("system", "machine", "asked"),
    [
        ("linux", "x86_64", True),
        ("linux", "aarch64", False),
        ("darwin", "arm64", False),
        ("darwin", "x86_64", False),
    ],
)
def test_decord_is_asked_for_where_it_has_wheels(system: str, machine: str, asked: bool) -> None:
    """Elsewhere the package would not install."""
    (decord,) = (r for r in map(Requirement, SETTINGS["project"]["dependencies"]) if r.name == "decord")
    assert decord.marker is not None
    assert decord.marker.evaluate({"sys_platform": system, "platform_machine": machine}) == asked


@pytest.mark.parametrize(
    "module",
    [
        "clipvip",
        "clipvip.media.mp4",
        "clipvip.media.whole_file",
        "clipvip.pipeline.cli",
        "clipvip.pipeline.shard.stage",
        "clipvip.shards",
        "clipvip.shards.tar.reader",
    ],
)
def test_starting_loads_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_like_this"):
        _ = clipvip.nothing_like_this


def test_the_image_is_built_of_all_that_a_wheel_needs() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    needed = {"LICENSE", "README.md", "constraints.txt", "pyproject.toml"}
    needed |= {path.split("/")[0] for path in SETTINGS["tool"]["setuptools"]["package-dir"].values()}
    assert {line[1:] for line in ignored if line.startswith("!")} == needed


def listed(*folders: str) -> list[str]:
    """What git knows in the checkout, or in these folders of it."""
    need("git")
    found = subprocess.run(
        ["git", "ls-files", "--", *folders], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [path for path in found.stdout.splitlines() if os.path.lexists(ROOT / path)]


def checked_in(*folders: str) -> set[str]:
    """The files of the checkout as they are, but for links."""
    return {path for path in listed(*folders) if not (ROOT / path).is_symlink()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive, and the wheel that is built from it outside the checkout."""
    # A build writes into the checkout, and test processes side by side would write over each other.
    checkout, folder = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("dist")
    for path in listed():
        (checkout / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, checkout / path, follow_symlinks=False)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(checkout)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder


@pytest.mark.slow
def test_the_source_archive_has_all_that_is_checked_in(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert checked_in() - names == set()
    assert not [name for name in names if name.startswith("src/clipvip/model")]


@pytest.mark.slow
def test_the_wheel_has_all_modules_recipes_and_weights_and_runs(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path)
    assert {f"clipvip/{path}" for path in checked_in(*FOLDERS)} - names == set()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"clipvip"}
    code = (
        "import clipvip, clipvip.pipeline.cli as cli, clipvip.pipeline.train.recipe as recipe\n"
        f"assert clipvip.__file__.startswith({str(tmp_path)!r}), clipvip.__file__\n"
        "assert recipe.load_recipe('pretrain_vip_b32').loss.pairs == 'd'\n"
        "cli.main(['--help'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "shard" in done.stdout, done.stderr
