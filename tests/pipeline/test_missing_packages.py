"""A package that is missing is told before the work, by a message that says what really installs it."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import clipvip
from clipvip import extras
from clipvip.extras import PACKAGES, MissingPackage, require_package
from clipvip.pipeline.runtime.stage import Stage

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
# Of inputs that are not there: what is missing is told first.
STAGES = {
    "nmi": ("faiss", {"sources": {"a": "x"}, "targets": {"b": "y"}, "model": "m", "out": "out"}),
    "search": ("faiss", {"sentences": ["a dog"], "model": "m", "shards": "x"}),
    "download": ("yt_dlp", {"metadata": __file__, "out": "out"}),
    "transcribe": ("faster_whisper", {"videos": "x", "model": "m", "out": "out"}),
    "clips": ("scenedetect", {"videos": "x", "by": "shots", "out": "out"}),
    "shard": ("ray", {"metadata": "x", "videos": "y", "out": "out", "ray": "local"}),
    "caption": ("ray", {"shards": "x", "model": "m", "out": "out", "ray": "local"}),
    "retrieval": ("s3fs", {"shards": "s3://bucket/x", "model": "m"}),
    "merge": ("s3fs", {"folders": ["x", "s3://bucket/y"], "out": "out"}),
    "train": ("s3fs", {"recipe": "demo", "shards": "s3://bucket/x", "out": "out"}),
    "split": ("gcsfs", {"folder": "x", "parts": [("a", 0.5), ("b", 0.5)], "out": "gs://bucket/out"}),
}


def hide(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == module else find(name))


@pytest.mark.parametrize("name", STAGES)
def test_each_stage_says_so_before_it_works(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    module, given = STAGES[name]
    hide(module, monkeypatch)
    stage = getattr(clipvip, name)
    assert isinstance(stage, Stage)
    with pytest.raises(clipvip.UserError, match="which is not installed; run pip install") as refused:
        stage(**given)
    assert extras.missing(module, "x").partition("needs")[2] in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", PACKAGES)
def test_the_message_names_what_installs_it(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    extra, package = PACKAGES[module]
    hide(module, monkeypatch)
    with pytest.raises(MissingPackage) as refused:
        require_package(module, "this")
    assert f"pip install '{package}'" in str(refused.value) and "clipvip[" not in str(refused.value)
    if extra:
        wanted = [Requirement(line) for line in EXTRAS[extra]]
        assert any(one.name == Requirement(package).name for one in wanted), wanted
        assert f"pip install '.[{extra}]'" in str(refused.value)


def test_no_page_or_message_installs_from_an_index_that_has_it_not() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    sources = [
        p for d in ("analysis", "model", "shards", "media", "pipeline") for p in (ROOT / d).rglob("*.py")
    ]
    for path in {*pages, *sources} - {ROOT / "CHANGELOG.md"}:
        assert not re.search(r"pip install ['\"]?clipvip\b", path.read_text()), path


def test_a_search_without_a_sentence_needs_no_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    hide("faiss", monkeypatch)
    assert "faiss" not in clipvip.SearchOptions(model="m", shards="x").packages()
