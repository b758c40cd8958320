"""What the demo's stages found, by their own files, and whether it is what the demo is to show.

Only this compares with what the world really showed; no stage knows that.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipvip.analysis.bootstrap import mean_interval
from clipvip.experiments.demo.corpus import read_truth
from clipvip.experiments.demo.found import find, told_apart, twins_of
from clipvip.experiments.demo.texts import properties_in_caption
from clipvip.experiments.demo.world import WEIGHTS, Scene
from clipvip.pipeline.pages.tables import Column, Table
from clipvip.pipeline.train.logs import read_log
from clipvip.shards.format.captions import read_captions
from clipvip.shards.tar.reader import list_shards


@dataclass(frozen=True)
class Scored:
    """A model that is scored: how it is called for readers, and its folder, in the demo's if relative."""

    title: str
    folder: str


# In the order of the story.
MODELS = {
    "clip_mean_pool": Scored("CLIP, frames averaged", str(WEIGHTS / "clip")),
    "clip_mean_pool_trained": Scored("CLIP, frames averaged, same training", "tuned-mean-pool/model"),
    "clip_vip_start": Scored("CLIP-ViP before training", "clip_vip_start"),
    "clip_vip_pretrained": Scored("CLIP-ViP, post-pretrained", "run/model"),
    "clip_vip_trained": Scored("CLIP-ViP, post-pretrained and fine-tuned", "tuned/model"),
}
BASELINE, TRAINED = "clip_mean_pool", "clip_vip_trained"
# That which has had the same texts and steps.
COMPARED = "clip_mean_pool_trained"
# How much more the trained model has to find, in recall, and the intervals must be apart.
_LEAST_GAIN = 0.15
# NMI of corpora that cannot be told apart, up to chance.
NO_GAP = 0.02
PROPERTIES = ("size", "colour", "shape", "place")


def read_results(out: Path) -> dict[str, Any]:
    """All numbers of a finished demo in the folder `out`."""
    nmi = json.loads((out / "nmi" / "nmi.json").read_text())
    rows = {name: _retrieval(out, name, scored) for name, scored in MODELS.items()}
    first = next(iter(rows.values()))
    return {
        "seed": json.loads((out / "corpus" / "world.json").read_text())["seed"],
        "captions": judge_captions(out),
        "nmi": {pair["source"]: {"mean": pair["mean"], "std": pair["std"]} for pair in nmi["gaps"]},
        "nmi_samples": nmi["options"]["samples"],
        "loss": _loss(out / "run"),
        "loss_mean_pool": _loss(out / "run-mean-pool"),
        "num_queries": first["num_queries"],
        "retrieval": {"chance": {"text_to_video": first["chance"]}} | rows,
    }


def judge_captions(out: Path) -> dict[str, Any]:
    """Shares of the captions that name the right size, colour, shape, place, and all four."""
    truth = read_truth(out / "corpus")
    captions: dict[str, str] = {}
    for shard in list_shards(out / "shards-train"):
        captions |= read_captions(out / "captions", shard.stem)
    rows = [wrong_properties(text, truth[key]) for key, text in captions.items()]
    shares = {name: sum(name not in row for row in rows) / len(rows) for name in PROPERTIES}
    return {"count": len(rows), "all_right": sum(not row for row in rows) / len(rows), **shares}


def wrong_properties(caption: str, scene: Scene) -> list[str]:
    """Of size, colour, shape and place those that a caption does not name rightly."""
    told = zip(PROPERTIES, properties_in_caption(caption), scene.appearance, strict=True)
    return [name for name, found, true in told if found != true]


def _loss(run: Path) -> list[list[float]]:
    return [[row["step"], row["loss"]] for row in read_log(run)]


def _retrieval(out: Path, name: str, scored: Scored) -> dict[str, Any]:
    """What `clipvip-eval retrieval` wrote, and how often a text is nearer to its clip than to the reverse."""
    content = json.loads((out / f"retrieval-{name}" / "retrieval.json").read_text())
    found = find(out / scored.folder, out / "shards-test")
    told = told_apart(found, twins_of(found.keys, read_truth(out / "corpus")))
    direction = {"right": float(told.mean()), "interval": list(mean_interval(told))}
    about = {key: content[key] for key in ("num_queries", "chance")}
    return about | content["metrics"]["plain"] | {"direction": direction}


