"""Tables: the same rows for a terminal and in Markdown."""

import numpy as np

from clipvip.pipeline.pages.tables import Column, Table

TABLE = Table(
    [Column("name"), Column("clips", ","), Column("R@1", ".1f", 7)],
    [("start", 1200, 5), ("a longer one", 7, np.float32(12.25)), ("chance", None, "0.1 ± 0.0")],
)


def test_texts_stand_left_and_numbers_right() -> None:
    assert TABLE.text(indent="> ").splitlines() == [
        "> name          clips        R@1",
        "> start         1,200        5.0",
        "> a longer one      7       12.2",
        "> chance               0.1 ± 0.0",
    ]


def test_widths_are_the_least_and_a_head_is_not_needed() -> None:
    table = Table([Column(width=5), Column(spec=",", width=8)], [("a", 1), ("bcdefg", 12345)])
    assert table.text(gap="") == "a            1\nbcdefg  12,345"
    assert Table(table.columns, []).text() == ""


def test_markdown_has_all_cells() -> None:
    assert TABLE.markdown().splitlines()[:3] == [
        "| name | clips | R@1 |", "| --- | --- | --- |", "| start | 1,200 | 5.0 |",
    ]  # fmt: skip
    assert TABLE.markdown().endswith("| chance |  | 0.1 ± 0.0 |")


def test_columns_without_a_cell_are_left_out_where_that_is_asked_for() -> None:
    table = Table(
        [Column(), Column("paper", ".1f"), Column("R@1", ".1f")], [("a", None, 1), ("b", None, None)]
    )
    assert table.without_empty_columns().markdown().splitlines() == [
        "|  | R@1 |", "| --- | --- |", "| a | 1.0 |", "| b |  |",
    ]  # fmt: skip
