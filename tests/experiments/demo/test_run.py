"""`clipvip-demo run`: every stage, end to end, and again without doing the work twice."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from clipvip.experiments.demo.results import failed_expectations
from clipvip.experiments.demo.run import Step, demo_steps, run_step
from clipvip.pipeline.evaluate.retrieval import RetrievalOptions, retrieval
from clipvip.pipeline.runtime.errors import UserError
from doc_blocks import check_command
from html_page import HtmlPage


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_quick_demo_shows_what_it_is_to_show_and_resumes(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    command = [Path(sys.executable).parent / "clipvip-demo", "run", "--quick", "--workers", "2", "--out", out]
    first = subprocess.run(command, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stdout + first.stderr
    results = json.loads((out / "results.json").read_text())
    assert failed_expectations(results, must_improve=False) == []
    page = (out / "index.html").read_text()
    assert len(HtmlPage(page.encode()).sources) >= 13
    assert page.count("<img") >= 13 and "<svg" in page and "http" not in page.split("<pre>")[0]
    kept = {path: path.stat().st_mtime_ns for path in out.glob("*/*.tar")}
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stdout + again.stderr
    assert json.loads((out / "results.json").read_text()) == results
    assert kept == {path: path.stat().st_mtime_ns for path in out.glob("*/*.tar")}


def test_a_failing_command_stops_the_demo_with_its_line(tmp_path: Path) -> None:
    options = RetrievalOptions(model="nowhere", shards=tmp_path / "none")
    line = f"clipvip-eval retrieval --model nowhere --shards {tmp_path / 'none'}"
    with pytest.raises(UserError, match=rf"stopped at '{line}': {tmp_path / 'none'}: no such folder"):
        run_step(Step("", retrieval, options))


def test_stages_are_commands_a_user_can_type(tmp_path: Path) -> None:
    steps = demo_steps(tmp_path, workers=2, quick=False)
    for command in (step.command for step in steps):
        assert check_command(command)
    names = [step.command[:2] for step in steps]
    assert [" ".join(name) for name in names] == [
        "clipvip-data shard",
        "clipvip-data shard",
        "clipvip-data caption",
        "clipvip-data nmi",
        "clipvip-eval retrieval",
        "clipvip-eval retrieval",
        "clipvip-train demo",
        "clipvip-eval retrieval",
    ]


def _row(r1: float) -> dict:
    return {"text_to_video": {"r1": r1}, "chance": {"r1": 0.01}}


def _results(**changed: object) -> dict:
    good = {
        "captions": {"all_right": 0.9},
        "nmi": {"subtitles": {"mean": 0.1}, "captions": {"mean": 0.0}},
        "loss": [[1, 2.0], [2, 1.0]],
        "retrieval": {"start": _row(0.4), "trained": _row(0.5)},
    }
    return good | changed


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"captions": {"all_right": 0.4}}, "captions are right"),
        ({"nmi": {"subtitles": {"mean": 0.1}, "captions": {"mean": 0.2}}}, "not nearer"),
        ({"loss": [[1, 1.0], [2, 1.0]]}, "did not fall"),
        ({"retrieval": {"start": _row(0.6), "trained": _row(0.5)}}, "not better"),
        ({"retrieval": {"start": _row(0.01), "trained": _row(0.04)}}, "above chance"),
    ],
)
def test_results_that_disappoint_are_told(changed: dict, said: str) -> None:
    assert failed_expectations(_results()) == []
    assert said in " ".join(failed_expectations(_results(**changed)))


def test_a_quick_demo_need_not_improve() -> None:
    worse = _results(retrieval={"start": _row(0.6), "trained": _row(0.5)})
    assert failed_expectations(worse, must_improve=False) == []
