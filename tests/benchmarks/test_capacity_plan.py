"""The capacity plan is what docs/scaling.md shows, and adds up."""

from pathlib import Path

import capacity_plan
import pytest
from capacity_plan import SCALES, Site, bottleneck, hours, plan, shard_costs, stages
from click.testing import CliRunner
from shard_costs import read_costs

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scaling.md"


def test_page_shows_the_tables_that_the_script_prints() -> None:
    page = PAGE.read_text()
    for table in plan(Site()).split("\n\n"):
        assert table in page, f"docs/scaling.md: put in what benchmarks/capacity_plan.py prints:\n{table}"


def test_hours_are_amounts_by_rates() -> None:
    """Sharding small sources, by hand."""
    stage = next(stage for stage in stages(Site()) if stage.name == "shard, 360p")
    rows = [cost for cost in read_costs() if 300 < cost.short_side <= 480]
    per_clip = 13.4 * sum(row.cpu_seconds for row in rows) / sum(row.seconds for row in rows)
    assert shard_costs(301, 480)[0] == pytest.approx(per_clip)
    taken = hours(stage, Site(cores=32), 10_000_000, 8)
    assert taken["cores"] == pytest.approx(per_clip * 10_000_000 / (32 * 8) / 3600)


def test_a_measured_gpu_takes_the_place_of_the_bound() -> None:
    slow = Site(caption_rate=10.0, train_rate=100.0)
    clips, machines = SCALES[1]
    by_name = {stage.name: hours(stage, slow, clips, machines) for stage in stages(slow)}
    assert by_name["caption"]["GPUs"] == pytest.approx(clips / 10 / 8 / 3600)
    assert bottleneck(by_name["caption"]) == bottleneck(by_name["train, one pass"]) == "GPUs"
    assert "at least" not in plan(slow)
    bound = {stage.name: hours(stage, Site(), clips, machines) for stage in stages(Site())}
    assert bound["caption"]["GPUs, at least"] < by_name["caption"]["GPUs"]


def test_more_storage_makes_cores_the_bottleneck_again() -> None:
    def name_of(site: Site) -> str:
        stage = next(stage for stage in stages(site) if stage.name == "shard, 720p")
        return bottleneck(hours(stage, site, *SCALES[2]))

    assert name_of(Site()) == "storage"
    assert name_of(Site(storage_gbyte=20)) == "cores"


def test_command_takes_the_site() -> None:
    result = CliRunner().invoke(capacity_plan.main, ["--gpus", "8", "--caption-rate", "50"])
    assert result.exit_code == 0, result.output
    assert result.output.strip() == plan(Site(gpus=8, caption_rate=50.0))
