"""How much faster `clipvip-data shard` is with more workers, on one machine.

    python benchmarks/shard_scaling.py VIDEOS [--workers 1 --workers 2 --workers 4] [--rounds 3] [--copies 16]

The folder's videos, linked `--copies` times, are cut into clips of 13 s end to end. The numbers of workers
take turns; the table gives medians over the rounds. The command's start, measured by a run on one video, is
left out: it is the same for any number and for any amount of work.

Cores that others use make rates say little. So Linux is asked how long the processes waited for a core: where
that is more than a few per cent, only the last column counts, the efficiency by processor time. It knows what
workers cost each other in caches and memory, but not their idle time.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import click
from shard_vs_limit import make_workload


@dataclass(frozen=True, slots=True)
class Taken:
    """Seconds of one run: of the clock, of processors, and those in which its threads waited for one."""

    wall: float
    cpu: float
    waited: float

    def __sub__(self, other: "Taken") -> "Taken":
        return Taken(self.wall - other.wall, self.cpu - other.cpu, self.waited - other.waited)


def threads_of(root: int) -> list[Path]:
    """The folders in /proc of all threads of a process and of those that it started."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    family = [root]
    for process in family:
        family += parents.get(process, [])
    return [task for process in family for task in Path(f"/proc/{process}/task").glob("*")]


class WaitMeter:
    """Adds up, until it is stopped, for how long a process and its children have waited for a core."""

    def __init__(self, process: int) -> None:
        self._process = process
        self._waited: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)
        self._thread.start()

    def _look_on(self) -> None:
        while not self._stop.wait(0.2):
            for task in threads_of(self._process):
                try:
                    self._waited[task.name] = int((task / "schedstat").read_text().split()[1]) / 1e9
                except OSError:
                    continue

    def stop(self) -> float:
        self._stop.set()
        self._thread.join()
        return sum(self._waited.values())


def run_watched(command: list[str]) -> Taken:
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        meter = WaitMeter(process.pid)
        process.wait()
    seconds, waited = time.perf_counter() - started, meter.stop()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Taken(seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, waited)


@click.command(help=__doc__)
@click.argument("videos", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--workers", "numbers", multiple=True, type=click.IntRange(min=1), default=(1, 2, 4))
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--copies", type=click.IntRange(min=1), default=16, show_default=True)
@click.option("--shard-size", default=8, show_default=True, help="Small, so that the work is spread evenly.")
def main(videos: Path, numbers: tuple[int, ...], rounds: int, copies: int, shard_size: int) -> None:
    taken: dict[int, list[Taken]] = {number: [] for number in numbers}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary, "videos")
        work.mkdir()
        num_clips = make_workload(videos, work, copies)
        one = Path(temporary, "one.jsonl")
        one.write_text((work / "clips.jsonl").read_text().partition("\n")[0] + "\n")
        python = [sys.executable, "-c", "from clipvip.pipeline.cli import main; main()", "shard"]
        python += ["--videos", str(work), "--shard-size", str(shard_size)]
        for number in range(rounds):
            out = Path(temporary, f"start{number}")
            command = [*python, "--metadata", str(one), "--workers", "1"]
            start = run_watched([*command, "--out", str(out)])
            for workers in numbers:
                out = Path(temporary, f"out{number}-{workers}")
                command = [*python, "--metadata", str(work / "clips.jsonl"), "--workers", str(workers)]
                taken[workers].append(run_watched([*command, "--out", str(out)]) - start)
    report(taken, num_clips)


def report(taken: dict[int, list[Taken]], num_clips: int) -> None:
    """Efficiencies are of one round each, then the median: rounds have different company."""
    print(f"{num_clips} clips; load of the machine: {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores")
    print(f"{'workers':>7}{'clips/s':>9}{'CPU s/clip':>12}{'waited':>8}{'efficiency':>12}{'by CPU':>9}")
    least = min(taken)
    for workers, rounds in sorted(taken.items()):
        wall = statistics.median(run.wall for run in rounds)
        cpu = statistics.median(run.cpu for run in rounds)
        waited = statistics.median(run.waited / (run.waited + run.cpu) for run in rounds)
        pairs = list(zip(taken[least], rounds, strict=True))
        plain = statistics.median(one.wall * least / (run.wall * workers) for one, run in pairs)
        by_cpu = statistics.median(one.cpu / run.cpu for one, run in pairs)
        print(
            f"{workers:7}{num_clips / wall:9.2f}{cpu / num_clips:12.4f}"
            f"{waited:8.0%}{plain:12.0%}{by_cpu:9.0%}"
        )


if __name__ == "__main__":
    main()
