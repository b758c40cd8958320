"""A study's tables and figures: as text for the terminal, as Markdown, and as one page."""

from collections import Counter
from collections.abc import Sequence

from clipvip.experiments.study.results import VERDICTS, FoundClaim, FoundStudy, FoundTable, Summary
from clipvip.pipeline.pages.html import Section, render_page
from clipvip.pipeline.pages.plots import Difference, DifferenceChart, Plot, Point, line_plot
from clipvip.pipeline.pages.tables import Column, Table

_CLAIM_COLUMNS = (
    Column("claim"), Column("task"), Column("difference", ">"), Column("paper", ">"), Column("verdict")
)  # fmt: skip
CHART_TITLE = "The paper's claims, with 95% intervals"
_NO_CLAIM = "Rows without a number of the paper are not claims of the paper."
_LEGEND = {
    "apart": "comes out, intervals apart",
    "ahead": "comes out, intervals overlap",
    "open": "open, the interval holds zero",
    "behind": "the other way round",
}


def with_interval(summary: Summary, *, digits: int = 1) -> str:
    """The mean and half of its interval."""
    text = f"{summary.mean:.{digits}f}"
    if summary.low is not None and summary.high is not None:
        text += f" ± {(summary.high - summary.low) / 2:.{digits}f}"
    return text


def table_of(found: FoundTable) -> Table:
    """A table of a study, with the paper's numbers beside those that were found."""
    columns = (Column(), *(Column(name, f".{found.digits}f") for name in found.columns))
    rows = [
        (
            label,
            *(
                with_interval(cell, digits=found.digits) if isinstance(cell, Summary) else cell
                for cell in cells
            ),
        )
        for label, cells in found.rows
    ]
    return Table(columns, rows)


def claims_of(study: FoundStudy) -> Table:
    """Each claim with the difference found, that of the paper, and the verdict in words."""
    return Table(
        _CLAIM_COLUMNS,
        [
            (claim.text, claim.where, with_interval(claim.difference), claim.paper, VERDICTS[claim.verdict])
            for claim in study.claims
        ],
    )


def as_text(study: FoundStudy) -> str:
    """A study for the terminal."""
    lines = [study.title]
    for table in study.tables:
        lines += [*([f"{table.title}:"] if table.title else []), table_of(table).text()]
    lines += [
        f"  {text} ({where}): {found}{f', paper {paper}' if paper else ''}; {verdict}"
        for text, where, found, paper, verdict in claims_of(study).body
    ]
    return "\n".join(lines)


def as_markdown(studies: Sequence[FoundStudy], *, level: int = 2) -> str:
    """All studies as Markdown tables under headings of `level`."""
    parts = []
    for study in studies:
        parts.append(f"{'#' * level} {study.title}\n")
        for table in study.tables:
            parts += [*([f"{table.title[:1].upper()}{table.title[1:]}:\n"] if table.title else [])]
            parts.append(f"{table_of(table).markdown()}\n")
        parts.append(f"{claims_of(study).markdown()}\n")
    return "\n".join(parts)


def as_page(studies: Sequence[FoundStudy], *, note: str) -> bytes:
    """All studies as one page, the claims first."""
    sections = [Section("Claims", claims_summary(studies), [chart_of(studies)])]
    for study in studies:
        sections.append(Section(study.title, blocks=[*figures_of(study).values(), _narrow_claims(study)]))
        for table in study.tables:
            title = table.title[:1].upper() + table.title[1:]
            sections.append(Section(title, blocks=[table_of(table).without_empty_columns()]))
    return render_page("CLIP-ViP's tables", sections, note=note)


def _narrow_claims(study: FoundStudy) -> Table:
    """The claims in as few columns as a phone shows side by side: the task stands with the claim."""
    table = claims_of(study)
    rows = [(f"{text} · {where}", *others) for text, where, *others in table.body]
    return Table((table.columns[0], *table.columns[2:]), rows)


def claims_summary(studies: Sequence[FoundStudy]) -> str:
    """How many of the paper's claims come out, in two sentences."""
    claims = [claim for study in studies for claim in study.claims if claim.paper]
    if any(claim.verdict == "one seed" for claim in claims):
        return f"One seed, so that differences have no intervals. {_NO_CLAIM}"
    count = {name: sum(claim.verdict == name for claim in claims) for name in VERDICTS}
    return (
        f"Of {len(claims)} claims, these come out with intervals apart: {count['apart']}; with intervals "
        f"that overlap: {count['ahead']}; open: {count['open']}; the other way round: {count['behind']}. "
        f"{_NO_CLAIM}"
    )


def chart_of(studies: Sequence[FoundStudy]) -> DifferenceChart:
    """The claims of all studies in one chart, each with its task where it is made of several."""
    claims = [claim for study in studies for claim in study.claims]
    times = Counter(claim.text for claim in claims)
    rows = [_difference(claim, f": {claim.where}" if times[claim.text] > 1 else "") for claim in claims]
    found = {row.verdict for row in rows}
    legend = {verdict: said for verdict, said in _LEGEND.items() if verdict in found}
    return DifferenceChart(CHART_TITLE, rows, unit="difference in points", legend=legend)


def _difference(claim: FoundClaim, task: str) -> Difference:
    found = claim.difference
    beside = f" (paper {claim.paper})" if claim.paper else ""
    name = claim.text + task
    return Difference(name, claim.where, found.mean, found.low, found.high, claim.verdict, beside)


def figures_of(study: FoundStudy) -> dict[str, Plot]:
    """Fig. 1 for `scale`, the way through fine-tuning for `encoders`; by the names of their files."""
    if not study.curves:
        return {}
    lines = {
        curve.name: [
            Point(x, value.mean, value.low, value.high)
            for x, value in zip(curve.steps, curve.values, strict=True)
        ]
        for curve in study.curves
    }
    if study.name == "scale":
        plot = line_plot(
            lines,
            title="Post-pretraining on subtitles alone",
            x_label="steps of post-pretraining, %",
            y_label="mean recall after fine-tuning, %",
        )
        return {"fig1": plot}
    plot = line_plot(lines, title="Fine-tuning from CLIP", x_label="steps", y_label="R@1, %")
    return {"encoders": plot}
