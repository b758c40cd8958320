"""Records of what is wrong with shards, captions and their folders."""

from collections import Counter
from dataclasses import dataclass, field, replace

from pydantic import JsonValue

from clipvip.shards.files.stores import Location
from clipvip.shards.format.manifest import ShardRecord


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: its kind, the file by its name, the sample's key ("" for the whole file)."""

    kind: str
    file: str
    key: str = ""
    detail: str = ""


@dataclass
class Findings:
    """Problems, counted by kind, of which the first `max_listed` of each kind are kept."""

    max_listed: int = 100
    counts: Counter[str] = field(default_factory=Counter)
    listed: list[Problem] = field(default_factory=list)

    def add(self, problem: Problem) -> None:
        if self.counts[problem.kind] < self.max_listed:
            self.listed.append(problem)
        self.counts[problem.kind] += 1

    def add_all(self, other: "Findings") -> None:
        for problem in other.listed:
            self.add(problem)
        listed = Counter(problem.kind for problem in other.listed)
        self.counts.update({kind: count - listed[kind] for kind, count in other.counts.items()})

    def inside(self, folder: str) -> "Findings":
        """The same, of files that are told apart by their folder."""
        listed = [replace(problem, file=f"{folder}/{problem.file}") for problem in self.listed]
        return Findings(self.max_listed, self.counts.copy(), listed)


@dataclass
class FolderCheck:
    """What a folder should hold, and what is wrong with it.

    `records` are the files listed, in order, or where not `is_listed` those that are there, without checksum;
    `options` made them. `bad_marks` are the shards whose marks are damaged, `mark_counts` what the others say
    of frames and of clips without subtitle; `options_to_restore` is what `_state/options.json` must say.
    """

    folder: Location
    records: list[ShardRecord] = field(default_factory=list)
    is_listed: bool = True
    options: dict[str, JsonValue] | None = None
    findings: Findings = field(default_factory=Findings)
    notes: list[str] = field(default_factory=list)
    bad_marks: set[str] = field(default_factory=set)
    mark_counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    options_to_restore: dict[str, JsonValue] | None = None

    def problem(self, kind: str, name: str, detail: str) -> None:
        self.findings.add(Problem(kind, f"{self.folder.name}/{name}", "", detail))
