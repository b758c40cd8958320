"""From runs to rows, verdicts and the page."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from clipvip.analysis.seeds import difference, estimate
from clipvip.experiments.study.data import StudyData
from clipvip.experiments.study.page import as_markdown, as_page, as_text, chart_of, figures_of, table_of
from clipvip.experiments.study.plan import Settings, StudyRun, between_folder, resolved, rows_of, seed_folder
from clipvip.experiments.study.report import BEGIN, END, ReportOptions, read_results_file, write_report
from clipvip.experiments.study.results import VERDICTS, FoundClaim, FoundStudy, read_results, verdict
from clipvip.experiments.study.small_world import SmallWorld
from clipvip.experiments.study.stages import Knobs
from clipvip.experiments.study.tables import STUDIES, STUDY_NAMES, ZERO_SHOT
from clipvip.pipeline.pages.plots import svg_file
from clipvip.pipeline.runtime.errors import UserError
from html_page import HtmlPage
from svg_texts import assert_readable

SEEDS = (1, 2, 3)
DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize(
    ("better", "worse", "expected"),
    [
        ([50, 51, 52], [30, 31, 32], "apart"),
        ([50, 40, 60], [48, 38.1, 58], "ahead"),
        ([50, 40, 60], [51, 30, 59], "open"),
        ([48, 38.1, 58], [50, 40, 60], "behind"),
        ([50], [30], "one seed"),
    ],
)
def test_a_verdict_is_a_rule_of_intervals(better: list[float], worse: list[float], expected: str) -> None:
    assert verdict(estimate(better), estimate(worse), difference(better, worse)) == expected
    assert expected in VERDICTS


def study_run(out: Path, *names: str, seeds: Sequence[int] = SEEDS) -> StudyRun:
    settings = Settings(pretrain_steps=20, finetune_steps=20, gpus=0)
    return StudyRun(names or STUDY_NAMES, seeds, out, SmallWorld(Knobs()), settings)


def write_runs(run: StudyRun) -> None:
    """What stages write: (d) finds more than the others, by its seed."""
    for seed in run.seeds:
        folder, data = seed_folder(run.out, seed), run.data_of(seed)
        for row in (row for study in STUDIES for row in rows_of(study, data)):
            for task in row.tasks:
                last = (0.6 if row.name == "ocl-d-vip4" else 0.4) + seed / 100
                points = [
                    {"step": step, "r1": r1, "r5": r1 + 0.1, "r10": r1 + 0.2, "mean_recall": r1 + 0.1}
                    for step, r1 in ((0, 0.1), (10, 0.2), (20, last))
                ]
                lines = "".join(json.dumps(point) + "\n" for point in points)
                write(folder / "finetune" / row.run_name(task) / "validation.jsonl", lines)
                metrics = {name: {"text_to_video": {"r1": r1}} for name, r1 in (("plain", 0.5), ("dsl", 0.6))}
                between = {"alpha": row.alpha, "text_to_video": points[-1] | {"r1": last + 0.1}}
                place = between_folder(folder, row, task) / "interpolation.json"
                write(place, json.dumps({"points": [between]}))
                found = json.dumps({"metrics": metrics})
                write(folder / "rescored" / row.run_name(task) / "retrieval.json", found)
        for place, (row, *_) in enumerate(ZERO_SHOT):
            name, right = resolved(row, data).name, 0.2 + place / 10
            write(folder / "actions" / name / "actions.json", json.dumps({"top1": right}))
            asked = json.dumps({"accuracy": right})
            write(folder / "multiple-choice" / name / "multiple_choice.json", asked)
        gaps = [
            {"source": name, "target": "descriptions", "mean": mean + seed / 1000}
            for name, mean in (("subtitles", 0.5), ("captions", 0.1))
        ]
        write(folder / "nmi" / "nmi.json", json.dumps({"gaps": gaps}))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def by_text_and_place(study: FoundStudy) -> dict[tuple[str, str], FoundClaim]:
    """The claims of a study, which no two share."""
    claims = {(claim.text, claim.where): claim for claim in study.claims}
    assert len(claims) == len(study.claims)
    return claims


def test_a_claim_names_its_task_once(tmp_path: Path) -> None:
    run = study_run(tmp_path)
    write_runs(run)
    for study in read_results(run):
        lines = as_text(study).splitlines()
        for text, where in by_text_and_place(study):
            assert (
                f"({where})" not in text
                and sum(line.startswith(f"  {text} ({where}): ") for line in lines) == 1
            )


def test_rows_and_claims_are_those_of_the_runs(tmp_path: Path) -> None:
    run = study_run(tmp_path)
    write_runs(run)
    results = {result.name: result for result in read_results(run)}
    losses = results["losses"]
    assert [table.title for table in losses.tables] == ["appearance", "motion"]
    label, cells = losses.tables[0].rows[-1]
    assert label.startswith("(d)")
    zero_shot, finetuned, *_, paper, _ = cells
    assert not isinstance(zero_shot, float | None) and zero_shot.values == pytest.approx([10, 10, 10])
    assert not isinstance(finetuned, float | None) and finetuned.mean == pytest.approx(62)
    assert paper == 49.6 and losses.tables[1].rows[-1][1][-2] == 48.2  # MSR-VTT's, and DiDeMo's
    claims = by_text_and_place(losses)
    assert claims["(d) beats subtitles alone", "appearance"].verdict == "apart"
    assert claims["(d) beats subtitles alone", "appearance"].paper == "+1.9"
    assert claims["(d) beats subtitles alone", "motion"].paper == "+3.6"
    assert claims["(a) beats subtitles alone", "appearance"].verdict == "open"
    assert results["domain-gap"].claims[0].verdict == "apart"
    assert results["domain-gap"].claims[0].difference.mean == pytest.approx(40)
    assert {claim.paper for claim in results["scale"].claims} >= {"+0.6", "+2.3"}
    of_protocols = by_text_and_place(results["protocols"])
    of_actions = of_protocols["(d) beats no post-pretraining", "actions"]
    assert of_actions.difference.mean == pytest.approx(20)
    assert of_protocols["the dual softmax finds more", "motion"].paper == "+5.2"
    extras = by_text_and_place(results["extras"])
    halfway = extras["weights half fine-tuned are better", "appearance"]
    assert halfway.difference.mean == pytest.approx(10)
    assert extras["filtering noisy subtitles helps", "motion"].verdict == "open"
    assert len(results["extras"].tables[0].rows) == 6  # two of them of one run


def test_the_page_shows_all_rows_beside_the_papers_numbers(tmp_path: Path) -> None:
    run = study_run(tmp_path)
    write_runs(run)
    results = read_results(run)
    page = as_page(results, note="<made up>").decode()
    assert "<made up>" in HtmlPage(page.encode()).text
    assert "&lt;made up&gt;" in page and "http" not in page and page.count("<svg") == 3
    markdown = as_markdown(results)
    for study in STUDIES:
        for row in study.rows:
            assert row.label in markdown
            assert row.paper.r1 is None or f"{row.paper.r1:.1f}" in markdown
    assert "62.0 ± 2.5" in as_text(next(result for result in results if result.name == "losses"))
    assert set(figures_of(results[1])) == {"fig1"}
    assert all(svg_file(plot).startswith(b"<svg xmlns=") for plot in figures_of(results[1]).values())


def test_the_chart_has_every_claim_with_its_interval_and_the_papers_sign(tmp_path: Path) -> None:
    run = study_run(tmp_path)
    write_runs(run)
    results = read_results(run)
    claims = [claim for result in results for claim in result.claims]
    chart = chart_of(results)
    assert_readable(svg_file(chart))
    drawing = svg_file(chart).decode()
    assert drawing.count("<circle") == len(chart.legend) + len(claims)
    names = [row.name for row in chart.rows]
    assert len(set(names)) == len(names), "two claims that no label tells apart"
    for claim in claims:
        assert claim.text.replace("'", "&#39;") in drawing
    assert " (paper +1.9)" in drawing and sum(claim.paper == "" for claim in claims) == 4 + 8
    assert drawing.count("(paper ") == len(claims) - 12
    low, high = chart.x_range
    assert low <= 0 <= high and chart.left <= chart.x(low) <= chart.x(0) <= chart.x(high) <= chart.right
    (one_seed,) = read_results(study_run(tmp_path, "scratch", seeds=(1,)))
    assert chart_of([one_seed]).rows[0].low is None
    assert svg_file(chart_of([one_seed])).count(b"<circle") == 1


def own_data(folder: Path) -> StudyData:
    """Data of one's own, which has no second task, images or other source."""
    names = {name: str(folder / name) for name in ("shards", "captions", "finetune", "test")}
    return StudyData(clip="clip", descriptions={}, **names)


