"""A small recipe, and `clipvip-train` with it."""

from pathlib import Path

from click.testing import Result

import commands
from clipvip.pipeline.train.command import main

NUM_STEPS = 40
RECIPE = f"""
data: {{num_frames: 3, max_text_tokens: 20}}
optim: {{batch_size: 6, steps: {NUM_STEPS}, learning_rate: 1e-3, warmup_fraction: 0.1}}
run: {{workers: 0, device: cpu, log_every_steps: 1, save_every_steps: 7, tensorboard: false}}
"""


def arguments(world: Path, out: Path, *more: str) -> list[str]:
    # Captions add up, where of other options the last counts.
    captions = [] if "--captions" in more else ["--captions", str(world / "captions")]
    return [
        str(world / "recipe.yaml"),
        *("--shards", str(world / "clips"), *captions),
        *("--init", str(world / "clip"), "--out", str(out), *more),
    ]


def run(world: Path, out: Path, *more: str) -> Result:
    """The command in this process; later options win."""
    return commands.run(*arguments(world, out, *more), program=main)
