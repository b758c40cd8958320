"""100 million clips on a cluster that loses machines: `clipvip-data shard --ray`, simulated.

    python benchmarks/cluster_simulation.py [--videos 3300000] [--nodes 64] [--cores 16] [--node-mtbf-hours 1000] ...

The package's own code plans the shards and hands them out, over machines and a clock that are simulated
(`simulated_ray`). A second of video costs what one of shard_costs.csv did, drawn by video, as often as it is long.
Storage is assumed to keep up, and nothing is decoded. Equal options print equal tables.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np
from shard_costs import TABLE, read_costs
from simulated_ray import Attempt, CommandLost, Machines, SimulatedRay

from clipvip.pipeline.runtime.ray_units import RayCluster
from clipvip.pipeline.runtime.workers import Failure, run_units
from clipvip.shards.building.plan import plan_units
from clipvip.shards.sources.hdvila import Source

_FAILURES = {
    "crash": Failure("crashed", "the decoder crashed"),
    "stall": Failure("timeout", "no frame in time"),
}


@dataclass
class Work:
    """Units of videos: unit n has the videos from `bounds[n]` to `bounds[n + 1]`.

    `seconds` is what each video costs on one core; `faults` are those that end their worker, by video.
    """

    seconds: np.ndarray
    bounds: np.ndarray
    num_clips: int
    num_shards: int
    faults: dict[int, str] = field(default_factory=dict)

    @property
    def num_units(self) -> int:
        return len(self.bounds) - 1


@dataclass
class Outcome:
    """What a run took: seconds; `spent` are core seconds by what they went into."""

    seconds: float
    ideal_seconds: float
    tail_seconds: float
    longest_unit_seconds: float
    times_done: Counter[int]
    num_rounds: int
    num_losses: int
    num_restarts: int
    spent: Counter[str]


def make_work(
    random: np.random.Generator,
    *,
    num_videos: int,
    clips_per_video: float,
    clip_seconds: float,
    shard_size: int,
    crash_rate: float,
    stall_rate: float,
    least_side: int = 0,
    most_side: int = 10_000,
    table: Path = TABLE,
) -> Work:
    """Draw the videos, and plan them as the stage does.

    Clips per video are log-normal about their mean: some videos have ten times as many as others. Costs are those
    of the table's videos with such short sides.
    """
    costs = [cost for cost in read_costs(table) if least_side <= cost.short_side <= most_side]
    if not costs:
        raise click.UsageError(f"{table.name} has no video of short side {least_side} to {most_side}")
    lengths = np.array([cost.seconds for cost in costs])
    per_second = np.array([cost.cpu_seconds for cost in costs]) / lengths
    spread = 0.8
    drawn = random.lognormal(np.log(clips_per_video) - spread**2 / 2, spread, num_videos)
    clips = np.maximum(1, drawn.round()).astype(int)
    rates = random.choice(per_second, num_videos, p=lengths / lengths.sum())
    # All that planning asks of clips is how many there are.
    sources = (Source(line, "", clips=range(count)) for line, count in enumerate(clips.tolist()))  # type: ignore[arg-type]
    bounds, num_shards = [0], 0
    for unit in plan_units(sources, shard_size=shard_size):
        bounds.append(bounds[-1] + len(unit.sources))
        num_shards += unit.num_shards
    fate = random.random(num_videos)
    crashes = np.flatnonzero(fate < crash_rate).tolist()
    stalls = np.flatnonzero((fate >= crash_rate) & (fate < crash_rate + stall_rate)).tolist()
    faults = dict.fromkeys(crashes, "crash") | dict.fromkeys(stalls, "stall")
    return Work(clips * clip_seconds * rates, np.array(bounds), int(clips.sum()), num_shards, faults)


class _Run:
    """What workers do with units, and what is known of them so far."""

    def __init__(self, work: Work, ray: SimulatedRay, timeout_seconds: float) -> None:
        self._work = work
        self._ray = ray
        self._timeout_seconds = timeout_seconds
        self._blamed: set[int] = set()
        fault_videos = np.array(sorted(work.faults), dtype=int)
        self._units_with_faults = set((np.searchsorted(work.bounds, fault_videos, "right") - 1).tolist())
        self._seconds = np.add.reduceat(work.seconds, work.bounds[:-1]) if work.num_units else np.array([])
        self.first_tried: set[int] = set()
        self.all_tried_at = 0.0

    def attempt(self, unit: int) -> Attempt:
        """One go at a unit: to its end, or half through the first video that ends the worker."""
        if unit not in self.first_tried:
            self.first_tried.add(unit)
            self.all_tried_at = self._ray.now
        if unit not in self._units_with_faults:
            return Attempt(float(self._seconds[unit]))
        seconds = 0.0
        for video in range(self._work.bounds[unit], self._work.bounds[unit + 1]):
            if video in self._blamed:
                continue
            cost = float(self._work.seconds[video])
            kind = self._work.faults.get(video)
            if kind is not None:
                stalled = self._timeout_seconds if kind == "stall" else 0.0
                return Attempt(seconds + cost / 2, stalled, _FAILURES[kind])
            seconds += cost
        return Attempt(seconds)

    def blame(self, unit: int) -> None:
        """Leave the video out that ended the worker."""
        videos = range(self._work.bounds[unit], self._work.bounds[unit + 1])
        self._blamed.add(next(v for v in videos if v in self._work.faults and v not in self._blamed))


def simulate(
    work: Work,
    machines: Machines,
    *,
    random: np.random.Generator,
    timeout_seconds: float = 120.0,
    before_seconds: float = 0.0,
) -> Outcome:
    """Run the stage: as `shard_run.make_shards`, units that failed are made again after all others.

    `before_seconds` is what the command takes before it hands anything out, each time that it is started. It is
    started again when its machine is back.
    """
    ray = SimulatedRay(machines, random)
    run = _Run(work, ray, timeout_seconds)
    done: Counter[int] = Counter()
    num_rounds = num_restarts = 0
    waiting = list(range(work.num_units))
    with ray.installed():
        ray.start_command(before_seconds)
        while waiting:
            num_rounds += 1
            again = []
            outcomes = run_units(run.attempt, waiting, workers=1, ray=RayCluster("simulated"))
            try:
                for outcome in outcomes:
                    if outcome.failure is None:
                        done[outcome.unit] += 1
                    else:
                        run.blame(outcome.unit)
                        again.append(outcome.unit)
                waiting = again
            except CommandLost:
                outcomes.close()
                ray.start_command(before_seconds)
                num_restarts += 1
                waiting = [unit for unit in range(work.num_units) if not done[unit]]
    ray.finish()
    good = np.ones(len(work.seconds), bool)
    good[list(work.faults)] = False
    units = np.add.reduceat(work.seconds * good, work.bounds[:-1])
    return Outcome(
        seconds=ray.now,
        ideal_seconds=float(units.sum()) / ray.capacity,
        tail_seconds=ray.now - run.all_tried_at,
        longest_unit_seconds=float(units.max()),
        times_done=done,
        num_rounds=num_rounds,
        num_losses=ray.num_losses,
        num_restarts=num_restarts,
        spent=ray.spent,
    )


def report(work: Work, machines: Machines, outcome: Outcome) -> Iterator[str]:
    """The table: times, then what the cluster's core hours went into."""
    yield (
        f"{work.num_clips:,} clips of {len(work.seconds):,} videos in {work.num_shards:,} shards; "
        f"{machines.count} machines of {machines.cores} cores"
    )
    yield f"makespan         {outcome.seconds / 3600:10.2f} h"
    yield f"ideal            {outcome.ideal_seconds / 3600:10.2f} h, {outcome.ideal_seconds / outcome.seconds:.1%} of it"
    yield f"tail             {outcome.tail_seconds:10.0f} s after the last unit was first given out"
    yield f"longest unit     {outcome.longest_unit_seconds:10.0f} s on a fast machine"
    yield (
        f"units done       {sum(outcome.times_done.values()):10,}, in {outcome.num_rounds} rounds; machines lost "
        f"{outcome.num_losses} times, the command's {outcome.num_restarts}"
    )
    total = outcome.seconds * machines.count * machines.cores
    spent = Counter(outcome.spent)
    fast = spent.pop("useful, on fast machines", 0.0)
    useful = spent.pop("useful", 0.0)
    spent |= Counter({"useful": fast, "slow machines": useful - fast})
    spent["no work, or none yet"] = (
        total
        - useful
        - sum(seconds for name, seconds in spent.items() if name not in ("useful", "slow machines"))
    )
    yield f"{'core hours':16} {total / 3600:10.0f}"
    for name, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        yield f"  {name:22} {seconds / 3600:10.1f}  {seconds / total:8.3%}"


