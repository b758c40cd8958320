"""What some tests need of the machine. Where it is missing they are skipped, or fail if CLIPVIP_TESTS_REQUIRE
names it.

`@pytest.mark.needs(NAME)` on a test, or `need(NAME)` in what tests share; no other skips.
`@pytest.mark.gpu` is `needs("gpu")`, and `pytest -m gpu` runs what it marks.
"""

import os
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from browser import find_browser

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
VARIABLE = "CLIPVIP_TESTS_REQUIRE"


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _faiss_has_gpu() -> bool:
    if find_spec("faiss") is None or not _has_gpu():
        return False
    import faiss

    from clipvip.analysis.faiss_tools import has_gpu

    return has_gpu(faiss)


RESOURCES: dict[str, tuple[str, Callable[[], bool]]] = {
    "shared": ("../shared beside the checkout (real videos, texts, annotations)", SHARED.is_dir),
    "git": ("a git checkout", lambda: shutil.which("git") is not None and (ROOT / ".git").exists()),
    "linux": ("Linux", lambda: sys.platform == "linux"),
    "mount": ("Linux' unshare, and to be let mount a disk", lambda: shutil.which("unshare") is not None),
    "curl": ("curl, by which webdataset opens https://", lambda: shutil.which("curl") is not None),
    "browser": ("Chromium or Chrome", lambda: find_browser() is not None),
    "tar": ("GNU tar", lambda: shutil.which("tar") is not None),
    "ray": ("the package ray", lambda: find_spec("ray") is not None),
    "decord": ("the package decord", lambda: find_spec("decord") is not None),
    "lmdb": ("the package lmdb", lambda: find_spec("lmdb") is not None),
    "mteb": ("the package mteb", lambda: find_spec("mteb") is not None),
    "scenedetect": ("the package scenedetect", lambda: find_spec("scenedetect") is not None),
    "faster_whisper": ("the package faster-whisper", lambda: find_spec("faster_whisper") is not None),
    "open_clip": (
        "the package open_clip_torch, with a torchvision of the same build as torch",
        lambda: find_spec("open_clip") is not None,
    ),
    "faiss_gpu": ("a GPU that faiss and torch compute on", _faiss_has_gpu),
    "s3fs": ("the package s3fs", lambda: find_spec("s3fs") is not None),
    "gpu": ("a GPU that torch sees (torch.cuda.is_available())", _has_gpu),
}

# For `@pytest.mark.parametrize("device", DEVICES)`: what has to be the same on a processor and on a GPU.
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def required() -> set[str]:
    """The resources that must not be missing: names with commas between, or `all`.

    Raises:
        pytest.UsageError: the variable names another.
    """
    names = {name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()}
    if unknown := names - {*RESOURCES, "all"}:
        raise pytest.UsageError(
            f"{VARIABLE}: {', '.join(sorted(unknown))} is none of all, {', '.join(RESOURCES)}"
        )
    return set(RESOURCES) if "all" in names else names


def need(name: str) -> None:
    """Go on where a resource is there; see `lack`."""
    _, is_there = RESOURCES[name]
    if not is_there():
        lack(name)


def lack(name: str) -> None:
    """End the test, whose resource is missing: as skipped, or as failed where it is required."""
    what, _ = RESOURCES[name]
    if name in required():
        pytest.fail(f"needs {name}: {what}; {VARIABLE} says that it is there", pytrace=False)
    pytest.skip(f"needs {name}: {what}")
