"""The demo from end to end: the corpus, then the stages as functions, with the commands that do the same.

It can be resumed because every stage can. `results` judges what came out, `report` shows it.
"""

import os
import shlex
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from clipvip.experiments.demo.corpus import is_complete, num_videos, write_corpus
from clipvip.experiments.demo.found import trained_frames
from clipvip.experiments.demo.pictures import FPS
from clipvip.experiments.demo.report import write_report
from clipvip.experiments.demo.results import failed_expectations, read_results, summary
from clipvip.experiments.demo.world import DEMO_WORLD, QUICK_WORLD, WEIGHTS, World
from clipvip.extras import require_package
from clipvip.media.errors import one_line
from clipvip.model.errors import CheckpointError
from clipvip.pipeline.caption.stage import CaptionOptions, caption
from clipvip.pipeline.domain_gap.stage import DomainGapOptions, nmi
from clipvip.pipeline.evaluate.retrieval import RetrievalOptions, retrieval
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.progress import Progress
from clipvip.pipeline.runtime.report import counted
from clipvip.pipeline.runtime.stage import Stage, StageOptions, command_line
from clipvip.pipeline.shard.stage import ShardOptions, shard
from clipvip.pipeline.train.stage import TrainOptions, train
from clipvip.shards.errors import DatasetError
from clipvip.shards.files.atomic import write_json

REPORT_NAME = "index.html"
RESULTS_NAME = "results.json"
MEAN_POOL = ("model.encoder=mean_pool",)


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


def run_demo(out: Path, *, workers: int, quick: bool, seed: int | None = None) -> None:
    """Run everything into `out`; what an earlier run finished there is kept. `seed`: of another world.

    Raises:
        UserError: a stage failed, or the results are not what the demo is to show.
    """
    started = time.monotonic()
    require_package("faiss", "the demo's nmi")
    world = QUICK_WORLD if quick else DEMO_WORLD
    world = world if seed is None else replace(world, seed=seed)
    os.environ["HF_HUB_OFFLINE"] = "1"  # the demo brings all it needs
    steps = demo_steps(out, workers=workers, quick=quick, seed=world.seed)
    num_steps = len(steps) + 2
    _headline(1, num_steps, "A corpus of made-up videos with subtitles")
    click.echo(make_corpus(world, out / "corpus", workers=workers))
    corpus_commands = [] if quick else [_corpus_command(world, out / "corpus")]
    _headline(2, num_steps, "The start: a tiny CLIP that saw single pictures only")
    make_starts(out, seed=world.seed)
    for number, step in enumerate(steps, start=3):
        _headline(number, num_steps, step.title)
        run_step(step)
    results = read_results(out)
    write_json(out / RESULTS_NAME, results)
    write_report(out / REPORT_NAME, out, results, [*corpus_commands, *(step.command for step in steps)])
    click.echo(f"\n{summary(results)}\n")
    click.echo(f"Results in {out}, to look at: {out / REPORT_NAME} ({time.monotonic() - started:.0f} s)")
    failed = failed_expectations(results, must_improve=not quick)
    if failed:
        raise UserError(f"the demo ran, but {'; '.join(failed)}")


def _corpus_command(world: World, folder: Path) -> list[str]:
    return ["clipvip-demo", "corpus", "--motion", "--seed", str(world.seed), "--out", str(folder)]


def make_corpus(world: World, folder: Path, *, workers: int) -> str:
    """Write the corpus unless it is there, and say so; UserError where there cannot be such a world."""
    if is_complete(world, folder):
        return f"the corpus in {folder} is already complete"
    count = num_videos(world)
    try:
        with Progress("videos", total=count, unit="videos") as progress:
            write_corpus(world, folder, workers=workers, on_done=lambda: progress.add(1))
    except ValueError as error:
        raise UserError(str(error)) from error
    clips = counted(world.clips_per_video, "clips")
    return f"{counted(count, 'videos')} of {clips} each in {folder}"


