"""What videos cost is measured by the stage's own code, and scripts that measure shards tell how to run them."""

import csv
from pathlib import Path

import capacity_plan
import metadata_at_scale
import pytest
import serial_costs
import shard_costs
import shard_scaling
import shard_vs_limit
import shard_vs_video2dataset
from click.testing import CliRunner

from make_videos import make_video

SCRIPTS = [
    capacity_plan,
    metadata_at_scale,
    serial_costs,
    shard_costs,
    shard_scaling,
    shard_vs_limit,
    shard_vs_video2dataset,
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_help_says_how_to_run_it(script: object) -> None:
    result = CliRunner().invoke(script.main, ["--help"])  # type: ignore[attr-defined]
    assert result.exit_code == 0
    text = " ".join(result.output.split())  # Click wraps it anywhere
    assert f"python benchmarks/{script.__name__}.py" in text  # type: ignore[attr-defined]


def test_a_video_is_measured_and_one_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    videos, table = tmp_path / "videos", tmp_path / "table.csv"
    size = make_video(videos / "one.mp4", num_frames=90).stat().st_size
    (videos / "broken.mp4").write_bytes(b"no video")
    result = CliRunner().invoke(shard_costs.main, [str(videos), "--rounds", "1", "--out", str(table)])
    assert result.exit_code == 0, result.output
    (cost,) = shard_costs.read_costs(table)
    assert (cost.codec, cost.width, cost.height, cost.clips) == ("h264", 160, 96, 1)
    assert cost.seconds == pytest.approx(3.0)
    assert cost.source_bytes == size
    assert cost.stored_bytes > 9 * 500  # nine JPEGs in a tar
    assert cost.cpu_seconds > 0


def test_committed_table_names_no_video() -> None:
    with shard_costs.TABLE.open() as file:
        header = next(csv.reader(file))
    assert header[0] == "codec" and not {"path", "name", "video_id"} & set(header)
    assert len(shard_costs.read_costs()) == 26
