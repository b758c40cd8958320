"""The command `clipvip-demo`: make the demo's corpus, train its models, run every stage on them."""

import os
from pathlib import Path

import click

from clipvip import __version__
from clipvip.pipeline.demo.world import World
from clipvip.pipeline.runtime.errors import StageCommand

_THREADS = 2


@click.group()
@click.version_option(__version__, package_name="clipvip")
def main() -> None:
    """The whole pipeline on a small made-up world, on any machine."""


@main.command("train-clip", cls=StageCommand)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Model folder.")
@click.option("--steps", type=click.IntRange(min=1), default=700, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=2), default=160, show_default=True)
@click.option("--pictures", type=click.IntRange(min=2), default=8000, show_default=True, help="Frames drawn.")
@click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True), default=1e-3, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=World().seed, show_default=True)
def train_clip_command(
    out: Path, steps: int, batch_size: int, pictures: int, learning_rate: float, seed: int
) -> None:
    """Train the tiny CLIP that the demo starts from: single frames, labels without motion."""
    import torch

    from clipvip.pipeline.demo.train_clip import train_clip

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


@main.command("train-ofa", cls=StageCommand)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Model folder.")
@click.option("--steps", type=click.IntRange(min=1), default=1100, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=2), default=48, show_default=True)
@click.option("--pictures", type=click.IntRange(min=2), default=8000, show_default=True, help="Frames drawn.")
@click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True), default=1e-3, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=World().seed, show_default=True)
def train_ofa_command(
    out: Path, steps: int, batch_size: int, pictures: int, learning_rate: float, seed: int
) -> None:
    """Train the tiny OFA that captions the demo's middle frames."""
    import torch

    from clipvip.pipeline.demo.train_ofa import train_ofa

    torch.set_num_threads(min(_THREADS, os.cpu_count() or 1))
    train_ofa(
        out,
        world=World(seed=seed),
        steps=steps,
        batch_size=min(batch_size, pictures),
        num_pictures=pictures,
        learning_rate=learning_rate,
    )
    click.echo(f"Written to {out}")


if __name__ == "__main__":
    main()
