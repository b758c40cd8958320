"""What 1, 10 and 100 million clips need of each stage, from measured costs: the tables of docs/scaling.md.

    python benchmarks/capacity_plan.py [--cores 16] [--gpus 1] [--storage 5] [--uplink 10] ...

It multiplies and divides, and no more: a stage takes as long as the resource does that it needs longest. GPUs
count as at their peak, which is a bound, unless a measured rate is given.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import click
from shard_costs import Cost, read_costs

SCALES = ((1_000_000, 1), (10_000_000, 8), (100_000_000, 64))  # clips, machines

# HD-VILA-100M, as published: 3.3 million videos, 250 TB at 720p, 100 million clips of 13.4 s.
CLIPS_PER_VIDEO, CLIP_SECONDS, RAW_BYTES_PER_CLIP = 30.3, 13.4, 2.5e6
# Of a shard of 256: the video that does not fit begins the next. With 30.3 clips a video, log-normal with a
# sigma of 0.8, the place that is left is 30.3 * exp(0.8**2) / 2 = 28.7 on average.
CLIPS_PER_UNIT = 228

# docs/benchmarks.md, by the heading there.
SURVEY_SECONDS_PER_VIDEO, READ_SECONDS_PER_VIDEO, HAND_OUT_SECONDS = 240e-6, 205e-6, 1e-3  # Shards
IMAGE_SECONDS, CAPTION_GFLOP, CAPTION_CPU_SECONDS = 3.4e-3, 192.9, 3.4  # Captioner
SHARD_TEXT_SECONDS, CAPTION_TEXT_SECONDS, TEXT_PASSES = 70e-6, 3e-6, 2  # Texts
LOADED_CLIPS_PER_SECOND, TRAIN_GFLOP = 233.0, 333.0  # Loader
DOWNLOAD_SLEEP_SECONDS = 1.0  # the default of --sleep
GPU_PEAK_GFLOPS = 989e3  # of an H100, dense bfloat16: a bound


@dataclass(frozen=True, slots=True)
class Site:
    """What there is; machines are counted by `SCALES`."""

    cores: int = 16
    gpus: int = 1
    storage_gbyte: float = 5.0
    uplink_gbit: float = 10.0
    caption_rate: float | None = None
    train_rate: float | None = None

    def capacity(self, resource: str, machines: int) -> float:
        """What a resource gives a second: core seconds, GPU seconds, bytes, bits, requests' seconds."""
        return {
            "cores": machines * self.cores,
            "GPUs": machines * self.gpus,
            "GPUs, at least": machines * self.gpus,
            "storage": self.storage_gbyte * 1e9,
            "uplink": self.uplink_gbit * 1e9,
            "addresses": machines,
            "the command": 1,
        }[resource]


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage and what a clip needs, by resource, in its unit of `Site.capacity`."""

    name: str
    needs: dict[str, float]


def shard_costs(least: int, most: int) -> tuple[float, float, float]:
    """Core seconds, bytes read and bytes stored of a clip, over the measured videos of such short sides."""
    costs: list[Cost] = [cost for cost in read_costs() if least <= cost.short_side <= most]
    seconds = sum(cost.seconds for cost in costs)
    totals = (
        sum(cost.cpu_seconds for cost in costs),
        sum(cost.source_bytes for cost in costs),
        sum(cost.stored_bytes for cost in costs),
    )
    cpu, read, stored = (total / seconds * CLIP_SECONDS for total in totals)
    return cpu, read, stored


def stages(site: Site) -> list[Stage]:
    """All stages; downloading and sharding for small sources, as `download` fetches them, and for 720p."""
    small_cpu, small_read, small_stored = shard_costs(301, 480)
    large_cpu, _, large_stored = shard_costs(481, 10_000)
    _, _, stored = shard_costs(0, 10_000)
    asked = DOWNLOAD_SLEEP_SECONDS / CLIPS_PER_VIDEO
    command = (
        SURVEY_SECONDS_PER_VIDEO + READ_SECONDS_PER_VIDEO
    ) / CLIPS_PER_VIDEO + HAND_OUT_SECONDS / CLIPS_PER_UNIT
    return [
        Stage("download, 360p", {"addresses": asked, "uplink": small_read * 8}),
        Stage("download, 720p", {"addresses": asked, "uplink": RAW_BYTES_PER_CLIP * 8}),
        Stage(
            "shard, 360p", {"cores": small_cpu, "storage": small_read + small_stored, "the command": command}
        ),
        Stage(
            "shard, 720p",
            {"cores": large_cpu, "storage": RAW_BYTES_PER_CLIP + large_stored, "the command": command},
        ),
        Stage(
            "caption",
            {"cores": IMAGE_SECONDS, "storage": stored, **gpu_need(site.caption_rate, CAPTION_GFLOP)},
        ),
        Stage("caption, without GPUs", {"cores": CAPTION_CPU_SECONDS, "storage": stored}),
        Stage("nmi, subtitles in shards", {"the command": TEXT_PASSES * SHARD_TEXT_SECONDS}),
        Stage("nmi, captions", {"the command": TEXT_PASSES * CAPTION_TEXT_SECONDS}),
        Stage(
            "train, one pass",
            {
                "cores": 1 / LOADED_CLIPS_PER_SECOND,
                "storage": stored,
                **gpu_need(site.train_rate, TRAIN_GFLOP),
            },
        ),
    ]


def gpu_need(rate: float | None, gflop: float) -> dict[str, float]:
    """GPU seconds of a clip: by a measured rate, or at least those of the products at peak."""
    return {"GPUs": 1 / rate} if rate else {"GPUs, at least": gflop / GPU_PEAK_GFLOPS}


def hours(stage: Stage, site: Site, num_clips: int, machines: int) -> dict[str, float]:
    """How long each resource is at work for a stage, were it alone."""
    return {
        resource: num_clips * need / site.capacity(resource, machines) / 3600
        for resource, need in stage.needs.items()
    }


def bottleneck(taken: dict[str, float]) -> str:
    """The resource that takes longest."""
    return max(taken, key=taken.__getitem__)


_TOTALS = {
    "cores": ("core hours", 3600),
    "GPUs": ("GPU hours", 3600),
    "GPUs, at least": ("GPU hours, at least", 3600),
    "storage": ("TB read and written", 1e12),
    "uplink": ("TB fetched", 8e12),
    "addresses": ("days of one address", 86400),
    "the command": ("hours of the command's core", 3600),
}


def number(value: float) -> str:
    """Two digits that say something, three from 10 on: 0.0021, 0.21, 2.1, 21.4, 2,143."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def totals_table(site: Site) -> Iterator[str]:
    """What is used up, wherever it runs."""
    yield "| stage | | 1M | 10M | 100M |"
    yield "|---|---|---|---|---|"
    for stage in stages(site):
        for resource, need in stage.needs.items():
            unit, per_unit = _TOTALS[resource]
            cells = " | ".join(number(need * clips / per_unit) for clips, _ in SCALES)
            yield f"| {stage.name} | {unit} | {cells} |"


