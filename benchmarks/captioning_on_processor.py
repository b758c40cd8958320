"""What `clipvip-data caption` costs on a processor, beside that of another checkout.

    python benchmarks/captioning_on_processor.py [--against OTHER/src] [--clips 16] [--rounds 3]

Each round is the whole command with one worker and one thread, the start included; the two checkouts take
turns. OFA of base size with random weights, of which captions run to the limit, batches of 4. Printed are the
processor time, the largest memory of a process, and whether the captions are the same.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import click
from gpu_sections.made_data import Sizes, make_ofa, make_shards
from pyarrow import parquet

CAPTION = "import sys; from clipvip.pipeline.cli import main; main()"


class Cost(NamedTuple):
    """Of one command: processor seconds, the peak memory of its largest process in MB, and its captions."""

    seconds: float
    peak: float
    captions: str


@click.command()
@click.option("--against", type=click.Path(exists=True), help="The src folder of another checkout.")
@click.option("--clips", default=16, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--one", nargs=2, hidden=True, help="Measure once, from this folder, with this src.")
def main(against: str | None, clips: int, rounds: int, one: tuple[str, str] | None) -> None:
    """Print a table of medians."""
    if one is not None:
        click.echo("\n".join(map(str, measure(Path(one[0]), one[1]))))
        return
    checkouts = {"this": str(Path(__file__).resolve().parents[1] / "src")}
    if against:
        checkouts["the other"] = against
    found: dict[str, list[Cost]] = {name: [] for name in checkouts}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        make_shards(folder / "shards", folder / "unused", Sizes(1, clips, 3, 256, 456))
        make_ofa(folder / "ofa")
        for _ in range(rounds):
            for name, source in checkouts.items():
                found[name].append(_in_process(folder, source))
    click.echo("| checkout | CPU s | peak MB | captions |\n|---|---|---|---|")
    for name, costs in found.items():
        seconds = [cost.seconds for cost in costs]
        same = "the same" if {cost.captions for cost in costs} == {found["this"][0].captions} else "others"
        peak = statistics.median(cost.peak for cost in costs)
        click.echo(
            f"| {name} | {statistics.median(seconds):.1f} ({min(seconds):.1f}-{max(seconds):.1f}) "
            f"| {peak:.0f} | {same} |"
        )


def _in_process(folder: Path, source: str) -> Cost:
    """In a process of its own, whose children are the command's alone."""
    command = [sys.executable, str(Path(__file__).resolve()), "--one", str(folder), source]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    seconds, peak, captions = done.stdout.split("\n", 2)
    click.echo(f"{source}: {float(seconds):.1f} s, {float(peak):.0f} MB", err=True)
    return Cost(float(seconds), float(peak), captions)


def measure(folder: Path, source: str) -> Cost:
    """Run the command of the checkout `source` once, into a new folder."""
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as name:
        options = {"--shards": folder / "shards", "--out": name, "--model": folder / "ofa",
                   "--workers": 1, "--batch-size": 4}  # fmt: skip
        arguments = [str(word) for option in options.items() for word in option]
        subprocess.run(
            [sys.executable, "-c", CAPTION, "caption", *arguments],
            env=environment,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        captions = "".join(sorted(_texts(Path(name))))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, captions)


def _texts(folder: Path) -> list[str]:
    rows = (parquet.read_table(path, columns=["key", "caption"]) for path in folder.rglob("*.parquet"))
    return [
        f"{key} {caption}\n"
        for table in rows
        for key, caption in zip(*table.to_pydict().values(), strict=True)
    ]


if __name__ == "__main__":
    main()
