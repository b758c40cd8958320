"""What the demo's stages found, by their own files, and whether it is what the demo is to show.

Only this compares with what the world really showed; no stage knows that.
"""

import json
from pathlib import Path
from typing import Any

from clipvip.experiments.demo.corpus import read_truth
from clipvip.experiments.demo.texts import properties_in_caption
from clipvip.pipeline.pages.tables import Column, Table
from clipvip.pipeline.train.logs import read_log
from clipvip.shards.format.captions import read_captions
from clipvip.shards.tar.reader import list_shards

_PROPERTIES = ("size", "colour", "shape", "place")


def read_results(out: Path) -> dict[str, Any]:
    """All numbers of a finished demo in the folder `out`."""
    nmi = json.loads((out / "nmi" / "nmi.json").read_text())
    return {
        "captions": judge_captions(out),
        "nmi": {pair["source"]: {"mean": pair["mean"], "std": pair["std"]} for pair in nmi["gaps"]},
        "nmi_samples": nmi["options"]["samples"],
        "loss": [[row["step"], row["loss"]] for row in read_log(out / "run")],
        "retrieval": {
            name: _retrieval(out / f"retrieval-{name}") for name in ("start", "frame-average", "trained")
        },
    }


def judge_captions(out: Path) -> dict[str, Any]:
    """Shares of the captions that name the right size, colour, shape, place, and all four."""
    truth = read_truth(out / "corpus")
    captions: dict[str, str] = {}
    for shard in list_shards(out / "shards-train"):
        captions |= read_captions(out / "captions", shard.stem)
    rows = [
        [told == true for told, true in zip(properties_in_caption(text), truth[key].appearance, strict=True)]
        for key, text in captions.items()
    ]
    shares = {name: sum(row[n] for row in rows) / len(rows) for n, name in enumerate(_PROPERTIES)}
    return {"count": len(rows), "all_right": sum(map(all, rows)) / len(rows), **shares}


def _retrieval(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / "retrieval.json").read_text())
    return {name: content[name] for name in ("num_queries", "chance")} | content["metrics"]["plain"]


def mean_loss(results: dict[str, Any], *, end: bool) -> float:
    """Mean over the first or last tenth of the logged steps."""
    values = [loss for _, loss in results["loss"]]
    count = max(1, len(values) // 10)
    part = values[-count:] if end else values[:count]
    return float(sum(part) / len(part))


def failed_expectations(results: dict[str, Any], *, must_improve: bool = True) -> list[str]:
    """What did not come out as the demo is to show.

    `must_improve`: the trained model has to find more than the start, which is the same model at step 0; a
    quick demo trains too little for it.
    """
    retrieval, captions = results["retrieval"], results["captions"]["all_right"]
    start, trained = (retrieval[name]["text_to_video"]["r1"] for name in ("start", "trained"))
    chance = retrieval["trained"]["chance"]["r1"]
    failed = []
    if captions <= 0.5:
        failed.append(f"only {captions:.0%} of the captions are right")
    if results["nmi"]["subtitles"]["mean"] <= results["nmi"]["captions"]["mean"]:
        failed.append("captions are not nearer to the descriptions than subtitles are")
    if mean_loss(results, end=True) >= mean_loss(results, end=False):
        failed.append("the loss did not fall")
    if trained <= 5 * chance:
        failed.append(f"R@1 {trained:.1%} is not well above chance, {chance:.1%}")
    if must_improve and trained <= start:
        failed.append(f"R@1 {trained:.1%} is not better than the start's, {start:.1%}")
    return failed


def summary(results: dict[str, Any]) -> str:
    """The numbers as a short table for the terminal."""
    captions = results["captions"]
    first, last = (mean_loss(results, end=end) for end in (False, True))
    nmi = {name: f"{row['mean']:.3f} ± {row['std']:.3f}" for name, row in results["nmi"].items()}
    shares = ", ".join([f"{captions['count']:,}", *(f"{name} {captions[name]:.1%}" for name in _PROPERTIES)])
    lines = [
        f"captions right about the middle frame   {captions['all_right']:.1%} of {shares}",
        f"NMI to descriptions                     subtitles {nmi['subtitles']}, captions {nmi['captions']}",
        f"loss, first and last tenth              {first:.3f} -> {last:.3f}",
        "",
        retrieval_table(results).text(gap=""),
    ]
    return "\n".join(lines)


def retrieval_table(results: dict[str, Any]) -> Table:
    """Chance, CLIP as it is, the start and the trained model, by name; recalls in percent."""
    retrieval = results["retrieval"]
    rows = [
        ("chance", retrieval["trained"]["chance"]),
        ("CLIP, frames averaged", retrieval["frame-average"]["text_to_video"]),
        ("start: CLIP-ViP at step 0", retrieval["start"]["text_to_video"]),
        ("trained: CLIP-ViP", retrieval["trained"]["text_to_video"]),
    ]
    columns = [Column("retrieval, text to video", width=40)]
    columns += [Column(name, ".1f", 7) for name in ("R@1", "R@5", "R@10", "MdR")]
    return Table(
        columns,
        [(name, *(100 * row[f"r{k}"] for k in (1, 5, 10)), row["median_rank"]) for name, row in rows],
    )
