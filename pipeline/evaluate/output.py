"""How the tests of a model end: lines for the terminal, and files where asked for."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from clipvip.pipeline.evaluate.baselines import Figures, comparison, score_page
from clipvip.pipeline.runtime.report import Report, StageReport, counted
from clipvip.shards.errors import Skip
from clipvip.shards.files.atomic import atomic_write_bytes, write_json
from clipvip.shards.files.places import make_folder
from clipvip.shards.files.stores import Location


@dataclass(frozen=True)
class Output:
    """Where the result of a test goes: `name` in the folder `out`, and a page of the `figures` compared."""

    name: str
    out: Location | None
    page: Location | None
    figures: Figures | None = None


def finish(
    report: Report, result: dict[str, Any], table: str, *, output: Output, started: float
) -> StageReport:
    """The report with `result` (as JSON has it) in it, and `table` with what was skipped as its text.

    Baselines in the result are shown beside the model. With a folder write `name`, the same whenever run
    again, and the report. `started` is by `time.monotonic`; `result` is about what the first of the report's
    counts counts.
    """
    unit, done = next(iter(report.counts.items()))
    out, model = output.out, str(report.options.get("model", ""))
    report.details = {"result": result}
    skipped = f"\nskipped {report.tally.total:,}: {reasons(report.skips)}" if report.tally.total else ""
    if output.page is not None and output.figures is not None:
        title = f"{report.stage}: {report.options['shards']}"
        atomic_write_bytes(output.page, score_page(title, model, result, output.figures, table + skipped))
    if result.get("baselines") and output.figures is not None:
        table += f"\n\n{comparison(model, result, output.figures).text()}"
    if out is None:
        content = report.content(seconds=time.monotonic() - started, done_now=int(done), unit=unit)
        return StageReport(content=content, text=table + skipped)
    make_folder(out)
    head = {"schema": 1, "stage": report.stage, "options": report.options}
    write_json(out / output.name, {**head, **result, "skipped": report.skipped_by_reason()})
    written = report.finish(out, started=started, done_now=int(done), unit=unit)
    return StageReport(content=written.content, text=f"{table}\n{written.text}")


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The base of what the tests tell."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it, without what is None."""
        return asdict(self, dict_factory=lambda fields: {n: v for n, v in fields if v is not None})


def why_none(skips: Sequence[Skip]) -> str:
    """How many clips there are of which none can be used, and why, on one line."""
    first = "".join(f"; {skip.what}: {skip.detail}" for skip in skips[:1] if skip.detail)
    help_ = ""
    if skips and all(skip.reason == "empty_text" for skip in skips):
        help_ = "; give --captions DIR, or shards with subtitles"
    return f"none of {counted(len(skips), 'clips')} can be used: {reasons(skips)}{first}{help_}"


def reasons(skips: Iterable[Skip]) -> str:
    """How many of each reason, on one line."""
    counts = Report("", {}, skips=skips).skipped_by_reason()
    return ", ".join(f"{reason} {count:,}" for reason, count in counts.items())


def interval_note(ends: Sequence[float] | None) -> str:
    """The two ends of a 95% interval in percent, as the last cell of a table; nothing without them."""
    return f"   (95% interval {100 * ends[0]:.1f} to {100 * ends[1]:.1f})" if ends else ""
