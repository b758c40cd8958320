"""Run `clipvip-data caption`, and look into what it wrote."""

from pathlib import Path

from click.testing import Result

from commands import run

NUM_SHARDS = 4
CLIPS_PER_SHARD = 6
BAD = "video2_00003"
MARKUP = '<script>alert("x")</script> & more'


def caption(shards: Path, out: Path, model: Path | str, *options: str) -> Result:
    return run("caption", "--shards", shards, "--out", out, "--model", model, "--gpus", "0", *options)
