"""A study's tables and figures: as text for the terminal, as Markdown, and as one self-contained HTML page.

Draws what `results` has; decides nothing.
"""

import base64
import html
from collections.abc import Sequence
from typing import Any

from clipvip.analysis.plots import curves
from clipvip.experiments.study.results import VERDICTS

Result = dict[str, Any]

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:66rem;margin:2rem auto;padding:0 1rem;color:#1c2430}
h1{font-size:1.7rem;margin-bottom:.2rem} h2{font-size:1.2rem;margin-top:2.4rem}
p.note{color:#586273;margin-top:.2rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums} td,th{padding:.3rem .8rem;text-align:right;border-bottom:1px solid #d8dde5}
td:first-child,th:first-child{text-align:left} td+td{white-space:nowrap} td.paper,th.paper{color:#586273}
td.apart,td.ahead{color:#12713a} td.behind{color:#a1261d} img{max-width:100%}
"""
_HEAD = ("", "zero-shot R@1", "fine-tuned R@1", "R@5", "R@10", "mean", "paper: R@1", "mean")


def with_interval(summary: Result, *, digits: int = 1) -> str:
    """The mean and half of its interval."""
    text = f"{summary['mean']:.{digits}f}"
    if summary["low"] is not None:
        text += f" ± {(summary['high'] - summary['low']) / 2:.{digits}f}"
    return text


def table_of(result: Result) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The head and the lines of a study's table."""
    if "gaps" in result:
        head = ("source", "target", "NMI")
        return head, [(gap["source"], gap["target"], with_interval(gap, digits=3)) for gap in result["gaps"]]
    lines = []
    for row in result["rows"]:
        tuned, paper = row["finetuned"], row["paper"]
        lines.append(
            (
                row["label"],
                with_interval(row["zero_shot"]["r1"]),
                *(with_interval(tuned[name]) for name in ("r1", "r5", "r10", "mean_recall")),
                *("" if paper[name] is None else f"{paper[name]:.1f}" for name in ("r1", "mean")),
            )
        )
    return _HEAD, lines


def claim_lines(result: Result) -> list[tuple[str, str, str]]:
    """Each claim with the difference found and the verdict in words."""
    digits = 3 if "gaps" in result else 1
    return [
        (
            claim["text"] + (" (zero-shot)" if claim["metric"] == "zero_shot" else ""),
            with_interval(claim["difference"], digits=digits),
            claim["verdict"],
        )
        for claim in result["claims"]
    ]


def as_text(result: Result) -> str:
    """A study for the terminal."""
    head, lines = table_of(result)
    widths = [max(len(line[n]) for line in (head, *lines)) for n in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join([first, *others]).rstrip()

    claims = [f"  {text}: {found}; {VERDICTS[verdict]}" for text, found, verdict in claim_lines(result)]
    return "\n".join([result["title"], line(head), *(line(cells) for cells in lines), *claims])


def as_markdown(results: Sequence[Result]) -> str:
    """All studies as Markdown tables."""
    parts = []
    for result in results:
        head, lines = table_of(result)
        rows = [head, tuple("---" for _ in head), *lines]
        claims = [("claim", "difference", "verdict"), ("---", "---", "---")]
        claims += [(text, found, VERDICTS[verdict]) for text, found, verdict in claim_lines(result)]
        parts.append(f"## {result['title']}\n\n{_pipes(rows)}\n\n{_pipes(claims)}\n")
    return "\n".join(parts)


def _pipes(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def as_page(results: Sequence[Result], *, note: str) -> str:
    """All studies as one HTML page that needs no other file."""
    parts = [f"<h1>CLIP-ViP's tables</h1><p class=note>{html.escape(note)}</p>"]
    for result in results:
        head, lines = table_of(result)
        parts.append(f"<h2>{html.escape(result['title'])}</h2>{_html_table(head, lines)}")
        for name, png in figures_of(result).items():
            url = f"data:image/png;base64,{base64.b64encode(png).decode()}"
            parts.append(f'<p><img alt="{html.escape(name)}" src="{url}"></p>')
        parts.append(_claims_table(result))
    body = "\n".join(parts)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>CLIP-ViP's tables</title><style>{_STYLE}</style><body>{body}</body></html>\n"
    )


def _html_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        first_of_paper = next((n for n, name in enumerate(head) if name.startswith("paper")), len(head))
        return "".join(
            f"<{tag}{' class=paper' if n >= first_of_paper else ''}>{html.escape(cell)}</{tag}>"
            for n, cell in enumerate(cells)
        )

    body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in lines)
    return f"<table><tr>{row(head, 'th')}</tr>{body}</table>"


def _claims_table(result: Result) -> str:
    lines = "".join(
        f"<tr><td>{html.escape(text)}</td><td>{html.escape(found)}</td>"
        f"<td class={verdict.replace(' ', '-')}>{html.escape(VERDICTS[verdict])}</td></tr>"
        for text, found, verdict in claim_lines(result)
    )
    return f"<table><tr><th>the paper's claim</th><th>difference</th><th></th></tr>{lines}</table>"


def figures_of(result: Result) -> dict[str, bytes]:
    """Name -> PNG: Fig. 1 for `scale`, the way through fine-tuning for `encoders`."""
    if result["name"] == "scale":
        return {"fig1": _scale_figure(result)}
    if result["name"] == "encoders":
        rows = [row for row in result["rows"] if row["motion"] == result["rows"][0]["motion"]]
        lines = {row["label"]: _points(row["curve"]["steps"], row["curve"]["r1"]) for row in rows}
        png = curves(lines, title="Fine-tuning from CLIP", x_label="steps", y_label="R@1, %")
        return {"encoders": png}
    return {}


def _scale_figure(result: Result) -> bytes:
    """Recall after fine-tuning against the steps of post-pretraining, one line for each number of clips."""
    first, *others = result["rows"]
    start = _point(0, first["finetuned"]["mean_recall"])
    lines: dict[str, list[tuple[float, float, float | None, float | None]]] = {}
    for row in others:
        label = row["label"].split(",")[0]
        at = 50.0 if row["label"] != label else 100.0
        lines.setdefault(label, [start]).append(_point(at, row["finetuned"]["mean_recall"]))
    return curves(
        lines,
        title="Post-pretraining on subtitles alone",
        x_label="steps of post-pretraining, %",
        y_label="mean recall after fine-tuning, %",
    )


def _points(
    xs: Sequence[float], summaries: Sequence[Result]
) -> list[tuple[float, float, float | None, float | None]]:
    return [_point(x, summary) for x, summary in zip(xs, summaries, strict=True)]


def _point(x: float, summary: Result) -> tuple[float, float, float | None, float | None]:
    return x, summary["mean"], summary["low"], summary["high"]
