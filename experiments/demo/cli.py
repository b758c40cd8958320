"""The command `clipvip-demo`: make the demo's corpus, train its models, run every stage on them."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial, reduce
from pathlib import Path
from typing import Any

import click

from clipvip import __version__
from clipvip.experiments.demo.models import copy_models
from clipvip.experiments.demo.world import DEMO_WORLD, World
from clipvip.pipeline.runtime.errors import StageCommand, StageGroup
from clipvip.pipeline.runtime.options import at_least, finite

_Function = Callable[..., None]
_THREADS = 2
_FOLDER = click.Path(file_okay=False, path_type=Path)
_option = partial(click.option, show_default=True)
_out = partial(click.option, "--out", type=_FOLDER, required=True)
_seed = _option("--seed", type=at_least(0), default=World().seed, help="Seed of the world.")


def _defaults(split: str) -> str:
    whole, motion = (getattr(world, f"num_{split}_videos") for world in (World(), DEMO_WORLD))
    return f"{whole}, with --motion {motion}"


def _epilog(example: str) -> str:
    return f"\b\nExamples:\n  clipvip-demo {example}"


@click.group(cls=StageGroup, epilog=_epilog("run"))
@click.version_option(__version__, package_name="clipvip")
def main() -> None:
    """The whole pipeline on a small made-up world, on any machine."""


@main.command("run", cls=StageCommand, epilog=_epilog("run --out demo-out --workers 2"))
@_option("--out", type=_FOLDER, default=Path("demo-out"), help="Folder for everything.")
@click.option("--workers", type=at_least(1), show_default="one per core, 4 at most", help="Processes.")
@click.option("--quick", is_flag=True, help="A smaller corpus and fewer steps.")
@_option("--seed", type=at_least(0), default=DEMO_WORLD.seed, help="Seed of the world and of training.")
def run_command(out: Path, workers: int | None, quick: bool, seed: int) -> None:
    """Run every stage on the embedded corpus, from videos to retrieval, and write a page about it.

    Run it again after an interruption: it goes on from there.
    """
    from clipvip.experiments.demo.run import run_demo

    run_demo(out, workers=workers or min(4, os.cpu_count() or 1), quick=quick, seed=seed)


@main.command("corpus", cls=StageCommand, epilog=_epilog("corpus --out corpus/ --videos 20 --test-videos 5"))
@_out(help="Folder for the corpus.")
@_option("--workers", type=at_least(1), default=2, help="Processes.")
@click.option("--videos", type=at_least(1), help="Videos to train on.", show_default=_defaults("train"))
@click.option("--test-videos", type=at_least(1), help="Videos to test with.", show_default=_defaults("test"))
@_seed
@click.option(
    "--motion",
    is_flag=True,
    help="The corpus of 'clipvip-demo run': few appearances, videos to fine-tune on, and each test clip also "
    "played backwards.",
)
def corpus_command(
    out: Path, workers: int, videos: int | None, test_videos: int | None, seed: int, motion: bool
) -> None:
    """Write a corpus alone: videos, subtitles and clip lists as HD-VILA-100M has them."""
    from clipvip.experiments.demo.run import make_corpus

    world = DEMO_WORLD if motion else World()
    world = replace(
        world,
        seed=seed,
        num_train_videos=videos or world.num_train_videos,
        num_test_videos=test_videos or world.num_test_videos,
    )
    click.echo(make_corpus(world, out, workers=workers))


@main.command("models", cls=StageCommand, resumable=False, epilog=_epilog("models --out models/"))
@_out(help="Folder for both models.")
def models_command(out: Path) -> None:
    """Copy the demo's tiny CLIP and OFA to OUT/clip and OUT/ofa, to try commands with."""
    copy_models(out)
    click.echo(f"models: {out / 'clip'} and {out / 'ofa'}")


def _training_options(*, steps: int, batch_size: int) -> Callable[[_Function], _Function]:
    options = (
        _out(help="Folder for the model."),
        _option("--steps", type=at_least(1), default=steps, help="Training steps."),
        _option("--batch-size", type=at_least(2), default=batch_size, help="Frames in a batch."),
        _option("--pictures", "num_pictures", type=at_least(2), default=8000, help="Frames to draw."),
        _option(
            "--learning-rate",
            type=finite(0, above=True),
            default=1e-3,
            help="Highest learning rate of AdamW.",
        ),
        _seed,
    )
    return lambda function: reduce(lambda made, add: add(made), reversed(options), function)


def _ready(*, seed: int, batch_size: int, num_pictures: int, **others: Any) -> dict[str, Any]:
    """What training takes, of the options above; torch is told to use few threads."""
    import torch

    torch.set_num_threads(min(_THREADS, os.cpu_count() or 1))
    sizes = {"batch_size": min(batch_size, num_pictures), "num_pictures": num_pictures}
    return {"world": World(seed=seed), **sizes, **others}


@main.command("train-clip", cls=StageCommand, resumable=False,
              epilog=_epilog("train-clip --out clip/ --steps 200"))  # fmt: skip
@_training_options(steps=800, batch_size=160)
def train_clip_command(out: Path, **given: Any) -> None:
    """Train the tiny CLIP that the demo starts from: single frames, labels without motion."""
    from clipvip.experiments.demo.train_clip import train_clip

    accuracy = train_clip(out, **_ready(**given))
    click.echo(f"model: {out}; it ranks the right label first of 100 for {accuracy:.1%} of held-out frames")


@main.command("train-ofa", cls=StageCommand, resumable=False,
              epilog=_epilog("train-ofa --out ofa/ --steps 200"))  # fmt: skip
@_training_options(steps=1100, batch_size=48)
@click.option("--init", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Go on from this model instead of random weights.")  # fmt: skip
def train_ofa_command(out: Path, **given: Any) -> None:
    """Train the tiny OFA that captions the demo's middle frames."""
    from clipvip.experiments.demo.train_ofa import train_ofa

    train_ofa(out, **_ready(**given))
    click.echo(f"model: {out}")


if __name__ == "__main__":
    main()