@click.command(help=__doc__)
@click.option("--videos", "num_videos", type=click.IntRange(min=1), default=3_300_000, show_default=True)
@click.option("--clips-per-video", type=click.FloatRange(1), default=30.3, show_default=True)
@click.option("--clip-seconds", type=click.FloatRange(0, min_open=True), default=13.4, show_default=True)
@click.option("--least-side", type=click.IntRange(min=0), default=0, show_default=True,
              help="Draw from the table's videos of at least this short side.")  # fmt: skip
@click.option(
    "--most-side", type=click.IntRange(min=0), default=10_000, show_default=True, help="At most this."
)
@click.option("--shard-size", type=click.IntRange(min=1), default=256, show_default=True)
@click.option("--nodes", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--cores", type=click.IntRange(min=1), default=16, show_default=True, help="Of each machine.")
@click.option("--node-mtbf-hours", type=click.FloatRange(0), default=1000.0, show_default=True,
              help="Mean time to a machine's loss; 0: none is lost.")  # fmt: skip
@click.option("--repair-hours", type=click.FloatRange(0), default=1.0, show_default=True)
@click.option("--crash-rate", type=click.FloatRange(0, 1), default=1e-4, show_default=True, help="Of videos.")
@click.option("--stall-rate", type=click.FloatRange(0, 1), default=1e-5, show_default=True, help="Of videos.")
@click.option("--video-timeout", type=click.FloatRange(0), default=120.0, show_default=True)
@click.option(
    "--slow-fraction", type=click.FloatRange(0, 1), default=0.05, show_default=True, help="Of machines."
)
@click.option("--slowness", type=click.FloatRange(1), default=2.0, show_default=True)
@click.option("--survey-us", type=click.FloatRange(0), default=205.0, show_default=True,
              help="Microseconds that the command takes to read a video's line; it reads all twice.")  # fmt: skip
@click.option("--hand-out-us", type=click.FloatRange(0), default=1000.0, show_default=True,
              help="Microseconds that the command takes to give a unit out, but for reading it.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def main(
    num_videos: int,
    clips_per_video: float,
    clip_seconds: float,
    least_side: int,
    most_side: int,
    shard_size: int,
    nodes: int,
    cores: int,
    node_mtbf_hours: float,
    repair_hours: float,
    crash_rate: float,
    stall_rate: float,
    video_timeout: float,
    slow_fraction: float,
    slowness: float,
    survey_us: float,
    hand_out_us: float,
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    work = make_work(
        random,
        num_videos=num_videos,
        clips_per_video=clips_per_video,
        clip_seconds=clip_seconds,
        shard_size=shard_size,
        crash_rate=crash_rate,
        stall_rate=stall_rate,
        least_side=least_side,
        most_side=most_side,
    )
    survey_seconds = num_videos * survey_us * 1e-6
    machines = Machines(
        count=nodes,
        cores=cores,
        mtbf_hours=node_mtbf_hours,
        repair_hours=repair_hours,
        slow_fraction=slow_fraction,
        slowness=slowness,
        hand_out_seconds=hand_out_us * 1e-6 + survey_seconds / work.num_units,
    )
    outcome = simulate(
        work, machines, random=random, timeout_seconds=video_timeout, before_seconds=survey_seconds
    )
    for line in report(work, machines, outcome):
        click.echo(line)


if __name__ == "__main__":
    main()
