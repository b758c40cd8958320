"""The summary that every stage ends with: on the terminal, and as report.json beside its output."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from clipvip.shards.atomic import write_json, write_jsonl
from clipvip.shards.object_store import Location
from clipvip.shards.skips import Skip

REPORT_NAME = "report.json"
SKIPPED_NAME = "skipped.jsonl"
_MAX_EXAMPLES = 5


@dataclass
class Report:
    """What a stage did: counts, and what it skipped by reason.

    `counts` are totals over the whole output, also what earlier runs made. `details` is stage specific.
    """

    stage: str
    options: dict[str, Any]
    counts: dict[str, int | float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    skips: list[Skip] = field(default_factory=list)

    def skipped_by_reason(self) -> dict[str, int]:
        """Reason -> count, the most frequent first."""
        counter = Counter(skip.reason for skip in self.skips)
        return dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))

    def write(self, folder: Location, *, seconds: float, done_now: int, unit: str) -> dict[str, Any]:
        """Write report.json and skipped.jsonl into `folder`; what report.json holds.

        report.json is the one file of an output that differs from run to run.
        """
        content = self.content(seconds=seconds, done_now=done_now, unit=unit)
        write_jsonl(folder / SKIPPED_NAME, [skip.as_dict() for skip in self.skips])
        write_json(folder / REPORT_NAME, content)
        return content

    def content(self, *, seconds: float, done_now: int, unit: str) -> dict[str, Any]:
        """What report.json holds: `seconds` and `done_now` are this run's time and how many `unit` it made."""
        by_reason = self.skipped_by_reason()
        return {
            "stage": self.stage,
            "options": self.options,
            "counts": self.counts,
            "skipped": len(self.skips),
            "skipped_by_reason": {
                reason: {
                    "count": count,
                    "examples": [s.as_dict() for s in self.skips if s.reason == reason][:_MAX_EXAMPLES],
                }
                for reason, count in by_reason.items()
            },
            **self.details,
            "this_run": {
                "seconds": round(seconds, 3),
                unit: done_now,
                f"{unit}_per_second": round(done_now / seconds, 3) if seconds > 0 else None,
            },
        }

    def summary(self, folder: Location) -> str:
        """A few lines for the terminal."""
        counts = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in self.counts.items())
        lines = [f"{self.stage}: {counts} -> {folder}"]
        if self.skips:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in self.skipped_by_reason().items())
            lines.append(f"  skipped {len(self.skips):,}: {reasons} (all in {folder / SKIPPED_NAME})")
        return "\n".join(lines)
