"""The options that merge, split and subset have in common."""

from collections.abc import Callable
from typing import Any

import click


def copying_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --workers, --check/--no-check and --dry-run to a command."""
    decorators = [
        click.option(
            "--workers", type=click.IntRange(min=1), default=None, help="Processes; default: one per core."
        ),
        click.option(
            "--check/--no-check",
            default=True,
            show_default=True,
            help="Compare each input shard with its manifest's checksum first, which reads all of it.",
        ),
        click.option("--dry-run", is_flag=True, help="Say how many clips would be taken, and write nothing."),
    ]
    for decorator in reversed(decorators):
        function = decorator(function)
    return function
