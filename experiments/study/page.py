"""A study's tables and figures: as text for the terminal, as Markdown, and as one page."""

from collections.abc import Sequence

from clipvip.experiments.study.results import VERDICTS, Result
from clipvip.pipeline.pages.html import Section, render_page
from clipvip.pipeline.pages.plots import Plot, Point, line_plot
from clipvip.pipeline.pages.tables import Column, Table

_METRICS = ("zero-shot R@1", "fine-tuned R@1", "R@5", "R@10", "mean", "paper: R@1", "mean")
_COLUMNS = (Column(), *(Column(name, ".1f") for name in _METRICS))
_GAP_COLUMNS = (Column("source"), Column("target", ">"), Column("NMI", ">"))
_CLAIM_COLUMNS = (Column("claim"), Column("difference", ">"), Column("verdict"))


def with_interval(summary: Result, *, digits: int = 1) -> str:
    """The mean and half of its interval."""
    text = f"{summary['mean']:.{digits}f}"
    if summary["low"] is not None:
        text += f" ± {(summary['high'] - summary['low']) / 2:.{digits}f}"
    return text


def table_of(result: Result) -> Table:
    """A study's table, with the paper's numbers beside those that were found."""
    if "gaps" in result:
        rows = [(gap["source"], gap["target"], with_interval(gap, digits=3)) for gap in result["gaps"]]
        return Table(_GAP_COLUMNS, rows)
    return Table(
        _COLUMNS,
        [
            (
                row["label"],
                with_interval(row["zero_shot"]["r1"]),
                *(with_interval(row["finetuned"][name]) for name in ("r1", "r5", "r10", "mean_recall")),
                *(row["paper"][name] for name in ("r1", "mean")),
            )
            for row in result["rows"]
        ],
    )


def claims_of(result: Result) -> Table:
    """Each claim with the difference found and the verdict in words."""
    rows = []
    for claim in result["claims"]:
        text = claim["text"] + (" (zero-shot)" if claim["metric"] == "zero_shot" else "")
        found = with_interval(claim["difference"], digits=3 if "gaps" in result else 1)
        rows.append((text, found, VERDICTS[claim["verdict"]]))
    return Table(_CLAIM_COLUMNS, rows)


def as_text(result: Result) -> str:
    """A study for the terminal."""
    claims = [f"  {text}: {found}; {verdict}" for text, found, verdict in claims_of(result).body]
    return "\n".join([result["title"], table_of(result).text(), *claims])


def as_markdown(results: Sequence[Result]) -> str:
    """All studies as Markdown tables."""
    return "\n".join(
        f"## {result['title']}\n\n{table_of(result).markdown()}\n\n{claims_of(result).markdown()}\n"
        for result in results
    )


def as_page(results: Sequence[Result], *, note: str) -> bytes:
    """All studies as one page."""
    sections = [
        Section(result["title"], blocks=[table_of(result), *figures_of(result).values(), claims_of(result)])
        for result in results
    ]
    return render_page("CLIP-ViP's tables", sections, note=note)


def figures_of(result: Result) -> dict[str, Plot]:
    """Fig. 1 for `scale`, the way through fine-tuning for `encoders`; by the names of their files."""
    if result["name"] == "scale":
        return {"fig1": _scale_figure(result)}
    if result["name"] == "encoders":
        rows = [row for row in result["rows"] if row["motion"] == result["rows"][0]["motion"]]
        lines = {row["label"]: list(map(_point, row["curve"]["steps"], row["curve"]["r1"])) for row in rows}
        plot = line_plot(lines, title="Fine-tuning from CLIP", x_label="steps", y_label="R@1, %")
        return {"encoders": plot}
    return {}


def _scale_figure(result: Result) -> Plot:
    """Recall after fine-tuning against the steps of post-pretraining, one line for each number of clips."""
    first, *others = result["rows"]
    start = _point(0, first["finetuned"]["mean_recall"])
    lines: dict[str, list[Point]] = {}
    for row in others:
        label = row["label"].split(",")[0]
        at = 50.0 if row["label"] != label else 100.0
        lines.setdefault(label, [start]).append(_point(at, row["finetuned"]["mean_recall"]))
    return line_plot(
        lines,
        title="Post-pretraining on subtitles alone",
        x_label="steps of post-pretraining, %",
        y_label="mean recall after fine-tuning, %",
    )


def _point(x: float, summary: Result) -> Point:
    return Point(x, summary["mean"], summary["low"], summary["high"])
