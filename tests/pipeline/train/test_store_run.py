"""`clipvip-train` with its data, its splits and its run in a store."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

import commands
from clipvip.pipeline.train.command import main
from make_shards import make_shard_folder
from s3_server import s3_server, use_s3

OUT = "s3://bucket/runs/one"


@pytest.fixture
def store(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store's folder, whose bucket holds what the runs read; the address is in the environment."""
    bucket = tmp_path / "store" / "bucket"
    for name in ("clips", "captions", "clip"):
        shutil.copytree(world / name, bucket / name)
    make_shard_folder(bucket / "val", num_shards=1, clips_per_shard=5, num_frames=4)
    make_shard_folder(bucket / "test", num_shards=1, clips_per_shard=5, num_frames=5)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    return bucket


def words(world: Path, data: str | Path, out: str | Path, *more: str) -> list[str]:
    given = {"--shards": f"{data}/clips", "--captions": f"{data}/captions", "--validation": f"{data}/val"}
    given |= {"--test": f"{data}/test", "--out": str(out), "--init": f"{data}/clip", "--select": "best"}
    places = [word for pair in given.items() for word in pair]
    return [str(world / "recipe.yaml"), *places, "--set", "evaluation.every_steps=9", *more]


def train(*arguments: str) -> str:
    result = commands.run(*arguments, program=main)
    assert result.exit_code == 0, result.output
    return result.stdout


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def weights(out: Path) -> dict[str, list]:
    return {name: tensor.tolist() for name, tensor in load_file(out / "model.safetensors").items()}


@pytest.mark.slow
def test_a_run_in_a_store_is_the_run_in_a_folder(
    world: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local, there = tmp_path / "one", store / "runs" / "one"
    said = train(*words(world, store, local))
    with s3_server(store.parent) as address:
        use_s3(monkeypatch, address)
        said_there = train(*words(world, "s3://bucket", OUT))
        again = train(*words(world, "s3://bucket", OUT))
        refused = commands.run(*words(world, "s3://bucket", OUT, "--set", "seed=7"), program=main)
        never = commands.run(*words(world, "s3://bucket", OUT, "--resume", "never"), program=main)
    assert said.replace(str(local), OUT).replace(str(store), "s3://bucket") == said_there == again
    files = [files_in(out) for out in (local, there)]
    assert files[0] - {"_state/lock"} == files[1]
    for name in files[1]:
        assert (local / name).read_bytes() == (there / name).read_bytes() or name in SAY_PLACES, name
    assert refused.exit_code == never.exit_code == 1
    assert f"Error: {OUT}: holds checkpoints of another recipe (seed" in refused.output
    assert f"Error: {OUT}: holds checkpoints, and --resume is never" in never.output
    assert not list((tmp_path / "temporary").iterdir())


# The recipe says where the run is, and the checksums of a checkpoint are over its copy; and times.
SAY_PLACES = {"recipe.yaml", "report.json", "baseline.json", "test.json"} | {
    f"checkpoints/step-{step:08d}/{name}" for step in (36, 40) for name in ("recipe.yaml", "checksums.json")
}


@pytest.mark.slow
def test_a_run_in_a_store_that_was_killed_goes_on_from_its_last_whole_checkpoint(
    world: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local, there = tmp_path / "one", store / "runs" / "one"
    train(*words(world, store, local))
    with s3_server(store.parent) as address:
        use_s3(monkeypatch, address)
        process = commands.start(*words(world, "s3://bucket", OUT), program="clipvip.pipeline.train.command")
        marks = there / "checkpoints"
        while len(list(marks.glob("*/checksums.json"))) < 2:
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert not (there / "model").exists() and not (there / "report.json").exists()
        last = max(path.parent for path in marks.glob("*/checksums.json"))
        half = marks / "step-00000039"
        half.mkdir()
        shutil.copy(last / "state.json", half)
        planned = json.loads(train(*words(world, "s3://bucket", OUT, "--dry-run", "--json")))
        assert planned["goes_on_from"] == f"{OUT}/checkpoints/{last.name}"
        train(*words(world, "s3://bucket", OUT))
    assert weights(there / "model") == weights(local / "model")
    assert (there / "log.jsonl").read_bytes() == (local / "log.jsonl").read_bytes()
    assert files_in(marks) == files_in(local / "checkpoints")
