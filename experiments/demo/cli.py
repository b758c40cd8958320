"""The command `clipvip-demo`: make the demo's corpus, train its models, run every stage on them."""

import os
from functools import partial
from pathlib import Path

import click

from clipvip import __version__
from clipvip.experiments.demo.world import World
from clipvip.pipeline.runtime.errors import StageCommand, StageGroup
from clipvip.shards.files.atomic import atomic_write_bytes

_THREADS = 2
# How each ends its --help, by its name.
_EXAMPLES = {
    "": "clipvip-demo run",
    "run": "clipvip-demo run --out demo-out --workers 2",
    "corpus": "clipvip-demo corpus --out corpus/ --videos 20 --test-videos 5",
    "models": "clipvip-demo models --out models/",
    "train-clip": "clipvip-demo train-clip --out clip/ --steps 200",
    "train-ofa": "clipvip-demo train-ofa --out ofa/ --steps 200",
}


def _epilog(name: str) -> str:
    return f"\b\nExamples:\n  {_EXAMPLES[name]}"


@click.group(cls=StageGroup, epilog=_epilog(""))
@click.version_option(__version__, package_name="clipvip")
def main() -> None:
    """The whole pipeline on a small made-up world, on any machine."""


_seed_option = click.option(
    "--seed", type=click.IntRange(min=0), default=World().seed, show_default=True, help="Seed of the world."
)
_steps = partial(
    click.option, "--steps", type=click.IntRange(min=1), show_default=True, help="Training steps."
)
_batch_size = partial(
    click.option, "--batch-size", type=click.IntRange(min=2), show_default=True, help="Frames at once."
)
_learning_rate_option = click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    default=1e-3,
    show_default=True,
    help="Of AdamW, at its highest.",
)


@main.command("run", cls=StageCommand, epilog=_epilog("run"))
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo-out"),
    show_default=True,
    help="Folder for everything.",
)
@click.option(
    "--workers", type=click.IntRange(min=1), show_default="one per core, 4 at most", help="Processes."
)
@click.option("--quick", is_flag=True, help="A smaller corpus and fewer steps.")
def run_command(out: Path, workers: int | None, quick: bool) -> None:
    """Run every stage on the embedded corpus, from videos to retrieval, and write a page about it.

    Run it again after an interruption: it goes on from there.
    """
    from clipvip.experiments.demo.run import run_demo

    run_demo(out, workers=workers or min(4, os.cpu_count() or 1), quick=quick)


@main.command("corpus", cls=StageCommand, epilog=_epilog("corpus"))
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for the corpus."
)
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Processes.")
@click.option("--videos", type=click.IntRange(min=1), default=World().num_train_videos, show_default=True,
              help="Videos to train on.")  # fmt: skip
@click.option("--test-videos", type=click.IntRange(min=1), default=World().num_test_videos, show_default=True,
              help="Videos to test with.")  # fmt: skip
@_seed_option
def corpus_command(out: Path, workers: int, videos: int, test_videos: int, seed: int) -> None:
    """Write the corpus alone: videos, subtitles and clip lists as HD-VILA-100M has them."""
    from clipvip.experiments.demo.run import make_corpus

    world = World(seed=seed, num_train_videos=videos, num_test_videos=test_videos)
    make_corpus(world, out, workers=workers)


@main.command("models", cls=StageCommand, resumable=False, epilog=_epilog("models"))
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for both models."
)
def models_command(out: Path) -> None:
    """Copy the demo's tiny CLIP and OFA to OUT/clip and OUT/ofa, to try commands with."""
    from clipvip.experiments.demo.world import WEIGHTS

    for name in ("clip", "ofa"):
        (out / name).mkdir(parents=True, exist_ok=True)
        for file in sorted((WEIGHTS / name).iterdir()):
            atomic_write_bytes(out / name / file.name, file.read_bytes())
    click.echo(f"{out / 'clip'} and {out / 'ofa'}")


@main.command("train-clip", cls=StageCommand, resumable=False, epilog=_epilog("train-clip"))
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for the model."
)
@_steps(default=800)
@_batch_size(default=160)
@click.option("--pictures", type=click.IntRange(min=2), default=8000, show_default=True, help="Frames drawn.")
@_learning_rate_option
@_seed_option
def train_clip_command(
    out: Path, steps: int, batch_size: int, pictures: int, learning_rate: float, seed: int
) -> None:
    """Train the tiny CLIP that the demo starts from: single frames, labels without motion."""
    import torch

    from clipvip.experiments.demo.train_clip import train_clip

    torch.set_num_threads(min(_THREADS, os.cpu_count() or 1))
    accuracy = train_clip(
        out,
        world=World(seed=seed),
        steps=steps,
        batch_size=min(batch_size, pictures),
        num_pictures=pictures,
        learning_rate=learning_rate,
    )
    click.echo(f"{accuracy:.1%} of held-out frames find their label among 100. Written to {out}")


@main.command("train-ofa", cls=StageCommand, resumable=False, epilog=_epilog("train-ofa"))
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for the model."
)
@_steps(default=1100)
@_batch_size(default=48)
@click.option("--pictures", type=click.IntRange(min=2), default=8000, show_default=True, help="Frames drawn.")
@_learning_rate_option
@_seed_option
@click.option(
    "--init",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Go on from this model instead of random weights.",
)
def train_ofa_command(
    out: Path,
    steps: int,
    batch_size: int,
    pictures: int,
    learning_rate: float,
    seed: int,
    init: Path | None,
) -> None:
    """Train the tiny OFA that captions the demo's middle frames."""
    import torch

    from clipvip.experiments.demo.train_ofa import train_ofa

    torch.set_num_threads(min(_THREADS, os.cpu_count() or 1))
    train_ofa(
        out,
        world=World(seed=seed),
        steps=steps,
        batch_size=min(batch_size, pictures),
        num_pictures=pictures,
        learning_rate=learning_rate,
        init=init,
    )
    click.echo(f"Written to {out}")


if __name__ == "__main__":
    main()
