"""The demo from end to end: the corpus, then the stages as functions, with the commands that do the same.

It can be resumed because every stage can. `results` judges what came out, `report` shows it.
"""

import os
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from clipvip.experiments.demo.corpus import is_complete, num_videos, write_corpus
from clipvip.experiments.demo.report import write_report
from clipvip.experiments.demo.results import failed_expectations, read_results, summary
from clipvip.experiments.demo.world import QUICK_WORLD, WEIGHTS, World
from clipvip.media.errors import one_line
from clipvip.model.errors import CheckpointError
from clipvip.pipeline.caption.stage import CaptionOptions, caption
from clipvip.pipeline.domain_gap.stage import DomainGapOptions, nmi
from clipvip.pipeline.evaluate.retrieval import RetrievalOptions, retrieval
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.progress import Progress
from clipvip.pipeline.runtime.stage import Stage, StageOptions, command_line
from clipvip.pipeline.shard.stage import ShardOptions, shard
from clipvip.pipeline.train.stage import TrainOptions, train
from clipvip.shards.errors import DatasetError
from clipvip.shards.files.atomic import write_json

REPORT_NAME = "index.html"
RESULTS_NAME = "results.json"


@dataclass(frozen=True)
class Step:
    """A stage with its options, and what it is for."""

    title: str
    stage: Stage[Any, Any, Any]
    options: StageOptions

    @property
    def command(self) -> list[str]:
        """The command that does the same."""
        return command_line(self.stage, self.options)


def run_demo(out: Path, *, workers: int, quick: bool) -> None:
    """Run everything into `out`; what an earlier run finished there is kept.

    Raises:
        UserError: a stage failed, or the results are not what the demo is to show.
    """
    started = time.monotonic()
    world = QUICK_WORLD if quick else World()
    os.environ["HF_HUB_OFFLINE"] = "1"  # the demo brings all it needs
    steps = demo_steps(out, workers=workers, quick=quick)
    num_steps = len(steps) + 2
    _headline(1, num_steps, "A corpus of made-up videos with subtitles")
    click.echo(make_corpus(world, out / "corpus", workers=workers))
    _headline(2, num_steps, "The start: a tiny CLIP that saw single pictures only")
    make_starts(out)
    for number, step in enumerate(steps, start=3):
        _headline(number, num_steps, step.title)
        run_step(step)
    results = read_results(out)
    write_json(out / RESULTS_NAME, results)
    write_report(out / REPORT_NAME, out, results, [step.command for step in steps])
    click.echo(f"\n{summary(results)}\n")
    click.echo(f"Results in {out}, to look at: {out / REPORT_NAME}  ({time.monotonic() - started:.0f} s)")
    failed = failed_expectations(results, must_improve=not quick)
    if failed:
        raise UserError(f"the demo ran, but {'; '.join(failed)}")


def make_corpus(world: World, folder: Path, *, workers: int) -> str:
    """Write the corpus unless it is there, and say so; UserError where there cannot be such a world."""
    if is_complete(world, folder):
        return f"{folder} is there already"
    count = num_videos(world)
    try:
        with Progress("videos", total=count, unit="videos") as progress:
            write_corpus(world, folder, workers=workers, on_done=lambda: progress.add(1))
    except ValueError as error:
        raise UserError(str(error)) from error
    return f"{count:,} videos of {world.clips_per_video} clips each in {folder}"


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


def demo_steps(out: Path, *, workers: int, quick: bool) -> list[Step]:
    """The stages of the demo in their order."""
    corpus, captions, run = out / "corpus", out / "captions", out / "run"
    train_shards, test_shards = out / "shards-train", out / "shards-test"

    def sharding(title: str, split: str, subtitles: str, shards: Path) -> Step:
        folder = corpus / split
        options = ShardOptions(
            metadata=str(folder / "metadata.jsonl"),
            videos=str(folder / "videos"),
            subtitles=str(folder / subtitles),
            out=str(shards),
            shard_size=128,
            workers=workers,
        )
        return Step(title, shard, options)

    def scoring(title: str, model: Path, name: str) -> Step:
        options = RetrievalOptions(model=str(model), shards=test_shards, out=out / f"retrieval-{name}")
        return Step(title, retrieval, options)

    captioning = CaptionOptions(
        shards=train_shards, out=captions, model=str(WEIGHTS / "ofa"), batch_size=32, workers=workers
    )
    gap = DomainGapOptions(
        sources={"subtitles": train_shards, "captions": captions},
        targets={"descriptions": corpus / "texts" / "descriptions.txt"},
        model=str(WEIGHTS / "clip"),
        out=out / "nmi",
        samples=400 if quick else 1000,
    )
    training = TrainOptions(
        "demo",
        shards=str(train_shards),
        captions=str(captions),
        init=str(WEIGHTS / "clip"),
        out=str(run),
        overrides=("optim.epochs=8",) if quick else (),
    )
    return [
        sharding("Shards of the training videos, with their subtitles", "train", "subtitles", train_shards),
        sharding("Shards of the test videos, with descriptions", "test", "descriptions.jsonl", test_shards),
        Step("Captions of the middle frames", caption, captioning),
        Step("How far subtitles and captions are from descriptions", nmi, gap),
        scoring("Retrieval by the start", out / "start", "start"),
        scoring("Retrieval by CLIP with its frames averaged", out / "frame-average", "frame-average"),
        Step("Post-pretraining on subtitles and captions", train, training),
        scoring("Retrieval by the trained model", run / "model", "trained"),
    ]


def run_step(step: Step) -> None:
    """Show a stage's command and run it; UserError where it fails."""
    line = shlex.join(step.command)
    click.secho(f"$ {line}", bold=True)
    started = time.monotonic()
    try:
        report = step.stage(step.options)
    except (UserError, DatasetError, CheckpointError) as error:
        kept = "What is finished is kept: the same command goes on from here"
        raise UserError(f"stopped at '{line}': {one_line(error)}. {kept}") from error
    click.echo(report.text)
    click.echo(f"({time.monotonic() - started:.1f} s)")


def _headline(number: int, total: int, title: str) -> None:
    click.secho(f"\n[{number}/{total}] {title}", fg="cyan", bold=True)
    sys.stdout.flush()
