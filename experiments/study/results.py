"""What the runs of a study found: each row over its seeds, and what becomes of the paper's claims.

A claim's verdict is a rule of intervals, the same for all.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clipvip.analysis.seeds import Estimate, are_apart, difference, estimate
from clipvip.experiments.study.data import StudyData
from clipvip.experiments.study.plan import rows_of, seed_folder
from clipvip.experiments.study.rows import Claim, Row, Study
from clipvip.pipeline.runtime.errors import UserError

RECALLS = ("r1", "r5", "r10", "mean_recall")
# By what rows are compared. In a gallery of twins R@5 and R@10 are soon full.
_CRITERION = "r1"
VERDICTS = {
    "apart": "comes out: the intervals do not overlap",
    "ahead": "comes out within seeds: the intervals overlap, that of the paired difference is above zero",
    "open": "open: the interval of the difference holds zero",
    "behind": "the other way round: the interval of the difference is below zero",
    "one seed": "one seed, no interval",
}

Result = dict[str, Any]


def study_result(study: Study, seeds: Sequence[int], *, out: Path, data: StudyData) -> Result:
    """All rows of a study with their numbers in percent, and its claims."""
    rows = rows_of(study, data)
    # Without a task of motion two rows may be one run: it is listed once, under its first label.
    found: dict[str, Result] = {}
    for row in rows:
        if row.name not in found:
            found[row.name] = row_result(row, seeds, out=out)
    by_label = {row.label: found[row.name] for row in rows}
    claims = [
        claim_result(claim, by_label[claim.better], by_label[claim.worse])
        for claim in study.claims
        if claim.better in by_label and claim.worse in by_label
    ]
    return {"name": study.name, "title": study.title, "rows": list(found.values()), "claims": claims}


def row_result(row: Row, seeds: Sequence[int], *, out: Path) -> Result:
    """A row's recalls before and after fine-tuning, and on the way, over the seeds."""
    curves = [_curve(row, seed, out) for seed in seeds]

    def at(place: int, name: str) -> Result:
        return _summary([curve[place][name] for curve in curves])

    result: Result = {"label": row.label, "name": row.name, "motion": row.motion, "paper": asdict(row.paper)}
    for moment, place in (("zero_shot", 0), ("finetuned", -1)):
        result[moment] = {name: at(place, name) for name in RECALLS}
    result["curve"] = {"steps": [point["step"] for point in curves[0]]}
    for name in (_CRITERION, "mean_recall"):
        result["curve"][name] = [at(place, name) for place in range(len(curves[0]))]
    return result


def claim_result(claim: Claim, better: Result, worse: Result) -> Result:
    """How much `better` is above `worse`, and the verdict."""
    first, second = (row[claim.metric][_CRITERION]["values"] for row in (better, worse))
    return _judged(claim, first, second)


def _judged(claim: Claim, better: list[float], worse: list[float]) -> Result:
    """The claim with the difference over the seeds and the verdict."""
    found = difference(better, worse)
    judged = verdict(estimate(better), estimate(worse), found)
    return {**asdict(claim), "difference": asdict(found), "verdict": judged}


def verdict(better: Estimate, worse: Estimate, found: Estimate) -> str:
    """One of `VERDICTS`."""
    if found.low is None or found.high is None:
        return "one seed"
    if are_apart(better, worse):
        return "apart"
    if found.low > 0:
        return "ahead"
    return "behind" if found.high < 0 else "open"


def gap_result(seeds: Sequence[int], *, out: Path) -> Result:
    """Table 1: the NMI of each pair of corpora over the seeds; each seed's is the mean of its draws."""
    found: dict[tuple[str, str], list[float]] = {}
    for seed in seeds:
        for gap in _read(seed_folder(out, seed) / "nmi" / "nmi.json")["gaps"]:
            found.setdefault((gap["source"], gap["target"]), []).append(float(gap["mean"]))
    claims = []
    for target in dict.fromkeys(target for _, target in found):
        text = f"subtitles are farther from {target} than captions are"
        claim = Claim(text, "subtitles", "captions", metric=f"NMI to {target}")
        claims.append(_judged(claim, found["subtitles", target], found["captions", target]))
    rows = [
        {"source": source, "target": target, "values": values, **asdict(estimate(values))}
        for (source, target), values in found.items()
    ]
    title = "Table 1: normalised mutual information"
    return {"name": "domain-gap", "title": title, "gaps": rows, "claims": claims}


def _curve(row: Row, seed: int, out: Path) -> list[Result]:
    path = seed_folder(out, seed) / "finetune" / row.name / "validation.jsonl"
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"damaged ({error})"
        raise UserError(f"{path}: {reason}; remove {out / 'finished'} and run the study again") from error


def _read(path: Path) -> Result:
    try:
        content: Result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read; remove its folder and run the study again") from error
    return content


def _summary(values: list[float]) -> Result:
    """Of fractions over the seeds, in percent: the values, their mean and its interval."""
    percent = [100 * value for value in values]
    return {"values": percent, **asdict(estimate(percent))}
