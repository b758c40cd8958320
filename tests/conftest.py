"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from resources import SHARED, need, required

os.environ["HF_HUB_OFFLINE"] = "1"  # before any import of huggingface_hub
os.environ.setdefault("OMP_NUM_THREADS", "2")

# On a busy machine an example may take any time.
settings.register_profile("clipvip", deadline=None)
settings.load_profile("clipvip")


def pytest_configure() -> None:
    required()  # a name that it does not know ends the session


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("needs_shared"):
        need("shared")
    if item.get_closest_marker("gpu"):
        need("gpu")
    for mark in item.iter_markers("needs"):
        for name in mark.args:
            need(name)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder ../shared; tests that use it are marked `needs_shared`."""
    need("shared")
    return SHARED


@pytest.fixture(scope="session")
def goldens_dir() -> Path:
    """Reference inputs and outputs that are part of the repository."""
    return Path(__file__).resolve().parent / "goldens"