def make_starts(out: Path, *, seed: int) -> None:
    """Save the tiny CLIP as training begins with it."""
    from transformers.utils.logging import disable_progress_bar

    from clipvip.pipeline.train.recipe import load_recipe
    from clipvip.pipeline.train.start import save_model, start_model

    disable_progress_bar()
    out.mkdir(parents=True, exist_ok=True)
    folder = out / "clip_vip_start"
    if not (folder / "config.json").is_file():
        recipe = load_recipe("demo", (f"seed={seed}",), options={"model.init": str(WEIGHTS / "clip")})
        save_model(start_model(recipe), folder)
    click.echo(f"CLIP in {WEIGHTS / 'clip'}, CLIP-ViP at step 0 in {folder}")


def demo_steps(out: Path, *, workers: int, quick: bool, seed: int) -> list[Step]:
    """The stages of the demo in their order."""
    captions = out / "captions"
    shards = {split: out / f"shards-{split}" for split in ("train", "finetune", "test")}

    def sharding(title: str, split: str, subtitles: str) -> Step:
        folder = out / "corpus" / split
        options = ShardOptions(
            metadata=str(folder / "metadata.jsonl"),
            videos=str(folder / "videos"),
            subtitles=str(folder / subtitles),
            out=str(shards[split]),
            shard_size=128,
            # All frames: at a lower rate a clip has other frames than its twin, by which one could tell them.
            fps=FPS,
            workers=workers,
        )
        return Step(title, shard, options)

    def scoring(title: str, model: Path, name: str, num_frames: int | None = None) -> Step:
        options = RetrievalOptions(
            model=str(model), shards=shards["test"], out=out / f"retrieval-{name}", num_frames=num_frames
        )
        return Step(title, retrieval, options)

    def training(title: str, name: str, *changes: str) -> Step:
        few = ("optim.epochs=8",) if quick else ()
        options = TrainOptions(
            "demo",
            shards=str(shards["train"]),
            captions=(str(captions),),
            init=str(WEIGHTS / "clip"),
            out=str(out / name),
            overrides=(f"seed={seed}", *changes, *few),
        )
        return Step(title, train, options)

    def tuning(title: str, start: str, name: str) -> Step:
        options = TrainOptions(
            "finetune_demo",
            shards=str(shards["finetune"]),
            init=str(out / start / "model"),
            out=str(out / name),
            overrides=(f"seed={seed}",),
        )
        return Step(title, train, options)

    captioning = CaptionOptions(
        shards=shards["train"], out=captions, model=str(WEIGHTS / "ofa"), batch_size=32, workers=workers
    )
    gap = DomainGapOptions(
        sources={"subtitles": shards["train"], "captions": captions},
        targets={"descriptions": out / "corpus" / "texts" / "descriptions.txt"},
        model=str(WEIGHTS / "clip"),
        out=out / "nmi",
        samples=300 if quick else 1000,
    )
    return [
        sharding("Shards of the training videos, with their subtitles", "train", "subtitles"),
        sharding("Shards of the videos to fine-tune on, with descriptions", "finetune", "descriptions.jsonl"),
        sharding("Shards of the test videos, with descriptions", "test", "descriptions.jsonl"),
        Step("Captions of the middle frames", caption, captioning),
        Step("How far subtitles and captions are from descriptions", nmi, gap),
        scoring(
            "Retrieval by CLIP with its frames averaged", WEIGHTS / "clip", "clip_mean_pool", trained_frames()
        ),
        scoring("Retrieval by CLIP-ViP before training", out / "clip_vip_start", "clip_vip_start"),
        training("Post-pretraining on subtitles and captions", "run"),
        scoring("Retrieval after post-pretraining", out / "run" / "model", "clip_vip_pretrained"),
        tuning("Fine-tuning on descriptions", "run", "tuned"),
        scoring("Retrieval after fine-tuning", out / "tuned" / "model", "clip_vip_trained"),
        training("For comparison: the same post-pretraining, frames averaged", "run-mean-pool", *MEAN_POOL),
        tuning("For comparison: the same fine-tuning", "run-mean-pool", "tuned-mean-pool"),
        scoring(
            "Retrieval by averaged frames after both",
            out / "tuned-mean-pool" / "model",
            "clip_mean_pool_trained",
        ),
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
