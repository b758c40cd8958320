"""How the tests of a model that answer questions about clips end: lines on the terminal, and files where asked for."""

import time
from pathlib import Path
from typing import Any

import click

from clipvip.pipeline.runtime.report import Report
from clipvip.shards.atomic import write_json
from clipvip.shards.skips import Skip


def finish(
    report: Report,
    result: dict[str, Any],
    *,
    out: Path | None,
    name: str,
    started: float,
    done: int,
    unit: str,
) -> None:
    """Tell what was passed over; with `out` write `name`, the same whenever run again, and the report.

    `started` is when the command did, by `time.monotonic`; `done` counts the `unit` that `result` is about.
    """
    if report.skips:
        click.echo(f"passed over {len(report.skips):,}: {reasons(report.skips)}")
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    content = {"schema": 1, "stage": report.stage, "options": report.options, **result}
    write_json(out / name, {**content, "skipped": report.skipped_by_reason()})
    report.details = {"result": result}
    report.write(out, seconds=time.monotonic() - started, done_now=done, unit=unit)
    click.echo(report.summary(out))


def reasons(skips: list[Skip]) -> str:
    """How many of each reason, on one line."""
    counts = Report("", {}, skips=skips).skipped_by_reason()
    return ", ".join(f"{reason} {count:,}" for reason, count in counts.items())