def test_without_a_second_task_a_run_is_listed_once_and_claims_are_kept(tmp_path: Path) -> None:
    run = StudyRun(("encoders",), SEEDS, tmp_path, own_data(tmp_path), study_run(tmp_path).settings)
    write_runs(run)
    (result,) = read_results(run)
    encoders = next(study for study in STUDIES if study.name == "encoders")
    (table,) = result.tables
    labels = [label for label, _ in table.rows]
    assert labels == [row.label for row in encoders.rows]
    assert len(result.claims) == len(encoders.claims)
    assert {claim.where.split(",")[0] for claim in result.claims} == {"first task"}


def results_file(run: StudyRun, results: Sequence[FoundStudy]) -> Path:
    path = run.out / "results.json"
    content = {"schema": 2, "seeds": run.seeds, "studies": [asdict(result) for result in results]}
    path.write_text(json.dumps(content))
    return path


def test_results_are_put_into_a_document(tmp_path: Path) -> None:
    run = study_run(tmp_path)
    write_runs(run)
    results = read_results(run)
    path = results_file(run, results)
    assert read_results_file(path).studies == tuple(results)
    document = tmp_path / "docs" / "study.md"
    write(document, f"# Title\n\n{BEGIN}\nprevious\n{END}\n\nAfter.\n")
    options = ReportOptions(results=path, into=document)
    write_report(options)
    text = document.read_text()
    assert text.startswith("# Title") and text.endswith("After.\n") and "previous" not in text
    assert table_of(results[1].tables[0]).markdown() in text and "Seeds 1, 2, 3." in text
    for name in re.findall(r"\(([^)]*\.svg)\)", text):
        assert (document.parent / name).read_bytes().startswith(b"<svg")
    write_report(options)
    assert document.read_text() == text
    document.write_text("# Without marks\n")
    with pytest.raises(UserError, match="needs one line"):
        write_report(options)
    path.write_text('{"schema": 1}')
    with pytest.raises(UserError, match="does not hold results as this version"):
        write_report(options)


def test_the_documents_tables_are_those_of_its_results_file(tmp_path: Path) -> None:
    copy = tmp_path / "study.md"
    copy.write_bytes((DOCS / "study.md").read_bytes())
    write_report(ReportOptions(results=DOCS / "assets" / "study_results.json", into=copy))
    assert copy.read_bytes() == (DOCS / "study.md").read_bytes()
    for figure in (tmp_path / "assets").iterdir():
        assert figure.read_bytes() == (DOCS / "assets" / figure.name).read_bytes()
