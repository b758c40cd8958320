"""The options that merge, split and subset have in common."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from clipvip.pipeline.runtime.options import dry_run_option, json_option, workers_option


def copying_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --workers, --check/--no-check, --json and --dry-run to a command."""
    decorators = [
        workers_option,
        click.option(
            "--check/--no-check",
            default=True,
            show_default=True,
            help="Compare each input shard with its manifest's checksum first, which reads all of it.",
        ),
        json_option,
        dry_run_option("how many clips would be taken"),
    ]
    for decorator in reversed(decorators):
        function = decorator(function)
    return function


def require_captions_pair(*, given: bool, out: Path | None) -> None:
    """Refuse --captions without --captions-out, and the other way round."""
    if given != (out is not None):
        raise click.UsageError("--captions and --captions-out go together")
