"""What the runs of a study found: each row over its seeds, and what becomes of the paper's claims.

A claim's verdict is a rule of intervals, the same for all. All of it is written to results.json, and read
from there.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from clipvip.analysis.seeds import Estimate, are_apart, difference, estimate
from clipvip.experiments.study.plan import (
    StudyRun,
    between_folder,
    chosen_studies,
    resolved,
    rows_of,
    seed_folder,
)
from clipvip.experiments.study.rows import Claim, Metric, Paper, Row, Study, TaskName
from clipvip.experiments.study.tables import RESCORED, ZERO_SHOT
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.tools.interpolate import RESULT_NAME

RECALLS = ("r1", "r5", "r10", "mean_recall")
# Of Tables 5 and 6: what the dual softmax adds to R@1 of B/32.
_DSL_PAPER = {"first": "+5.8", "motion": "+5.2", "encoders": ""}
Verdict = Literal["apart", "ahead", "open", "behind", "one seed"]
VERDICTS: dict[Verdict, str] = {
    "apart": "comes out: the intervals do not overlap",
    "ahead": "comes out within seeds: the intervals overlap, that of the paired difference is above zero",
    "open": "open: the interval of the difference holds zero",
    "behind": "the other way round: the interval of the difference is below zero",
    "one seed": "one seed, no interval",
}


@dataclass(frozen=True, slots=True)
class Summary:
    """Values over the seeds, their mean and the ends of its interval (None with one seed)."""

    values: tuple[float, ...]
    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class FoundTable:
    """Numbers of rows by columns, those of the paper (plain numbers) among them."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Summary | float | None, ...]], ...]
    digits: int = 1


@dataclass(frozen=True, slots=True)
class FoundClaim:
    """What became of a claim: the difference over the seeds, in points, and what the paper says."""

    text: str
    where: str
    difference: Summary
    verdict: Verdict
    paper: str


@dataclass(frozen=True, slots=True)
class Curve:
    """A line of a figure: steps, and a number at each."""

    name: str
    steps: tuple[float, ...]
    values: tuple[Summary, ...]


@dataclass(frozen=True, slots=True)
class FoundStudy:
    """All that a study found."""

    name: str
    title: str
    tables: tuple[FoundTable, ...]
    claims: tuple[FoundClaim, ...]
    curves: tuple[Curve, ...] = ()


Point = dict[str, float]
T = TypeVar("T")


def read_results(study: StudyRun) -> list[FoundStudy]:
    """The results of all chosen studies, in the paper's order.

    Raises:
        UserError: what a run wrote cannot be read.
    """
    found = [gap_result(study.seeds, out=study.out)] if "domain-gap" in study.names else []
    found += [study_result(one, study) for one in chosen_studies(study.names)]
    return [*found, *(protocols(study) if "protocols" in study.names else [])]


def study_result(study: Study, run: StudyRun) -> FoundStudy:
    """A table of the study for each task, and its claims."""
    data = run.data_of(run.seeds[0])
    rows = rows_of(study, data)
    curves = {
        (row.label, task): [_validations(row, task, seed, run.out) for seed in run.seeds]
        for row in rows
        for task in row.tasks
    }
    tables = []
    for task in dict.fromkeys(task for row in rows for task in row.tasks):
        # Without a second task two rows may be one run: it is listed once, under its first label.
        listed = {(row.name, row.alpha): row for row in reversed(rows) if task in row.tasks}
        some = [row for row in rows if listed.get((row.name, row.alpha)) is row]
        tables.append(_task_table(task, data.title(task), some, curves))
    by_label = {row.label: row for row in rows}
    claims = []
    for claim in study.claims:
        if claim.better in by_label and claim.worse in by_label:
            task = data.resolve(claim.on)
            pair = [by_label[label] for label in (claim.better, claim.worse)]
            values = [_values(curves[row.label, task], claim.metric, claim.measure) for row in pair]
            paper = claim.paper if claim.metric == "zero_shot" else _paper_says(claim, *pair)
            where = data.title(task) + (", zero-shot" if claim.metric == "zero_shot" else "")
            where += ", mean recall" if claim.measure == "mean_recall" else ""
            claims.append(judged(claim.text, where, *values, paper=paper))
    return FoundStudy(study.name, study.title, tuple(tables), tuple(claims), _figure(study, rows, curves))


