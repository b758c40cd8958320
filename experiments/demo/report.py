"""The demo's page: frames with what is said of them, and the numbers of every stage, in one HTML file.

Reads what the stages wrote; computes nothing of its own.
"""

import base64
import html
import shlex
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from clipvip.experiments.demo.results import mean_loss, retrieval_rows
from clipvip.shards.files.atomic import atomic_write_bytes
from clipvip.shards.format.captions import read_captions
from clipvip.shards.tar.reader import list_shards, read_shard

_NUM_CARDS = 12
_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c2430}
h1{font-size:1.7rem;margin-bottom:.2rem} h2{font-size:1.2rem;margin-top:2.4rem}
p.note{color:#586273;margin-top:.2rem}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(13rem,1fr));gap:1rem}
.card{border:1px solid #d8dde5;border-radius:8px;overflow:hidden;background:#fff}
.card img{width:100%;display:block} .card div{padding:.5rem .7rem;font-size:.87rem}
.card b{display:block;color:#586273;font-weight:600;font-size:.72rem;text-transform:uppercase;letter-spacing:.04em}
table{border-collapse:collapse} td,th{padding:.3rem .9rem;border-bottom:1px solid #d8dde5;text-align:right}
td:first-child,th:first-child{text-align:left} tr.best td{font-weight:700}
pre{background:#f3f5f8;padding:.8rem;border-radius:8px;overflow-x:auto;font-size:.82rem}
img.figure{max-width:100%} svg text{font:12px system-ui,sans-serif;fill:#586273}
"""


def write_report(path: Path, out: Path, results: dict[str, Any], commands: Sequence[tuple[str, ...]]) -> None:
    """Write the page to `path` from the demo's folder `out`."""
    captions = results["captions"]
    parts = [
        "<h1>clipvip, from videos to a video-language model</h1>",
        (
            '<p class="note">A made-up world of moving shapes; every number below was computed by the commands '
            "at the end of this page.</p>"
        ),
        "<h2>Middle frames, what the captioner says and what the speaker says</h2>",
        (
            f'<p class="note">{captions["all_right"]:.1%} of {captions["count"]:,} captions name size, colour, shape '
            "and place rightly.</p>"
        ),
        f'<div class="cards">{_cards(out)}</div>',
        "<h2>How far texts are from the descriptions of the task</h2>",
        (
            f'<p class="note">Normalised mutual information of two clusters and two corpora, '
            f"{results['nmi_samples']:,} texts a side: 0 cannot be told apart, 1 fully apart.</p>"
        ),
        _nmi_table(results),
        f'<p><img class="figure" alt="NMI heat map" src="{_data_url(out / "nmi" / "nmi.png")}"></p>',
        "<h2>Loss of post-pretraining</h2>",
        (
            f'<p class="note">Mean of the first tenth of the steps {mean_loss(results, end=False):.3f}, of the last '
            f"{mean_loss(results, end=True):.3f}.</p>"
        ),
        loss_curve(results["loss"]),
        "<h2>Finding test clips by their descriptions</h2>",
        f'<p class="note">{results["retrieval"]["trained"]["num_queries"]:,} clips, recalls in percent.</p>',
        _retrieval_table(results),
        "<h2>The commands</h2>",
        f"<pre>{html.escape(chr(10).join(shlex.join(command) for command in commands))}</pre>",
    ]
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>clipvip demo</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
        f"<body>\n{chr(10).join(parts)}\n</body></html>\n"
    )
    atomic_write_bytes(path, page.encode())


def _cards(out: Path) -> str:
    shard = list_shards(out / "shards-train")[0]
    captions = read_captions(out / "captions", shard.stem)
    cards = []
    for sample in islice(read_shard(shard), _NUM_CARDS):
        picture = base64.b64encode(sample.jpeg(sample.num_frames // 2)).decode()
        said = html.escape(sample.subtitle) or "(nobody speaks)"
        cards.append(
            f'<div class="card"><img alt="" src="data:image/jpeg;base64,{picture}"><div>'
            f"<b>caption</b>{html.escape(captions.get(sample.key, '(none)'))}"
            f"<b>subtitle</b>{said}</div></div>"
        )
    return "\n".join(cards)


def _data_url(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _nmi_table(results: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{row['mean']:.3f} ± {row['std']:.3f}</td></tr>"
        for name, row in results["nmi"].items()
    )
    return f"<table><tr><th>texts</th><th>NMI to descriptions</th></tr>{rows}</table>"


def _retrieval_table(results: dict[str, Any]) -> str:
    rows = ""
    for name, row in retrieval_rows(results):
        cells = "".join(f"<td>{100 * row[f'r{k}']:.1f}</td>" for k in (1, 5, 10))
        best = ' class="best"' if name.startswith("trained") else ""
        rows += f"<tr{best}><td>{html.escape(name)}</td>{cells}<td>{row['median_rank']:.1f}</td></tr>"
    return f"<table><tr><th></th><th>R@1</th><th>R@5</th><th>R@10</th><th>median rank</th></tr>{rows}</table>"


def loss_curve(points: Sequence[Sequence[float]], *, width: int = 720, height: int = 240) -> str:
    """(step, loss) points as an SVG figure with the ends of both axes."""
    left, bottom, top, right = 52, 26, 10, 12
    steps, losses = [step for step, _ in points], [loss for _, loss in points]
    low, high = min(losses), max(losses)

    def place(step: float, loss: float) -> str:
        across = (step - steps[0]) / max(1, steps[-1] - steps[0])
        up = (loss - low) / max(1e-9, high - low)
        x = left + across * (width - left - right)
        return f"{x:.1f},{top + (1 - up) * (height - top - bottom):.1f}"

    line = " ".join(place(step, loss) for step, loss in points)
    floor = height - bottom
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="loss by step">'
        f'<path d="M{left} {top}V{floor}H{width - right}" fill="none" stroke="#aab3c0"/>'
        f'<polyline points="{line}" fill="none" stroke="#2458c5" stroke-width="1.6"/>'
        f'<text x="{left - 6}" y="{top + 10}" text-anchor="end">{high:.2f}</text>'
        f'<text x="{left - 6}" y="{floor}" text-anchor="end">{low:.2f}</text>'
        f'<text x="{left}" y="{height - 8}">step {steps[0]:.0f}</text>'
        f'<text x="{width - right}" y="{height - 8}" text-anchor="end">step {steps[-1]:.0f}</text></svg>'
    )
