"""With --dry-run nothing is written, all is checked, and it is said what there is to do."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from clipvip.experiments.demo.world import WEIGHTS
from clipvip.pipeline.cli import main as data
from clipvip.pipeline.train.command import main as train
from make_shards import make_shard_folder
from stage_commands import caption_command, shard_command


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def invoke(*arguments: str) -> Result:
    result = CliRunner().invoke(data, arguments)
    assert result.exit_code == 0, result.output
    return result


def test_training_prints_its_recipe_and_what_it_comes_to(tmp_path: Path) -> None:
    shards = make_shard_folder(tmp_path / "clips", num_shards=3, clips_per_shard=8)
    arguments = [
        "demo",
        "--shards",
        str(shards),
        "--init",
        str(WEIGHTS / "clip"),
        "--out",
        str(tmp_path / "run"),
    ]
    for setting in ("loss.pairs=baseline", "optim.batch_size=6", "optim.epochs=2"):
        arguments += ["--set", setting]
    before = everything(tmp_path)
    result = CliRunner().invoke(train, [*arguments, "--dry-run"])
    assert result.exit_code == 0, result.output
    assert "# 8 steps, 4 in an epoch, batches of 6\n" in result.stdout
    assert ": 3 shards, 24 samples, 6 in a batch\n" in result.stdout and " parameters, from " in result.stdout
    assert everything(tmp_path) == before and not (tmp_path / "run").exists()
    # What is printed is a recipe that comes to the same.
    (tmp_path / "recipe.yaml").write_text(result.stdout)
    again = CliRunner().invoke(train, [str(tmp_path / "recipe.yaml"), "--dry-run"])
    assert again.stdout == result.stdout


def test_what_training_would_refuse_is_refused(tmp_path: Path) -> None:
    shards = make_shard_folder(tmp_path / "clips", num_shards=1, clips_per_shard=8)
    arguments = [
        "demo",
        "--shards",
        str(shards),
        "--init",
        str(WEIGHTS / "clip"),
        "--out",
        str(tmp_path / "run"),
    ]
    result = CliRunner().invoke(train, [*arguments, "--dry-run"])
    assert result.exit_code == 1 and result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1


def test_sharding_counts_what_is_done_and_what_is_not(tmp_path: Path) -> None:
    arguments = [*map(str, shard_command(tmp_path)), "--out", str(tmp_path / "out")]
    before = everything(tmp_path)
    counts = json.loads(invoke(*arguments, "--dry-run", "--json").stdout)["counts"]
    assert counts["clips"] == 112 and counts["clips_done"] == counts["shards_done"] == 0
    assert counts["videos_without_file"] == 1
    assert everything(tmp_path) == before and not (tmp_path / "out").exists()
    invoke(*arguments)
    (tmp_path / "out" / "000003.tar").unlink()
    done = everything(tmp_path)
    counts = json.loads(invoke(*arguments, "--dry-run", "--json").stdout)["counts"]
    assert counts["shards_done"] == counts["shards"] - 1
    assert f"{counts['clips'] - counts['clips_done']} of 112 clips" in invoke(*arguments, "--dry-run").stdout
    assert everything(tmp_path) == done
    refused = CliRunner().invoke(data, [*arguments, "--fps", "1", "--dry-run"])
    assert refused.exit_code == 1 and "or another --out" in refused.stderr


@pytest.mark.slow
def test_captioning_counts_what_is_done_and_what_is_not(tmp_path: Path) -> None:
    arguments = [*map(str, caption_command(tmp_path)), "--out", str(tmp_path / "out")]
    assert "would caption 6 shards" in invoke(*arguments, "--dry-run").stdout
    assert not (tmp_path / "out").exists()
    invoke(*arguments)
    (tmp_path / "out" / "000003.parquet").unlink()
    assert "would caption 1 of 6 shards" in invoke(*arguments, "--dry-run").stdout
