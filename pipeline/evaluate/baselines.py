"""Results of other models beside those of the one that is measured: in its file, a table, and a page."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from clipvip.pipeline.pages.html import Section, render_page
from clipvip.pipeline.pages.tables import Column, Table
from clipvip.pipeline.runtime.report import counted

Result = dict[str, Any]


class Figure(NamedTuple):
    """A share, 0 to 1, and its 95% interval, if it has one."""

    value: float
    interval: Sequence[float] | None = None


# What is compared of a result: figures by title, for each row.
Figures = Callable[[Result], Mapping[str, Mapping[str, Figure]]]


def with_baselines(result: Result, others: Mapping[str, Result]) -> Result:
    """The result of a model, with those of the others by name under `baselines`, if there are any."""
    return result | {"baselines": dict(others)} if others else result


def comparison(name: str, result: Result, figures: Figures) -> Table:
    """The model, called `name`, and below it each baseline: figures in percent, with 95% intervals."""
    found = {model: figures(one) for model, one in {name: result, **result.get("baselines", {})}.items()}
    of_model = found[name]
    titles = list(next(iter(of_model.values())))
    columns = [Column()]
    for title in titles:
        columns += [Column(title, ".1f"), Column("95% interval")]
    columns.append(Column("model"))  # last, since names may be long
    rows: list[list[object]] = []
    for label in of_model:
        for model, some in found.items():
            shown = [part for title in titles for part in cells(some[label][title])]
            rows.append([label if model == name else None, *shown, model])
    return Table(columns, rows)


def score_page(title: str, name: str, result: Result, figures: Figures, told: str) -> bytes:
    """A page of one test: the comparison, and below it what is `told` of the model alone."""
    note = f"{name}, {counted(result['num_frames'], 'frames')} of each clip"
    has_intervals = any(figure.interval for row in figures(result).values() for figure in row.values())
    heading = f"Scores in percent{', with 95% intervals' if has_intervals else ''}"
    scores = Section(heading, blocks=_narrow_tables(name, result, figures))
    return render_page(title, [scores, Section(f"In full: {name}", code=told)], note=note)


def _narrow_tables(name: str, result: Result, figures: Figures) -> list[Table]:
    """The comparison as one table for each of its rows, which a phone has room for."""
    found = {model: figures(one) for model, one in {name: result, **result.get("baselines", {})}.items()}
    tables = []
    for label, titles in found[name].items():
        columns = [Column(title) for title in (label, *titles)]
        rows = [[model, *map(_figure_text, some[label].values())] for model, some in found.items()]
        tables.append(Table(columns, rows))
    return tables


def _figure_text(figure: Figure) -> str:
    value, interval = cells(figure)
    return f"{value:.1f} ({interval})" if interval else f"{value:.1f}"


def cells(figure: Figure) -> tuple[float, str]:
    """A figure in percent and its interval, for two columns of a table."""
    ends = figure.interval
    return 100 * figure.value, f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}" if ends else ""
