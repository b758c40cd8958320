"""The simulated cluster does every unit once, whatever it loses, and no faster than it can."""

import math
from collections import Counter
from pathlib import Path

import cluster_simulation
import numpy as np
import pytest
from click.testing import CliRunner
from cluster_simulation import Outcome, Work, make_work, simulate
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_costs import read_costs
from simulated_ray import Machines


def even_work(num_units: int, seconds: float = 10.0, **faults: str) -> Work:
    """Units of two videos, `seconds` each unit; `faults` are by video, as v3='crash'."""
    num_videos = 2 * num_units
    return Work(
        seconds=np.full(num_videos, seconds / 2),
        bounds=np.arange(0, num_videos + 1, 2),
        num_clips=num_videos,
        num_shards=num_units,
        faults={int(video[1:]): kind for video, kind in faults.items()},
    )


def lost_seconds(outcome: Outcome) -> float:
    return sum(seconds for name, seconds in outcome.spent.items() if not name.startswith("useful"))


@settings(max_examples=40)
@given(
    num_videos=st.integers(1, 400),
    count=st.integers(1, 6),
    cores=st.integers(1, 4),
    mtbf_hours=st.sampled_from([0.0, 0.2, 0.5]),
    crash_rate=st.sampled_from([0.0, 0.05]),
    stall_rate=st.sampled_from([0.0, 0.05]),
    slow_fraction=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 5),
)
def test_every_unit_is_done_once_and_no_faster_than_ideal(
    num_videos: int,
    count: int,
    cores: int,
    mtbf_hours: float,
    crash_rate: float,
    stall_rate: float,
    slow_fraction: float,
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    work = make_work(
        random,
        num_videos=num_videos,
        clips_per_video=5,
        clip_seconds=13.4,
        shard_size=16,
        crash_rate=crash_rate,
        stall_rate=stall_rate,
    )
    machines = Machines(
        count=count,
        cores=cores,
        mtbf_hours=mtbf_hours,
        repair_hours=0.02,
        slow_fraction=slow_fraction,
        hand_out_seconds=0.001,
    )
    outcome = simulate(work, machines, random=random)
    assert outcome.times_done == Counter(range(work.num_units))
    assert outcome.seconds >= outcome.ideal_seconds
    assert outcome.seconds >= outcome.longest_unit_seconds
    good = sum(cost for video, cost in enumerate(work.seconds) if video not in work.faults)
    assert outcome.spent["useful, on fast machines"] == pytest.approx(good)
    spent = sum(outcome.spent.values()) - outcome.spent["useful, on fast machines"]
    assert spent <= outcome.seconds * count * cores * (1 + 1e-9)
    if not (mtbf_hours or work.faults):
        assert lost_seconds(outcome) == 0
        assert outcome.num_rounds == 1
    assert (outcome.spent["hanging"] > 0) == ("stall" in work.faults.values())


@pytest.mark.parametrize(("num_units", "count", "cores"), [(1, 1, 1), (7, 2, 2), (64, 4, 4)])
def test_equal_units_take_as_many_turns_as_they_must(num_units: int, count: int, cores: int) -> None:
    machines = Machines(count=count, cores=cores, start_seconds=3.0)
    outcome = simulate(even_work(num_units), machines, random=np.random.default_rng(0))
    assert outcome.seconds == pytest.approx(3.0 + 10.0 * math.ceil(num_units / (count * cores)))
    assert outcome.ideal_seconds == pytest.approx(10.0 * num_units / (count * cores))


def test_units_that_failed_are_made_again_after_all_others_without_the_video() -> None:
    """One worker: 4 units of 10 s; the first fails half into its second video, then takes the first one's 5 s."""
    work = even_work(4, v1="crash")
    outcome = simulate(work, Machines(count=1, cores=1), random=np.random.default_rng(0))
    assert outcome.num_rounds == 2
    assert outcome.spent["lost in crashes"] == pytest.approx(7.5)
    # A second round has workers of its own, which start in 3 s.
    assert outcome.seconds == pytest.approx(3 + 7.5 + 30 + 3 + 5)


def test_a_stall_takes_its_time_limit() -> None:
    work = even_work(1, v0="stall")
    outcome = simulate(
        work, Machines(count=1, cores=1), random=np.random.default_rng(0), timeout_seconds=120.0
    )
    assert outcome.spent["hanging"] == 120.0
    assert outcome.seconds == pytest.approx(3 + 2.5 + 120 + 3 + 5)


def test_machines_are_lost_as_often_as_they_should() -> None:
    """Also the first, which the command runs on: it is started again, and goes on."""
    machines = Machines(count=20, cores=2, mtbf_hours=1.0, repair_hours=0.1)
    outcome = simulate(even_work(20_000, 60.0), machines, random=np.random.default_rng(1))
    expected = 20 * outcome.seconds / 3600 / 1.1  # each is up for an hour, then away for a tenth
    assert abs(outcome.num_losses - expected) < 4 * math.sqrt(expected)
    assert outcome.num_restarts > 3
    assert outcome.spent["lost with machines"] > outcome.spent["lost with the command"] / 2 > 0
    # What a lost machine had at hand was half done on average.
    per_loss = outcome.spent["lost with machines"] / outcome.num_losses
    assert 0.7 * 2 * 30 < per_loss < 1.3 * 2 * 30
    assert outcome.times_done == Counter(range(20_000))


def test_command_prints_the_same_table_for_the_same_seed() -> None:
    options = ["--videos", "2000", "--nodes", "4", "--node-mtbf-hours", "0.5", "--repair-hours", "0.05"]
    tables = [CliRunner().invoke(cluster_simulation.main, [*options, "--seed", seed]) for seed in "112"]
    assert all(table.exit_code == 0 for table in tables)
    assert tables[0].output == tables[1].output != tables[2].output
    assert "makespan" in tables[0].output


def test_work_costs_what_the_measured_videos_did() -> None:
    costs = [cost for cost in read_costs() if 301 <= cost.short_side <= 480]
    mean = 13.4 * sum(cost.cpu_seconds for cost in costs) / sum(cost.seconds for cost in costs)
    work = make_work(
        np.random.default_rng(0),
        num_videos=20_000,
        clips_per_video=30,
        clip_seconds=13.4,
        shard_size=256,
        crash_rate=0,
        stall_rate=0,
        least_side=301,
        most_side=480,
    )
    assert work.seconds.sum() / work.num_clips == pytest.approx(mean, rel=0.05)
    assert work.num_clips / len(work.seconds) == pytest.approx(30, rel=0.05)


@pytest.mark.slow
def test_page_shows_what_the_command_prints() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "scaling.md"
    result = CliRunner().invoke(cluster_simulation.main, [])
    assert result.exit_code == 0
    assert result.output.strip() in page.read_text(), f"docs/scaling.md: put in\n{result.output}"
