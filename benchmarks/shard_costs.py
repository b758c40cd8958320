"""What `clipvip-data shard` costs for each of some videos: processor time and bytes, as a table for others to
use.

    python benchmarks/shard_costs.py VIDEOS [--rounds 3] [--out benchmarks/shard_costs.csv]

Each video that can be read to its end is a unit of its own, clips of 13 s end to end, made by the stage's own
code in one worker process; the least of the rounds, since whatever disturbs adds. The table names no video.
"""

import csv
import tempfile
import time
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import av
import click
from shard_vs_limit import make_workload

from clipvip.media.container import ANY_TAGS
from clipvip.pipeline.runtime.workers import run_units
from clipvip.pipeline.shard.run import make_tasks
from clipvip.pipeline.shard.work import ShardTask, make_unit
from clipvip.shards.building.cutting import CutOptions
from clipvip.shards.building.plan import Unit
from clipvip.shards.files.claims import claim_folder
from clipvip.shards.sources.hdvila import index_videos, read_sources

TABLE = Path(__file__).with_suffix(".csv")


@dataclass(frozen=True, slots=True)
class Cost:
    """One video: `seconds` of it lie in clips.

    `cpu_seconds` for cutting, scaling, compressing and writing them.
    """

    codec: str
    width: int
    height: int
    seconds: float
    clips: int
    cpu_seconds: float
    source_bytes: int
    stored_bytes: int

    @property
    def short_side(self) -> int:
        return min(self.width, self.height)


def read_costs(path: Path = TABLE) -> list[Cost]:
    """The table as `main` writes it."""
    with path.open(newline="") as file:
        return [
            Cost(**{f.name: f.type(row[f.name]) for f in fields(Cost)})  # type: ignore[operator]
            for row in csv.DictReader(file)
        ]


def timed_unit(task: ShardTask) -> tuple[float, int, int]:
    """Make a unit; processor seconds, clips and bytes stored."""
    started = time.process_time()
    marks = make_unit(task)
    seconds = time.process_time() - started
    records = [mark.record for mark in marks if mark.record is not None]
    return seconds, sum(r.num_samples for r in records), sum(r.num_bytes for r in records)


def measure(work: Path, out: Path, options: CutOptions) -> dict[str, tuple[float, int, int]]:
    """`timed_unit` of each video of the workload in `work`, by its path."""
    sources = [source for source in read_sources(work / "clips.jsonl") if source.clips]
    units = [Unit(number, 1, (source,), len(source.clips)) for number, source in enumerate(sources)]
    tasks = make_tasks(
        units[:1] + units,  # the first is made again: a process's first unit pays for imports
        paths=index_videos(work),
        texts=None,
        out=out,
        options=options,
        timeout_seconds=120.0,
    )
    measured = {}
    with claim_folder(out, {}):
        for outcome in run_units(timed_unit, tasks, workers=1):
            if outcome.result is not None and outcome.unit.paths[0] is not None:
                measured[outcome.unit.paths[0]] = outcome.result
    return measured


def cost_of(path: str, seconds: float, rounds: list[tuple[float, int, int]]) -> Cost:
    with av.open(path, **ANY_TAGS) as container:
        stream = container.streams.best("video")
        assert stream is not None
        context = stream.codec_context
        picture = context.name, context.width, context.height
    cpu_seconds, num_clips, stored_bytes = min(rounds)
    sizes = num_clips, round(cpu_seconds, 3), Path(path).stat().st_size, stored_bytes
    return Cost(*picture, round(seconds, 2), *sizes)


@click.command(help=__doc__)
@click.argument("videos", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--store", type=click.Choice(["frames", "video"]), default="frames", show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the table there.")
def main(videos: Path, rounds: int, store: str, out: Path | None) -> None:
    options = CutOptions(fps=3.0, size=256, store=store, quality=85 if store == "frames" else 23)
    taken: dict[str, list[tuple[float, int, int]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary, "videos")
        work.mkdir()
        make_workload(videos, work, copies=1)
        for number in range(rounds):
            for path, result in measure(work, Path(temporary, f"out{number}"), options).items():
                taken.setdefault(path, []).append(result)
        seconds = {
            source.video_id: sum(clip.end_seconds - clip.start_seconds for clip in source.clips)
            for source in read_sources(work / "clips.jsonl")
        }
        costs = [cost_of(path, seconds[Path(path).stem], results) for path, results in taken.items()]
    costs.sort(key=lambda cost: (cost.short_side, cost.codec, cost.seconds))
    report(costs)
    if out is not None:
        with out.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(f.name for f in fields(Cost))
            writer.writerows(map(astuple, costs))


def report(costs: list[Cost]) -> None:
    print(
        f"{'short side':12}{'videos':>8}{'seconds':>9}{'CPU ms per second':>19}"
        f"{'KB stored':>11}{'kbit/s read':>13}"
    )
    for name, least, most in (
        ("to 300", 0, 300),
        ("to 480", 301, 480),
        ("more", 481, 10_000),
        ("all", 0, 10_000),
    ):
        some = [cost for cost in costs if least <= cost.short_side <= most]
        if some:
            seconds = sum(cost.seconds for cost in some)
            cpu, stored = sum(c.cpu_seconds for c in some), sum(c.stored_bytes for c in some)
            read = sum(c.source_bytes for c in some) * 8
            print(
                f"{name:12}{len(some):8}{seconds:9.0f}{cpu / seconds * 1000:19.1f}"
                f"{stored / seconds / 1000:11.1f}"
                f"{read / seconds / 1000:13.0f}"
            )


if __name__ == "__main__":
    main()