def _task_table(
    task: TaskName, title: str, rows: Iterable[Row], curves: dict[tuple[str, TaskName], list[list[Point]]]
) -> FoundTable:
    columns = ("zero-shot R@1", "fine-tuned R@1", "R@5", "R@10", "mean", "paper: R@1", "paper: mean")
    lines = []
    for row in rows:
        runs = curves[row.label, task]
        paper = _paper(row, task)
        cells: list[Summary | float | None] = [summary(_values(runs, "zero_shot"))]
        cells += [summary(_values(runs, "finetuned", name)) for name in RECALLS]
        lines.append((row.label, (*cells, paper.r1, paper.mean)))
    return FoundTable(title, columns, tuple(lines))


def _paper(row: Row, task: TaskName) -> Paper:
    return row.didemo if task == "motion" else row.paper


def _paper_says(claim: Claim, better: Row, worse: Row) -> str:
    """The difference that the paper printed, of R@1 or else of means, or what the claim says of it."""
    for papers in ((better.didemo, worse.didemo), (better.paper, worse.paper)):
        if papers[0] == Paper() or (papers[0] is better.didemo and claim.on != "motion"):
            continue
        for name in ("r1", "mean") if claim.measure == "r1" else ("mean",):
            high, low = (getattr(paper, name) for paper in papers)
            if high is not None and low is not None:
                return f"{high - low:+.1f}"
    return claim.paper


def _figure(
    study: Study, rows: Sequence[Row], curves: dict[tuple[str, TaskName], list[list[Point]]]
) -> tuple[Curve, ...]:
    """Fig. 1's lines for `scale`, the way through fine-tuning for `encoders`; else none."""
    if study.name == "encoders":
        task = rows[0].tasks[0]
        return tuple(
            Curve(
                row.label,
                tuple(point["step"] for point in curves[row.label, task][0]),
                tuple(
                    summary([100 * run[place]["r1"] for run in curves[row.label, task]])
                    for place in range(len(curves[row.label, task][0]))
                ),
            )
            for row in rows
        )
    if study.name != "scale":
        return ()
    start, *others = rows

    def mean_of(row: Row) -> Summary:
        return summary(_values(curves[row.label, "first"], "finetuned", "mean_recall"))

    lines: dict[str, list[tuple[float, Summary]]] = {}
    for row in others:
        label = row.label.split(", half")[0]
        lines.setdefault(label, [(0.0, mean_of(start))]).append((100 * row.at, mean_of(row)))
    return tuple(
        Curve(name, tuple(x for x, _ in points), tuple(y for _, y in points))
        for name, points in lines.items()
    )


def _values(runs: list[list[Point]], metric: Metric, name: str = "r1") -> list[float]:
    """A recall over the seeds, in percent."""
    return [100 * points[0 if metric == "zero_shot" else -1][name] for points in runs]


def judged(text: str, where: str, better: list[float], worse: list[float], *, paper: str) -> FoundClaim:
    """The claim with the difference over the seeds, paired, and the verdict."""
    found = difference(better, worse)
    return FoundClaim(
        text,
        where,
        summary([a - b for a, b in zip(better, worse, strict=True)]),
        verdict(estimate(better), estimate(worse), found),
        paper,
    )


def verdict(better: Estimate, worse: Estimate, found: Estimate) -> Verdict:
    """One of `VERDICTS`."""
    if found.low is None or found.high is None:
        return "one seed"
    if are_apart(better, worse):
        return "apart"
    if found.low > 0:
        return "ahead"
    return "behind" if found.high < 0 else "open"


def summary(values: Sequence[float]) -> Summary:
    """Values over the seeds with the interval of their mean."""
    found = estimate(values)
    return Summary(tuple(values), found.mean, found.low, found.high)


def gap_result(seeds: Sequence[int], *, out: Path) -> FoundStudy:
    """Table 1: the NMI of each pair of corpora over the seeds, in hundredths; each seed's is the mean of its
    draws.
    """
    found: dict[tuple[str, str], list[float]] = {}
    for seed in seeds:
        path = seed_folder(out, seed) / "nmi" / "nmi.json"
        for gap in _read(path, lambda text: json.loads(text)["gaps"]):
            found.setdefault((gap["source"], gap["target"]), []).append(100 * float(gap["mean"]))
    papers = {"subtitles": 75.8, "captions": 46.9}
    claims = tuple(
        judged(
            f"captions are nearer to {target}",
            "NMI, hundredths",
            found["subtitles", target],
            found["captions", target],
            paper=f"{papers['subtitles'] - papers['captions']:+.1f}",
        )
        for target in dict.fromkeys(target for _, target in found)
    )
    rows = tuple(
        (f"{source} to {target}", (summary(values), papers.get(source)))
        for (source, target), values in found.items()
    )
    columns = ("NMI, hundredths", "paper: mean of MSR-VTT and DiDeMo")
    title = "Table 1: normalised mutual information"
    return FoundStudy("domain-gap", title, (FoundTable("", columns, rows),), claims)


