"""What the tests of `clipvip-data filter` share."""

from pathlib import Path

import pytest

from filter_folders import ALIKE, make_world, run_well


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("filter"))


@pytest.fixture(scope="session")
def known(world: Path) -> Path:
    """A folder in which all is known of the world's clips."""
    out = world / "known"
    options = ["--duplicate-similarity", ALIKE, "--test", f"bench={world / 'test'}"]
    run_well("--shards", world / "clips", "--out", out, "--model", world / "model", *options)
    return out
