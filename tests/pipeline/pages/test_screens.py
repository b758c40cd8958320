"""Pages fit their screen: what is wider than it scrolls in its own box."""

from collections.abc import Callable
from pathlib import Path

import pytest

from browser import fit_screens
from clipvip.experiments.study.page import as_page
from clipvip.experiments.study.report import read_results_file
from clipvip.pipeline.evaluate.baselines import Figure, score_page
from clipvip.pipeline.pages.cards import Card, Cards
from clipvip.pipeline.pages.html import Section, data_url, render_page
from clipvip.pipeline.pages.plots import Bar, BarChart, Plot
from clipvip.pipeline.pages.tables import Column, Table

ROOT = Path(__file__).resolve().parents[3]
WORD = "a_file_name_without_a_single_space_in_it_" * 5
SCREENS = (320, 400, 1280)


def page_of_everything() -> bytes:
    picture = data_url(b"\xff\xd8", kind="image/jpeg")
    blocks = [
        Cards([Card([picture] * number, [(WORD, WORD)], WORD, True) for number in (1, 6, 7, 12, 31)]),
        Cards([Card([picture] * 12, [])], title=WORD),
        Cards([Card([picture] * 12, [])], title="b"),
        Table([Column("a title of words")] * 12, [(WORD, *[1.25] * 11)]),
        Plot("bars", "", (0, 3), (0, 2), bars=[2, 0, 1]),
        BarChart("t", [Bar("name", 1, 0, 2)], most=3, is_wide=True),
    ]
    return render_page(WORD, [Section(WORD, WORD, blocks, code="x " * 200)], note=WORD)


def page_of_scores() -> bytes:
    figure = Figure(0.125, (0.1, 0.15))
    titles = ("R@1", "R@5", "R@10")
    figures = {"text to video": dict.fromkeys(titles, figure), "video to text": dict.fromkeys(titles, figure)}
    result = {
        "num_frames": 12,
        "baselines": {"/a/folder/of/models/clip-vit-base-patch32": {"num_frames": 12}},
    }
    return score_page("Retrieval", "runs/model", result, lambda result: figures, "a line\n" * 3)


def page_of_the_study() -> bytes:
    results = read_results_file(ROOT / "docs" / "assets" / "study_results.json")
    return as_page(results.studies, note="")


@pytest.mark.slow
@pytest.mark.needs("browser")
@pytest.mark.parametrize("draw", [page_of_everything, page_of_scores, page_of_the_study])
def test_no_page_is_wider_than_its_screen(draw: Callable[[], bytes]) -> None:
    found = fit_screens(draw(), SCREENS)
    assert {screen: fit.width for screen, fit in found.items()} == {screen: screen for screen in SCREENS}


@pytest.mark.slow
@pytest.mark.needs("browser")
@pytest.mark.parametrize(("draw", "screen"), [(page_of_scores, 400), (page_of_the_study, 1280)])
def test_no_table_is_to_be_scrolled_sideways(draw: Callable[[], bytes], screen: int) -> None:
    assert fit_screens(draw(), [screen])[screen].wide_tables == 0
