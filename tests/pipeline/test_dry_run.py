"""With --dry-run nothing is written, all is checked, and it is said what there is to do."""

from pathlib import Path

from click.testing import CliRunner

from clipvip.pipeline.demo.run import WEIGHTS
from clipvip.pipeline.train import main as train
from make_shards import make_shard_folder


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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
