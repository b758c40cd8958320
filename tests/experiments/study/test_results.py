"""From runs to rows, verdicts and the page."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from clipvip.analysis.seeds import difference, estimate
from clipvip.experiments.study.data import SmallWorld
from clipvip.experiments.study.page import as_markdown, as_page, as_text, figures_of
from clipvip.experiments.study.plan import seed_folder
from clipvip.experiments.study.results import VERDICTS, gap_result, study_result, verdict
from clipvip.experiments.study.rows import STUDIES
from clipvip.experiments.study.stages import Knobs
from clipvip.pipeline.pages.plots import svg_file
from html_page import HtmlPage

SEEDS = (1, 2, 3)


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


def write_runs(out: Path) -> None:
    """Validations as training writes them: (d) finds more than the others, by its seed."""
    for seed in SEEDS:
        folder = seed_folder(out, seed)
        for study in STUDIES:
            for row in (*study.rows, *(replace(row, motion=False) for row in study.rows)):
                path = folder / "finetune" / row.name / "validation.jsonl"
                path.parent.mkdir(parents=True, exist_ok=True)
                last = (0.6 if row.name == "ocl-d-vip4" else 0.4) + seed / 100
                points = [
                    {"step": step, "r1": r1, "r5": r1 + 0.1, "r10": r1 + 0.2, "mean_recall": r1 + 0.1}
                    for step, r1 in ((0, 0.1), (10, 0.2), (20, last))
                ]
                path.write_text("".join(json.dumps(point) + "\n" for point in points))
        (folder / "nmi").mkdir()
        gaps = [
            {"source": name, "target": "descriptions", "mean": mean + seed / 1000}
            for name, mean in (("subtitles", 0.5), ("captions", 0.1))
        ]
        (folder / "nmi" / "nmi.json").write_text(json.dumps({"gaps": gaps}))


def test_rows_and_claims_are_those_of_the_runs(tmp_path: Path) -> None:
    write_runs(tmp_path)
    data, _ = SmallWorld(Knobs()).of_seed(1, tmp_path, workers=1)
    losses = next(study for study in STUDIES if study.name == "losses")
    result = study_result(losses, SEEDS, out=tmp_path, data=data)
    best = result["rows"][-1]
    assert best["zero_shot"]["r1"]["values"] == pytest.approx([10, 10, 10])
    assert best["finetuned"]["r1"]["mean"] == pytest.approx(62)
    assert best["curve"]["steps"] == [0, 10, 20]
    verdicts = {claim["text"]: claim["verdict"] for claim in result["claims"]}
    assert verdicts["(d) beats subtitles alone"] == "apart"
    assert verdicts["(a) beats subtitles alone"] == "open"
    gap = gap_result(SEEDS, out=tmp_path)
    assert gap["claims"][0]["verdict"] == "apart"


def test_the_page_shows_all_rows_beside_the_papers_numbers(tmp_path: Path) -> None:
    write_runs(tmp_path)
    data, _ = SmallWorld(Knobs()).of_seed(1, tmp_path, workers=1)
    results = [gap_result(SEEDS, out=tmp_path)]
    results += [study_result(study, SEEDS, out=tmp_path, data=data) for study in STUDIES]
    page = as_page(results, note="<made up>").decode()
    assert "<made up>" in HtmlPage(page.encode()).text
    assert "&lt;made up&gt;" in page and "http" not in page and page.count("<svg") == 2
    markdown = as_markdown(results)
    for study in STUDIES:
        for row in study.rows:
            assert row.label in markdown
            assert row.paper.r1 is None or f"{row.paper.r1:.1f}" in markdown
    assert "62.0 ± 2.5" in as_text(results[3])
    assert set(figures_of(results[1])) == {"fig1"}
    assert all(svg_file(plot).startswith(b"<svg xmlns=") for plot in figures_of(results[1]).values())


def test_without_a_task_of_motion_a_run_is_listed_once_and_claims_are_kept(tmp_path: Path) -> None:
    write_runs(tmp_path)
    data, _ = SmallWorld(Knobs()).of_seed(1, tmp_path, workers=1, motion=False)
    encoders = next(study for study in STUDIES if study.name == "encoders")
    result = study_result(encoders, SEEDS, out=tmp_path, data=data)
    names = [row["name"] for row in result["rows"]]
    assert len(names) == len(set(names)) == 6
    assert result["rows"][-1]["label"] == "8 video proxies"
    assert len(result["claims"]) == len(encoders.claims)
    with_motion, _ = SmallWorld(Knobs()).of_seed(1, tmp_path, workers=1)
    assert len(study_result(encoders, SEEDS, out=tmp_path, data=with_motion)["rows"]) == 8
