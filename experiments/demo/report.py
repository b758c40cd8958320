"""The demo's page: the result first, then what is found by whom, what is said of frames, and every number."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from clipvip.experiments.demo.corpus import read_truth
from clipvip.experiments.demo.found import Found, find, queries_to_show, twins_of
from clipvip.experiments.demo.results import (
    BASELINE,
    COMPARED,
    MODELS,
    NO_GAP,
    PROPERTIES,
    TRAINED,
    mean_loss,
    retrieval_table,
    wrong_properties,
)
from clipvip.experiments.demo.world import Scene
from clipvip.pipeline.pages.cards import Card, Cards, draw_card, pick_evenly, pick_keys
from clipvip.pipeline.pages.html import Block, Section, render_page
from clipvip.pipeline.pages.plots import Bar, BarChart, Point, line_plot
from clipvip.shards.files.atomic import atomic_write_bytes
from clipvip.shards.tar.reader import list_shards

_NUM_CARDS = 12
_NUM_FOUND = 3
_NUM_FRAMES = 4
_BLIND = 50  # percent: an encoder that cannot see order has two equal answers to each question


def write_report(path: Path, out: Path, results: dict[str, Any], commands: Sequence[Sequence[str]]) -> None:
    """Write the page to `path` from the demo's folder `out`."""
    truth = read_truth(out / "corpus")
    sections = [
        _result(results),
        *_searches(out, truth),
        _captions(out, results, truth),
        _gap(results),
        _training(results),
        Section("All numbers", "Recalls in percent.", [retrieval_table(results)]),
        Section("The commands", code="\n".join(map(shlex.join, commands))),
    ]
    note = "A made-up world of moving shapes. Every number was computed by the commands at the end."
    atomic_write_bytes(path, render_page("CLIP-ViP learns what moves where", sections, note=note))


def headline(results: dict[str, Any]) -> str:
    """The result in a sentence, whatever it is."""
    average, trained = (results["retrieval"][name]["text_to_video"]["r1"] for name in (BASELINE, TRAINED))
    if trained > average and 100 * trained > _BLIND:
        return (
            f"An encoder that cannot see order finds at most half of the clips; CLIP-ViP finds {trained:.1%}."
        )
    return f"CLIP with its frames averaged finds {average:.1%} of the clips; CLIP-ViP finds {trained:.1%}."


def _result(results: dict[str, Any]) -> Section:
    retrieval = results["retrieval"]
    bars = [Bar("chance", 100 * retrieval["chance"]["text_to_video"]["r1"])]
    for name, scored in MODELS.items():
        found = retrieval[name]["text_to_video"]
        low, high = (100 * end for end in found["intervals"]["r1"])
        bars.append(Bar(scored.title, 100 * found["r1"], low, high, is_main=name == TRAINED))
    chart = BarChart(
        "R@1, text to video, in percent, with 95% intervals",
        bars,
        most=100,
        limits={f"limit of an order-blind encoder: {_BLIND}": _BLIND},
        is_wide=True,
    )
    note = (
        f"{results['num_queries']:,} test clips: half of them are the other half played backwards. Each "
        "has its own description, and is found if it comes first among all clips. An encoder that averages "
        "frames cannot tell a clip from its reverse. “Same training”: the same data, losses and number of "
        "steps as CLIP-ViP."
    )
    return Section(headline(results), note, [chart])


def _searches(out: Path, truth: dict[str, Scene]) -> list[Section]:
    """A clip and its twin, which the trained model finds, and one that it does not: what both models find."""
    shards = out / "shards-test"
    models = {name: find(out / MODELS[name].folder, shards) for name in (COMPARED, TRAINED)}
    trained = models[TRAINED]
    twins = twins_of(trained.keys, truth)
    titles = ("Found: a clip", "Found: the same clip played backwards", "Missed")
    sections = []
    for title, query in zip(titles, queries_to_show(trained, twins), strict=True):
        columns: list[Block] = [
            Cards(_strips(models[name], query, int(twins[query]), shards), MODELS[name].title)
            for name in models
        ]
        note = "The three clips that each model ranks first. Frames run from left to right."
        sections.append(Section(f"{title}: “{trained.texts[query]}”", note, columns))
    return sections


def _strips(found: Found, query: int, twin: int, shards: Path) -> list[Card]:
    first = found.first(query, _NUM_FOUND)
    picks = {pick.key: pick for pick in pick_keys(list_shards(shards), [found.keys[n] for n in first])}
    cards = []
    for rank, number in enumerate(first, start=1):
        what = "another clip"
        if number in (query, twin):
            what = "the right clip" if number == query else "its reverse"
        note = (f"{rank}", f"{'✓' if number == query else '✗'} {what}")
        card = draw_card(replace(picks[found.keys[number]], notes=(note,)), num_frames=_NUM_FRAMES)
        cards.append(replace(card, where="", verdict=number == query))
    return cards


def _captions(out: Path, results: dict[str, Any], truth: dict[str, Scene]) -> Section:
    cards = []
    for pick in pick_evenly(list_shards(out / "shards-train"), _NUM_CARDS, captions=[out / "captions"]):
        caption = pick.captions[0] if pick.captions else ""
        wrong = wrong_properties(caption, truth[pick.key])
        said = f"✗ wrong: {', '.join(wrong)}" if wrong else "✓ right"
        card = draw_card(replace(pick, captions=(), captions_are=()))
        texts = [("caption", caption), ("", said), *(("said", text) for kind, text in card.texts)]
        cards.append(replace(card, texts=texts, where="", verdict=not wrong))
    found = results["captions"]
    shares = ", ".join(f"{name} {found[name]:.1%}" for name in PROPERTIES)
    return Section(
        "Middle frames: what the captioner says, and what the speaker says",
        f"{found['all_right']:.1%} of {found['count']:,} captions are right in everything that they name. By "
        f"property: {shares}. A caption describes a still frame; the speaker also names the motion.",
        [Cards(cards)],
    )


def _gap(results: dict[str, Any]) -> Section:
    rows = results["nmi"].items()
    bars = [
        Bar(name, row["mean"], max(0.0, row["mean"] - row["std"]), row["mean"] + row["std"])
        for name, row in rows
    ]
    most = max(*(bar.high or 0 for bar in bars), 0.1)
    note = (
        "The domain gap is the normalised mutual information (NMI) of the two corpora and two clusters of "
        f"their texts: 0 where the corpora cannot be told apart, 1 where the clusters are the corpora. "
        f"{results['nmi_samples']:,} texts of each; the lines are standard deviations."
    )
    if all(row["mean"] <= NO_GAP for _, row in rows):
        note += (
            " In this small world the clusters split the texts by colour, so that both gaps are near zero."
        )
    title = f"NMI to the descriptions, on a scale from 0 to {most:.2g}"
    return Section(
        "How far subtitles and captions are from the descriptions",
        note,
        [BarChart(title, bars, most=most, spec=".3f")],
    )


def _training(results: dict[str, Any]) -> Section:
    lines = {
        "frames averaged": [Point(step, loss) for step, loss in results["loss_mean_pool"]],
        "CLIP-ViP": [Point(step, loss) for step, loss in results["loss"]],
    }
    return Section(
        "Loss of post-pretraining",
        f"The mean loss of CLIP-ViP is {mean_loss(results, end=False):.2f} over the first tenth of the "
        f"steps, and {mean_loss(results, end=True):.2f} over the last tenth.",
        [line_plot(lines, title="Loss of variant (d), by step", x_label="steps", y_label="loss")],
    )