def mean_loss(results: dict[str, Any], *, end: bool) -> float:
    """Mean over the first or last tenth of the logged steps."""
    values = [loss for _, loss in results["loss"]]
    count = max(1, len(values) // 10)
    part = values[-count:] if end else values[:count]
    return float(sum(part) / len(part))


def failed_expectations(results: dict[str, Any], *, must_improve: bool = True) -> list[str]:
    """What did not come out as the demo is to show.

    `must_improve`: the trained model has to find far more than CLIP with its frames averaged, even where both
    intervals are at their worst; a quick demo trains too little for it.
    """
    retrieval, captions = results["retrieval"], results["captions"]["all_right"]
    average, trained = (retrieval[name]["text_to_video"] for name in (BASELINE, TRAINED))
    chance = retrieval["chance"]["text_to_video"]["r1"]
    failed = []
    if captions <= 0.5:
        failed.append(f"only {captions:.0%} of the captions are right")
    nmi = {name: row["mean"] for name, row in results["nmi"].items()}
    if nmi["captions"] > max(nmi["subtitles"], NO_GAP):
        failed.append("captions are farther from the descriptions than subtitles are")
    if mean_loss(results, end=True) >= mean_loss(results, end=False):
        failed.append("the loss did not fall")
    if trained["r1"] <= 5 * chance:
        failed.append(f"R@1 {trained['r1']:.1%} is not well above chance, {chance:.1%}")
    apart = trained["intervals"]["r1"][0] > average["intervals"]["r1"][1]
    if must_improve and not (apart and trained["r1"] >= average["r1"] + _LEAST_GAIN):
        failed.append(
            f"R@1 {trained['r1']:.1%} is too near to the {average['r1']:.1%} of averaged frames: it must be "
            f"{100 * _LEAST_GAIN:.0f} points higher, and the 95% intervals must not overlap"
        )
    return failed


def summary(results: dict[str, Any]) -> str:
    """The numbers as a short table for the terminal."""
    captions = results["captions"]
    first, last = (mean_loss(results, end=end) for end in (False, True))
    nmi = {name: f"{row['mean']:.3f} ± {row['std']:.3f}" for name, row in results["nmi"].items()}
    shares = ", ".join([f"{captions['count']:,}", *(f"{name} {captions[name]:.1%}" for name in PROPERTIES)])
    lines = [
        f"captions right about the middle frame   {captions['all_right']:.1%} of {shares}",
        f"NMI to descriptions                     subtitles {nmi['subtitles']}, captions {nmi['captions']}",
        f"loss, first and last tenth              {first:.3f} -> {last:.3f}",
        "",
        retrieval_table(results).text(gap=""),
    ]
    return "\n".join(lines)


def retrieval_table(results: dict[str, Any]) -> Table:
    """Chance and all models by name; recalls in percent, with the interval of R@1."""
    retrieval = results["retrieval"]
    rows: list[tuple[object, ...]] = [_row("chance", retrieval["chance"], 0.5)]
    rows += [
        _row(scored.title, retrieval[name], retrieval[name]["direction"]["right"])
        for name, scored in MODELS.items()
    ]
    columns = [Column("text to video", width=42), Column("R@1", ".1f", 6), Column("95% interval", ">", 14)]
    columns += [Column(name, ".1f", 7) for name in ("R@5", "R@10", "MdR")]
    return Table([*columns, Column("direction", ".1f", 11)], rows)


def _row(name: str, found: dict[str, Any], direction: float) -> tuple[object, ...]:
    metrics = found["text_to_video"]
    ends = metrics.get("intervals", {}).get("r1")
    interval = f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}" if ends else ""
    recalls = [100 * metrics[f"r{k}"] for k in (5, 10)]
    return name, 100 * metrics["r1"], interval, *recalls, metrics["median_rank"], 100 * direction