def hours_table(site: Site) -> Iterator[str]:
    """How long it takes at the site; the bottleneck in bold."""
    heads = [
        f"{clips // 1_000_000}M, {machines} machine{'s' if machines > 1 else ''}"
        for clips, machines in SCALES
    ]
    yield f"| hours of | by | {' | '.join(heads)} |"
    yield "|---|---|---|---|---|"
    for stage in stages(site):
        taken = [hours(stage, site, clips, machines) for clips, machines in SCALES]
        for resource in stage.needs:
            cells = [
                f"**{number(column[resource])}**"
                if resource == bottleneck(column)
                else number(column[resource])
                for column in taken
            ]
            yield f"| {stage.name} | {resource} | {' | '.join(cells)} |"


def rates_table(site: Site) -> Iterator[str]:
    """The rate of a GPU below which GPUs are the bottleneck."""
    yield "| GPUs are the bottleneck below, clips/s each | 1M | 10M | 100M |"
    yield "|---|---|---|---|"
    for stage in stages(site):
        if "GPUs, at least" in stage.needs:
            rates = []
            for clips, machines in SCALES:
                taken = hours(stage, site, clips, machines)
                del taken["GPUs, at least"]
                rates.append(clips / (max(taken.values()) * 3600 * machines * site.gpus))
            yield f"| {stage.name} | {' | '.join(map(number, rates))} |"


def plan(site: Site) -> str:
    """All tables, as Markdown."""
    tables = [totals_table(site), hours_table(site)]
    if site.caption_rate is None or site.train_rate is None:
        tables.append(rates_table(site))
    return "\n\n".join("\n".join(table) for table in tables)


@click.command(help=__doc__)
@click.option("--cores", type=click.IntRange(min=1), default=16, show_default=True, help="Of each machine.")
@click.option("--gpus", type=click.IntRange(min=1), default=1, show_default=True, help="Of each machine.")
@click.option("--storage", "storage_gbyte", type=click.FloatRange(0, min_open=True), default=5.0,
              show_default=True,
              help="GB a second of the storage that all share.")  # fmt: skip
@click.option("--uplink", "uplink_gbit", type=click.FloatRange(0, min_open=True), default=10.0,
              show_default=True,
              help="Gbit a second from outside, for all.")  # fmt: skip
@click.option("--caption-rate", type=click.FloatRange(0, min_open=True), help="Captions a second of a GPU.")
@click.option(
    "--train-rate", type=click.FloatRange(0, min_open=True), help="Clips a second that a GPU trains on."
)
def main(**site: float) -> None:
    click.echo(plan(Site(**site)))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
