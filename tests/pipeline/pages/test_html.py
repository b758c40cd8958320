"""Pages: one shell around blocks, the text of others as text, and the same bytes every time."""

import pytest

from clipvip.pipeline.pages.cards import Card, Cards
from clipvip.pipeline.pages.html import Section, data_url, render_page
from clipvip.pipeline.pages.plots import Bar, BarChart, Plot, Point, line_plot
from clipvip.pipeline.pages.tables import Column, Table
from html_page import HtmlPage

UGLY = """</title></style><script src="http://tracker.example/x.js">'alert' {{ 7 * 7 }} {% raw %}</script>"""


def page() -> bytes:
    url = data_url(b"\xff\xd8", kind="image/jpeg")
    line = [Point(0, 1.5, 1, 2), Point(1, 2.5)]
    plot = line_plot({UGLY: line}, title=UGLY, x_label=UGLY, y_label=UGLY)
    blocks = [
        Cards([Card([url, url], [(UGLY, UGLY)], UGLY)]),
        Table([Column(UGLY), Column(spec=".1f")], [(UGLY, 1.25)]),
        plot,
        Plot("bars", "", (0, 3), (0, 2), bars=[2, 0, 1]),
        Cards([Card([], [], verdict=True), Card([], [], verdict=False)], title=UGLY),
        BarChart(UGLY, [Bar(UGLY, 1, 0, 2)], most=3, limits={UGLY: 1}),
    ]
    return render_page(UGLY, [Section(UGLY, UGLY, blocks, code=UGLY), Section()], note=UGLY)


def test_text_of_others_is_text_everywhere() -> None:
    found = HtmlPage(page())
    assert found.text.count(UGLY) == 19
    assert found.sources == ["data:image/jpeg;base64,/9g="] * 2
    assert {tag: found.tags.count(tag) for tag in ("section", "svg", "table", "img", "pre")} == {
        "section": 2, "svg": 3, "table": 1, "img": 2, "pre": 1,
    }  # fmt: skip


def test_equal_pages_are_equal_bytes() -> None:
    assert page() == page()


def test_what_no_text_can_hold_is_replaced() -> None:
    assert b"<h1>half a ?</h1>" in render_page("half a \ud83d", [])


@pytest.mark.parametrize(
    ("pictures", "columns"),
    [(0, 1), (1, 1), (4, 4), (5, 5), (7, 4), (8, 4), (9, 3), (12, 6), (31, 6), (32, 4)],
)
def test_pictures_stand_in_rows_of_one_length_at_any_width(pictures: int, columns: int) -> None:
    card = Card(["data:image/jpeg;base64,AA=="] * pictures, [])
    assert card.columns == columns
    page = HtmlPage(render_page("t", [Section(blocks=[Cards([card])])]))
    assert columns == 1 or f".of{columns}{{grid-template-columns:repeat({columns},1fr)}}" in page.style


def test_a_path_in_a_table_is_whole_and_may_be_broken_after_each_folder() -> None:
    content = render_page("t", [Section(blocks=[Table([Column()], [("/a/<b>/c",)])])])
    assert "/a/<b>/c" in HtmlPage(content).text
    assert b"/<wbr>a/<wbr>&lt;b&gt;/<wbr>c" in content
