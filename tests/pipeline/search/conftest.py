"""What the tests of search share."""

from pathlib import Path

import pytest

from clipvip.shards.tar.writer import write_shard
from make_shards import stored_clip
from search_folders import list_again, make_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Twelve clips of twelve colours in three shards: clip n lies in shard n // 4."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for shard in range(3):
        clips = [stored_clip(f"video{shard}", number) for number in range(4 * shard, 4 * shard + 4)]
        write_shard(folder / f"{shard:06d}.tar", clips)
    list_again(folder)
    return folder
