"""The options that the commands of `clipvip-eval` have in common."""

from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import click

from clipvip.pipeline.evaluate.retrieval import DEFAULT_RESAMPLES
from clipvip.pipeline.runtime.options import (
    LocalName,
    batch_size_option,
    device_option,
    json_option,
    max_pixels_option,
)

Function = Callable[..., Any]


def clips_options(function: Function) -> Function:
    """Add --model and --shards to a command."""
    return _add(
        function,
        click.option(
            "--model",
            "model_name",
            required=True,
            type=LocalName(),
            metavar="FOLDER",
            help="A CLIP-ViP model.",
        ),
        click.option("--shards", required=True, type=click.Path(path_type=Path), help="Folder of shards."),
    )


def encoding_options(function: Function) -> Function:
    """Add --num-frames, --max-text-tokens, --batch-size, --max-pixels and --device to a command."""
    return _add(
        function,
        click.option(
            "--num-frames",
            type=click.IntRange(min=1),
            show_default="as the model was trained",
            help="Frames per clip that are encoded.",
        ),
        click.option(
            "--max-text-tokens",
            type=click.IntRange(min=3),
            show_default="as the model was trained",
            help="Tokens that texts are cut to.",
        ),
        batch_size_option("Clips", default=16),
        max_pixels_option,
        device_option,
    )


def measuring_options(result_name: str) -> Callable[[Function], Function]:
    """Add --out, --bootstrap, the options of `encoding_options` and --json to a command.

    `result_name` is the file that it writes.
    """

    def add(function: Function) -> Function:
        return _add(
            function,
            click.option(
                "--out",
                type=click.Path(file_okay=False, path_type=Path),
                show_default="none is written",
                help=f"Folder for {result_name} and report.json.",
            ),
            click.option(
                "--bootstrap",
                "resamples",
                type=click.IntRange(min=0),
                default=DEFAULT_RESAMPLES,
                show_default=True,
                help="Resamples for the 95% intervals; 0: none.",
            ),
            encoding_options,
            json_option,
        )

    return add


def _add(function: Function, *decorators: Callable[[Function], Function]) -> Function:
    return reduce(lambda made, decorate: decorate(made), reversed(decorators), function)
