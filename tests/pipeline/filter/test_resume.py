"""`clipvip-data filter` killed, and on shards that change: it ends with the same bytes."""

import shutil
import time
from pathlib import Path

import pytest

import commands
from clipvip.shards.tar.reader import read_shard
from filter_folders import ALIKE, clip_of, files_in, run_well, videos, write_folder

NOT_COMPARED = ("report.json", "lock")


def words(world: Path, out: Path) -> list[object]:
    return [
        *("--shards", world / "clips", "--out", out, "--model", world / "model"),
        *("--duplicate-similarity", ALIKE, "--test", f"bench={world / 'test'}"),
        *("--drop-leaks", "--max-duplicates", 1, "--top", 0.8),
    ]


@pytest.fixture(scope="module")
def undisturbed(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    run_well(*words(world, out))
    return out


@pytest.mark.slow
@pytest.mark.parametrize(
    "made",
    [
        "000000.parquet",
        "embeddings/000001.safetensors",
        "leaks.jsonl",
    ],
)
@pytest.mark.needs("linux")
def test_killed_anywhere_it_ends_with_the_same_bytes(
    world: Path, undisturbed: Path, tmp_path: Path, made: str
) -> None:
    out = tmp_path / "out"
    process = commands.start("filter", "--device", "cpu", *words(world, out))
    deadline = time.monotonic() + 120
    while not (out / made).exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.communicate()
    run_well(*words(world, out))
    assert files_in(out, but=NOT_COMPARED) == files_in(undisturbed, but=NOT_COMPARED)


def test_damaged_tables_are_made_again(world: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    (out / "000001.parquet").write_bytes(b"PAR1")
    (out / "000002.parquet").unlink()
    (out / "000099.parquet").write_bytes(b"of a shard that is gone")
    run_well(*words(world, out))
    assert files_in(out, but=NOT_COMPARED) == files_in(undisturbed, but=NOT_COMPARED)


@pytest.mark.slow
def test_a_shard_that_changes_is_measured_again_and_others_are_not(world: Path, tmp_path: Path) -> None:
    clips = [clip_of(frames, f"v{n}", text=f"words {n}") for n, frames in enumerate(videos(6))]
    shards = write_folder(tmp_path / "clips", clips, per_shard=3)
    out = tmp_path / "out"
    options = ["--shards", shards, "--out", out, "--model", world / "model"]
    run_well(*options)
    before = files_in(out)
    shutil.rmtree(shards)
    write_folder(shards, [*clips[:3], clips[5], *clips[3:5]], per_shard=3)
    run_well(*options)
    after = files_in(out)
    assert after["embeddings/000000.safetensors"] == before["embeddings/000000.safetensors"]
    assert after["000001.parquet"] != before["000001.parquet"]
    shutil.rmtree(out)
    run_well(*options)
    for name in ("000000.parquet", "000001.parquet"):
        assert (out / name).read_bytes() == after[name]
    assert next(clip.key for clip in read_shard(shards / "000001.tar")) == "v5_00000"
