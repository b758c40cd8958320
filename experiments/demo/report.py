"""The demo's page: frames with what is said of them, and the numbers of every stage."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipvip.experiments.demo.results import mean_loss, retrieval_table
from clipvip.pipeline.pages.cards import Card, Cards, draw_card, pick_evenly
from clipvip.pipeline.pages.html import Section, data_url, render_page
from clipvip.pipeline.pages.plots import Point, line_plot
from clipvip.pipeline.pages.tables import Column, Table
from clipvip.shards.files.atomic import atomic_write_bytes
from clipvip.shards.tar.reader import list_shards

_NUM_CARDS = 12


def write_report(path: Path, out: Path, results: dict[str, Any], commands: Sequence[Sequence[str]]) -> None:
    """Write the page to `path` from the demo's folder `out`."""
    captions = results["captions"]
    picks = pick_evenly(list_shards(out / "shards-train"), _NUM_CARDS, captions=out / "captions")
    heat_map = data_url((out / "nmi" / "nmi.png").read_bytes(), kind="image/png")
    loss = [Point(step, loss) for step, loss in results["loss"]]
    sections = [
        Section(
            "Middle frames, what the captioner says and what the speaker says",
            f"{captions['all_right']:.1%} of {captions['count']:,} captions name size, colour, shape"
            " and place rightly.",
            [Cards(list(map(draw_card, picks)))],
        ),
        Section(
            "How far texts are from the descriptions of the task",
            "Normalised mutual information of two clusters and two corpora, "
            f"{results['nmi_samples']:,} texts a side: 0 cannot be told apart, 1 fully apart.",
            [_nmi_table(results), Cards([Card([heat_map], [])])],
        ),
        Section(
            "Loss of post-pretraining",
            f"Mean of the first tenth of the steps {mean_loss(results, end=False):.3f}, of the last "
            f"{mean_loss(results, end=True):.3f}.",
            [line_plot({"": loss}, title="Loss by step", x_label="steps", y_label="loss")],
        ),
        Section(
            "Finding test clips by their descriptions",
            f"{results['retrieval']['trained']['num_queries']:,} clips, recalls in percent.",
            [retrieval_table(results)],
        ),
        Section("The commands", code="\n".join(map(shlex.join, commands))),
    ]
    page = render_page(
        "clipvip, from videos to a video-language model",
        sections,
        note="A made-up world of moving shapes; every number below was computed by the commands at the end.",
    )
    atomic_write_bytes(path, page)


def _nmi_table(results: dict[str, Any]) -> Table:
    rows = [(name, f"{row['mean']:.3f} ± {row['std']:.3f}") for name, row in results["nmi"].items()]
    return Table((Column("texts"), Column("NMI to descriptions", ">")), rows)
