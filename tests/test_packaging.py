"""What is installed: every package and data file, one top-level name, and a start without torch."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import clipvip

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = ("analysis", "model", "pipeline", "recipes", "shards")


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
    text = (ROOT / "docs" / "dependencies.md").read_text()
    project = SETTINGS["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["cpu"]]
    names = {line.split(">")[0].split("=")[0].strip() for line in asked}
    assert {name for name in names if name not in text} == set()


@pytest.mark.parametrize(
    "module", ["clipvip", "clipvip.pipeline.cli", "clipvip.pipeline.shard", "clipvip.shards.reader"]
)
def test_starting_loads_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_like_this"):
        _ = clipvip.nothing_like_this
