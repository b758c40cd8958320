"""The demo from end to end: make the corpus, then run the stages' own commands as a user types them.

Everything is resumable because every stage is. What came out is read and judged in `results`, shown in `report`.
"""

import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import click

from clipvip.experiments.demo.corpus import is_complete, num_videos, write_corpus
from clipvip.experiments.demo.report import write_report
from clipvip.experiments.demo.results import failed_expectations, read_results, summary
from clipvip.experiments.demo.world import QUICK_WORLD, World
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.progress import Progress
from clipvip.pipeline.runtime.worker_process import die_with_parent
from clipvip.shards.files.atomic import write_json

WEIGHTS = Path(__file__).resolve().parent / "weights"
REPORT_NAME = "index.html"
RESULTS_NAME = "results.json"


@dataclass(frozen=True)
class Stage:
    """A command of the package, and what it is for."""

    title: str
    command: tuple[str, ...]


def run_demo(out: Path, *, workers: int, quick: bool) -> None:
    """Run everything into `out`; what an earlier run finished there is kept.

    Raises:
        UserError: a stage failed, or the results are not what the demo is to show.
    """
    started = time.monotonic()
    world = QUICK_WORLD if quick else World()
    stages = demo_stages(out, workers=workers, quick=quick)
    num_steps = len(stages) + 2
    _headline(1, num_steps, "A corpus of made-up videos with subtitles")
    make_corpus(world, out / "corpus", workers=workers)
    _headline(2, num_steps, "The start: a tiny CLIP that saw single pictures only")
    make_starts(out)
    for number, stage in enumerate(stages, start=3):
        _headline(number, num_steps, stage.title)
        run_stage(stage)
    results = read_results(out)
    write_json(out / RESULTS_NAME, results)
    write_report(out / REPORT_NAME, out, results, [stage.command for stage in stages])
    click.echo(f"\n{summary(results)}\n")
    click.echo(f"Results in {out}, to look at: {out / REPORT_NAME}  ({time.monotonic() - started:.0f} s)")
    failed = failed_expectations(results, must_improve=not quick)
    if failed:
        raise UserError(f"the demo ran, but {'; '.join(failed)}")


def make_corpus(world: World, folder: Path, *, workers: int) -> None:
    """Write the corpus unless it is there."""
    if is_complete(world, folder):
        click.echo(f"{folder} is there already")
        return
    count = num_videos(world)
    try:
        with Progress("videos", total=count, unit="videos") as progress:
            write_corpus(world, folder, workers=workers, on_done=lambda: progress.add(1))
    except ValueError as error:
        raise UserError(str(error)) from error
    click.echo(f"{count:,} videos of {world.clips_per_video} clips each in {folder}")


def make_starts(out: Path) -> None:
    """Save the tiny CLIP as models of this package: as training begins with it, and as a mean over frames."""
    import torch
    from transformers.utils.logging import disable_progress_bar

    from clipvip.model import ClipVip
    from clipvip.pipeline.train.recipe import load_recipe
    from clipvip.pipeline.train.start import save_model, start_model

    disable_progress_bar()
    out.mkdir(parents=True, exist_ok=True)
    start, average = out / "start", out / "frame-average"
    if not (start / "config.json").is_file():
        save_model(start_model(load_recipe("demo", options={"model.init": str(WEIGHTS / "clip")})), start)
    if not (average / "config.json").is_file():
        torch.manual_seed(0)
        model = ClipVip.from_clip(WEIGHTS / "clip", encoder="mean_pool", temporal_size=8)
        save_model(model, average)
    click.echo(f"CLIP-ViP at step 0 in {start}, CLIP with its frames averaged in {average}")


def demo_stages(out: Path, *, workers: int, quick: bool) -> list[Stage]:
    """The commands of the demo in their order."""
    corpus, captions, run = out / "corpus", out / "captions", out / "run"
    train, test = out / "shards-train", out / "shards-test"
    many = ("--workers", str(workers))

    def shard(split: str, subtitles: str, shards: Path) -> tuple[str, ...]:
        folder = corpus / split
        return (
            *("clipvip-data", "shard", "--metadata", str(folder / "metadata.jsonl")),
            *("--videos", str(folder / "videos"), "--subtitles", str(folder / subtitles)),
            *("--out", str(shards), "--shard-size", "128", *many),
        )

    def evaluate(model: Path, result: Path) -> tuple[str, ...]:
        options = ("--model", str(model), "--shards", str(test), "--out", str(result))
        return ("clipvip-eval", "retrieval", *options)

    nmi = (
        *("clipvip-data", "nmi", "--source", f"subtitles={train}", "--source", f"captions={captions}"),
        *("--target", f"descriptions={corpus / 'texts' / 'descriptions.txt'}"),
        *("--model", str(WEIGHTS / "clip"), "--out", str(out / "nmi")),
        *(("--samples", "400") if quick else ()),
    )
    training = (
        *("clipvip-train", "demo", "--shards", str(train), "--captions", str(captions)),
        *("--init", str(WEIGHTS / "clip"), "--out", str(run)),
        *(("--set", "optim.epochs=8") if quick else ()),
    )
    caption = (
        *("clipvip-data", "caption", "--shards", str(train), "--out", str(captions)),
        *("--model", str(WEIGHTS / "ofa"), "--batch-size", "32", *many),
    )
    return [
        Stage("Shards of the training videos, with their subtitles", shard("train", "subtitles", train)),
        Stage("Shards of the test videos, with descriptions", shard("test", "descriptions.jsonl", test)),
        Stage("Captions of the middle frames", caption),
        Stage("How far subtitles and captions are from descriptions", nmi),
        Stage("Retrieval by the start", evaluate(out / "start", out / "retrieval-start")),
        Stage(
            "Retrieval by CLIP with its frames averaged",
            evaluate(out / "frame-average", out / "retrieval-frame-average"),
        ),
        Stage("Post-pretraining on subtitles and captions", training),
        Stage("Retrieval by the trained model", evaluate(run / "model", out / "retrieval-trained")),
    ]


def run_stage(stage: Stage) -> None:
    """Run a command as its user would; UserError where it fails."""
    line = shlex.join(stage.command)
    click.secho(f"$ {line}", bold=True)
    name, *arguments = stage.command
    script = Path(sys.executable).parent / name
    if not script.is_file():
        raise UserError(f"{script}: no such command; install the package into this Python first")
    started = time.monotonic()
    # The demo brings all it needs.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    code = subprocess.run(
        [str(script), *arguments],
        env=environment,
        preexec_fn=die_with_parent,  # the other threads, of libraries, are at rest
        check=False,
    ).returncode
    if code in {130, 143}:  # stopped, as it has said
        click.get_current_context().exit(code)
    if code:
        raise UserError(
            f"stopped: '{line}' ended with exit code {code}; its message is above. "
            "What is finished is kept: the same command goes on from here"
        )
    click.echo(f"({time.monotonic() - started:.1f} s)")


def _headline(number: int, total: int, title: str) -> None:
    click.secho(f"\n[{number}/{total}] {title}", fg="cyan", bold=True)
    sys.stdout.flush()
