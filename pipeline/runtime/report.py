"""The summary that every stage ends with: on the terminal, and as report.json beside its output."""

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from clipvip.shards.errors import Skip
from clipvip.shards.files.atomic import write_json, write_jsonl
from clipvip.shards.files.claims import REPORT_NAME, SKIPPED_NAME
from clipvip.shards.files.stores import Location

_MAX_EXAMPLES = 5


@dataclass
class SkipTally:
    """Skips counted by reason, with the first few of each."""

    total: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[dict[str, str]]] = field(default_factory=dict)

    def counting(self, skips: Iterable[Skip]) -> Iterator[Skip]:
        """Pass skips on, and count them."""
        for skip in skips:
            self.total += 1
            self.reasons[skip.reason] += 1
            examples = self.examples.setdefault(skip.reason, [])
            if len(examples) < _MAX_EXAMPLES:
                examples.append(skip.as_dict())
            yield skip


def counted(number: float, what: str) -> str:
    """A number with what there is so many of, of which `what` is the plural.

    >>> counted(1, "clips without subtitle"), counted(1200, "shards"), counted(1, "empty texts")
    ('1 clip without subtitle', '1,200 shards', '1 empty text')
    """
    return f"{number:,} {singular(what) if number == 1 else what}"


def singular(what: str) -> str:
    """One of what there may be several of.

    >>> singular("clips without subtitle"), singular("classes"), singular("empty texts")
    ('clip without subtitle', 'class', 'empty text')
    """
    words = what.split(" ")
    place = next((n for n, word in enumerate(words) if word.endswith("s") and word[-2:] != "ss"), None)
    if place is not None:
        word = words[place]
        words[place] = word.removesuffix("es") if word.endswith("sses") else word.removesuffix("s")
    return " ".join(words)


def duration(seconds: float) -> str:
    """A length of time in the unit that fits it.

    >>> duration(1), duration(36.4), duration(754), duration(3600), duration(123_456)
    ('1 second', '36 seconds', '12.6 minutes', '1 hour', '34.3 hours')
    """
    for size, unit in ((3600, "hours"), (60, "minutes")):
        if seconds >= size:
            number = round(seconds / size, 1)
            return counted(int(number) if number.is_integer() else number, unit)
    return counted(round(seconds), "seconds")


def planned(begin: str, todo: int, total: int, what: str, out: object) -> str:
    """What --dry-run says of `todo` of `total`, the others being done.

    >>> print(planned("caption: would caption", 2, 2, "shards", "out"))
    caption: would caption 2 shards -> out
    >>> print(planned("caption: would caption", 1, 2, "shards", "out"))
    caption: would caption 1 of 2 shards -> out; the rest is done
    >>> print(planned("caption: would caption", 0, 2, "shards", "out"))
    caption: would caption 0 of 2 shards -> out; all is done
    """
    if todo == total:
        return f"{begin} {counted(total, what)} -> {out}"
    return f"{begin} {todo:,} of {counted(total, what)} -> {out}; {'the rest' if todo else 'all'} is done"


def most_first(counts: Counter[str]) -> dict[str, int]:
    """The counts, the most frequent first, equal ones by name."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


@dataclass(frozen=True, kw_only=True)
class StageReport:
    """What a stage did. `content` is what its report.json holds, `text` what its command prints.

    A `note` on what to do next comes after the text; with --json it goes to standard error.
    """

    content: dict[str, Any]
    text: str = field(repr=False)
    note: str = field(default="", repr=False)

    @property
    def counts(self) -> dict[str, int]:
        """How many of what there are in the whole output, also of earlier runs; empty where none are."""
        counts: dict[str, int] = self.content.get("counts", {})
        return counts

    def __str__(self) -> str:
        return f"{self.text}\n{self.note}" if self.note else self.text


@dataclass
class Report:
    """What a stage did: counts, and what it skipped by reason.

    `counts` are totals over the whole output, also what earlier runs made. `details` is stage specific.
    `skips` may be more than memory holds: they are gone through once, when they are written or asked about.
    `words` says on the terminal what a count would say badly, "" that it is not said.
    """

    stage: str
    options: Mapping[str, object]
    counts: dict[str, int | float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    skips: Iterable[Skip] = field(default_factory=list)
    words: Mapping[str, str] = field(default_factory=dict)
    _tally: SkipTally | None = field(default=None, init=False, repr=False)

    @property
    def tally(self) -> SkipTally:
        """The skips, counted."""
        if self._tally is None:
            self._tally = SkipTally()
            deque(self._tally.counting(self.skips), maxlen=0)
        return self._tally

    def skipped_by_reason(self) -> dict[str, int]:
        """Reason -> count, the most frequent first."""
        return most_first(self.tally.reasons)

    def write(self, folder: Location, *, seconds: float, done_now: int, unit: str) -> dict[str, Any]:
        """Write report.json and skipped.jsonl into `folder`; what report.json holds.

        report.json is the one file of an output that differs from run to run.
        """
        tally = SkipTally()
        write_jsonl(folder / SKIPPED_NAME, (skip.as_dict() for skip in tally.counting(self.skips)))
        self._tally = tally
        content = self.content(seconds=seconds, done_now=done_now, unit=unit)
        write_json(folder / REPORT_NAME, content)
        return content

    def finish(self, folder: Location, *, started: float, done_now: int, unit: str) -> StageReport:
        """`write`, as what the stage returns; `started` is when it did, by `time.monotonic`."""
        content = self.write(folder, seconds=time.monotonic() - started, done_now=done_now, unit=unit)
        return StageReport(content=content, text=self.summary(folder))

    def content(self, *, seconds: float, done_now: int, unit: str) -> dict[str, Any]:
        """What report.json holds: `seconds` and `done_now` are this run's time and number of `unit`s."""
        return {
            "stage": self.stage,
            "options": dict(self.options),
            "counts": self.counts,
            "skipped": self.tally.total,
            "skipped_by_reason": {
                reason: {"count": count, "examples": self.tally.examples[reason]}
                for reason, count in self.skipped_by_reason().items()
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
        told = (
            self.words.get(name, counted(value, name.replace("_", " ")))
            for name, value in self.counts.items()
        )
        text = f"{self.stage}: {', '.join(filter(None, told))} -> {folder}"
        if self.tally.total:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in self.skipped_by_reason().items())
            text += f"\n  skipped {self.tally.total:,}: {reasons} (all in {folder / SKIPPED_NAME})"
        return text
