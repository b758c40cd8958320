"""How the tests of a model that answer questions about clips end: lines on the terminal, and files where asked for."""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from clipvip.pipeline.runtime.options import print_result
from clipvip.pipeline.runtime.report import Report
from clipvip.shards.errors import Skip
from clipvip.shards.files.atomic import write_json


def finish(
    report: Report,
    result: dict[str, Any],
    table: str,
    *,
    as_json: bool,
    out: Path | None,
    name: str,
    started: float,
    done: int,
    unit: str,
) -> None:
    """Print the result, as `table` or as the report; with `out` write `name`, the same whenever run again, and the report.

    `started` is when the command did, by `time.monotonic`; `done` counts the `unit` that `result` is about.
    """
    report.details = {"result": result}
    content = report.content(seconds=time.monotonic() - started, done_now=done, unit=unit)
    if report.tally.total:
        table += f"\npassed over {report.tally.total:,}: {reasons(report.skips)}"
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        head = {"schema": 1, "stage": report.stage, "options": report.options}
        write_json(out / name, {**head, **result, "skipped": report.skipped_by_reason()})
        content = report.write(out, seconds=time.monotonic() - started, done_now=done, unit=unit)
        table += f"\n{report.summary(out)}"
    print_result(content, table, as_json=as_json)


def why_none(skips: Sequence[Skip]) -> str:
    """How many clips there are of which none can be used, and why, on one line."""
    first = "".join(f"; {skip.what}: {skip.detail}" for skip in skips[:1] if skip.detail)
    return f"no clip can be used of {len(skips):,}: {reasons(skips)}{first}"


def reasons(skips: Iterable[Skip]) -> str:
    """How many of each reason, on one line."""
    counts = Report("", {}, skips=skips).skipped_by_reason()
    return ", ".join(f"{reason} {count:,}" for reason, count in counts.items())


def interval_note(ends: Sequence[float] | None) -> str:
    """The two ends of a 95% interval in percent, as the last cell of a table; nothing without them."""
    return f"   (95% interval {100 * ends[0]:.1f} to {100 * ends[1]:.1f})" if ends else ""
