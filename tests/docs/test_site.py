"""The site builds without a warning, shows what it is to show, and loads nothing from other hosts."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    return folder


@pytest.mark.slow
def test_nothing_is_loaded_from_other_hosts(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        loaded = re.findall(r'<(?:script|img|iframe|source)[^>]*\ssrc="([^"]*)"', page.read_text())
        loaded += re.findall(r'<link[^>]*\srel="(?:stylesheet|preconnect|icon)"[^>]*>', page.read_text())
        assert loaded
        assert [address for address in loaded if "//" in address] == []


@pytest.mark.slow
def test_figures_and_reference_are_there(site: Path) -> None:
    assert (site / "figures" / "attention.svg").read_text().count("<path") > 10
    commands = (site / "reference" / "clipvip-data" / "index.html").read_text()
    for text in ("clipvip-data nmi", "--samples", "Example"):
        assert text in commands
    functions = (site / "reference" / "model" / "index.html").read_text()
    for name in (
        "proxy_guided_attention",
        "omnisource_loss",
        "OfaForConditionalGeneration",
        "convert_released",
    ):
        assert name in functions