def protocols(run: StudyRun) -> list[FoundStudy]:
    """Tables 5 to 7: what rescoring gives, and what models without a task answer."""
    data = run.data_of(run.seeds[0])
    tables, claims = [], []
    rows: list[tuple[str, tuple[Summary | float | None, ...]]] = []
    for row in (resolved(row, data) for row in RESCORED):
        for task in row.tasks:
            plain: list[float] = []
            dsl: list[float] = []
            for seed in run.seeds:
                path = seed_folder(run.out, seed) / "rescored" / row.run_name(task) / "retrieval.json"
                metrics = _read(path, lambda text: json.loads(text)["metrics"])
                for values, name in ((plain, "plain"), (dsl, "dsl")):
                    values.append(100 * metrics[name]["text_to_video"]["r1"])
            rows.append((f"{row.label}, {data.title(task)}", (summary(plain), summary(dsl))))
            if row.pretraining is not None:
                text = "the dual softmax finds more"
                claims.append(judged(text, data.title(task), dsl, plain, paper=_DSL_PAPER[task]))
    tables.append(FoundTable("Tables 5 and 6: fine-tuned R@1", ("plain", "dual softmax"), tuple(rows)))
    if data.questions is not None or data.classes is not None:
        table, more = _zero_shot(run)
        tables.append(table)
        claims += more
    title = "Tables 5 to 7: rescoring, multiple choice, actions"
    return [FoundStudy("protocols", title, tuple(tables), tuple(claims))]


def _zero_shot(run: StudyRun) -> tuple[FoundTable, list[FoundClaim]]:
    data = run.data_of(run.seeds[0])
    asked = [
        (name, folder, field)
        for name, folder, field, given in (
            ("actions", "actions", "top1", data.classes),
            ("multiple choice", "multiple-choice", "accuracy", data.questions),
        )
        if given is not None
    ]
    found: dict[tuple[str, str], list[float]] = {}
    rows = []
    for row, hmdb, choice in ZERO_SHOT:
        cells: list[Summary | float | None] = []
        for name, folder, field in asked:
            for seed in run.seeds:
                place = seed_folder(run.out, seed) / folder / resolved(row, data).name
                path = place / f"{folder.replace('-', '_')}.json"
                value = 100 * float(_read(path, json.loads)[field])
                found.setdefault((row.label, name), []).append(value)
            cells += [summary(found[row.label, name]), hmdb if name == "actions" else choice]
        rows.append((row.label, tuple(cells)))
    columns = tuple(part for name, *_ in asked for part in (name, "paper"))
    claims = []
    _, (none, *of_none), _, (full, *of_full) = ZERO_SHOT
    for name, *_ in asked:
        paper = of_full[name != "actions"] - of_none[name != "actions"]
        pair = (found[full.label, name], found[none.label, name])
        text = "(d) beats no post-pretraining"
        claims.append(judged(text, name, *pair, paper=f"{paper:+.1f}"))
    return FoundTable("Table 7: zero-shot accuracy", columns, tuple(rows)), claims


def _validations(row: Row, task: TaskName, seed: int, out: Path) -> list[Point]:
    folder = seed_folder(out, seed)
    path = folder / "finetune" / row.run_name(task) / "validation.jsonl"
    points: list[Point] = _read(path, lambda text: [json.loads(line) for line in text.splitlines()])
    if row.alpha < 1:
        path = between_folder(folder, row, task) / RESULT_NAME
        (between,) = _read(path, lambda text: json.loads(text)["points"])
        points = [points[0], between["text_to_video"]]
    return points


def _read(path: Path, parse: Callable[[str], T]) -> T:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, KeyError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"damaged ({error})"
        raise UserError(f"{path}: {reason}; remove the study's 'finished' and run it again") from error
