"""What the tests of the dataset tools share."""

from pathlib import Path

import pytest

from commands import run
from make_shards import make_shard_folder
from make_videos import make_video, write_metadata


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shard_folder(tmp_path_factory.mktemp("intact") / "clips", num_shards=3, clips_per_shard=5)


@pytest.fixture(scope="module")
def made_by_stage(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[object, ...]]:
    """A folder that `shard` made, one of its sources being too large for one shard, and its command."""
    folder = tmp_path_factory.mktemp("stage")
    for name in ("long", "short", "third"):
        make_video(folder / "videos" / f"{name}.mp4", num_frames=120)
    seconds = [(n / 2, n / 2 + 0.5) for n in range(7)]
    metadata = write_metadata(
        folder / "clips.jsonl",
        {"short": seconds[:2], "long": seconds, "gone": seconds[:1], "third": seconds[:3]},
    )
    command = ("shard", "--metadata", metadata, "--videos", folder / "videos", "--out", folder / "clips",
               "--shard-size", 3, "--workers", 1)  # fmt: skip
    assert run(*command).exit_code == 0
    return folder / "clips", command
