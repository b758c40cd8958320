"""Run `clipvip-data caption`, and look into what it wrote."""

from pathlib import Path

from click.testing import CliRunner, Result

from clipvip.pipeline.cli import main

NUM_SHARDS = 4
CLIPS_PER_SHARD = 6
BAD = "video2_00003"
MARKUP = '<script>alert("x")</script> & more'


def caption(shards: Path, out: Path, model: Path | str, *options: str) -> Result:
    arguments = ["caption", "--shards", shards, "--out", out, "--model", model, "--gpus", "0", *options]
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def content(out: Path) -> dict[str, bytes]:
    """Every file of an output but the report, which alone may differ from run to run."""
    files = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    del files["report.json"]
    return files
