"""From embeddings of texts and clips to the numbers of a retrieval test, and their table. Nothing is encoded here."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from clipvip.analysis.bootstrap import rank_intervals
from clipvip.analysis.rescoring import dual_softmax, querybank_norm
from clipvip.analysis.retrieval import (
    RECALLS_AT,
    Direction,
    Products,
    Ranks,
    embedding_ranks,
    similarities,
    similarity_ranks,
)
from clipvip.pipeline.pages.tables import Column, Table
from clipvip.pipeline.runtime.errors import UserError

if TYPE_CHECKING:
    import torch

    from clipvip.pipeline.evaluate.embeddings import PairEmbeddings

DIRECTIONS: tuple[Direction, Direction] = ("text_to_video", "video_to_text")
RESCORED_NOTE = "uses all queries of the set at once: not comparable with a search that sees one at a time"
# DSL and QB-Norm hold the whole matrix, and a few copies of it: 2 GiB of float32 each.
_MAX_RESCORED_SCORES = 2**29
DEFAULT_RESAMPLES = 1000
_FEW_CLIPS = 20

Metrics = dict[str, Any]


def score_pairs(
    pairs: "PairEmbeddings",
    *,
    queries: str,
    settings: Mapping[str, int],
    dsl: bool = False,
    qb_norm: bool = False,
    bank: np.ndarray | None = None,
    resamples: int = DEFAULT_RESAMPLES,
    device: "torch.device | None" = None,
) -> dict[str, Any]:
    """All that a retrieval test tells; `queries` says what the texts are, `settings` is of `settings_of`.

    See `all_metrics`. `warnings` is there where there is something to be wary of.
    """
    warning = few_clips_warning(len(pairs.videos))
    return {
        **({"warnings": [warning]} if warning else {}),
        "queries": queries,
        "num_queries": len(pairs.texts),
        "num_clips": len(pairs.videos),
        "num_skipped": len(pairs.skips),
        "num_distinct_texts": len(set(pairs.sentences)),
        **settings,
        "metrics": all_metrics(
            pairs.texts,
            pairs.videos,
            pairs.labels,
            dsl=dsl,
            qb_norm=qb_norm,
            bank=bank,
            resamples=resamples,
            device=device,
        ),
        "chance": chance(len(pairs.videos)),
    }


def few_clips_warning(num_clips: int) -> str | None:
    """What is to be said of a test of so few clips that its numbers tell next to nothing; else None."""
    if num_clips >= _FEW_CLIPS:
        return None
    by_chance = 100 * min(10 / max(num_clips, 1), 1)
    clips = "1 clip" if num_clips == 1 else f"{num_clips} clips"
    return (
        f"only {clips} to be found among: chance alone has R@10 {by_chance:.0f}, and the numbers say little of the model; "
        f"give {_FEW_CLIPS} or more"
    )


def all_metrics(
    texts: np.ndarray,
    videos: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    dsl: bool,
    qb_norm: bool,
    bank: np.ndarray | None = None,
    resamples: int = 0,
    device: "torch.device | None" = None,
) -> dict[str, Any]:
    """Both directions' metrics of embeddings of texts (n, dim) and videos (m, dim), plain and with what is asked for.

    `labels` (n,) is the video of each text, text i's being video i without. `bank` (k, dim) are embeddings of
    other texts for QB-Norm from text to video; without it, and from video to text, the queries are their own
    bank. With `resamples` each metric has an interval, see `rank_intervals`. Where `device` is a GPU, it multiplies.

    Raises:
        UserError: an embedding that is no number, or too many pairs for rescoring.
    """
    products = torch_products(device) if device is not None and device.type != "cpu" else None
    try:
        plain = {
            name: embedding_ranks(texts, videos, labels, direction=name, products=products)
            for name in DIRECTIONS
        }
    except ValueError as error:
        raise UserError(f"{error}; the model's weights may be damaged") from error
    found: dict[str, dict[Direction, Ranks]] = {"plain": plain}
    if dsl or qb_norm:
        size = max(len(texts), 0 if bank is None else len(bank)) * len(videos)
        if size > _MAX_RESCORED_SCORES:
            limit = int(_MAX_RESCORED_SCORES**0.5)
            raise UserError(
                f"--dsl and --qb-norm hold all scores at once, for {limit:,} clips at most; leave them out"
            )
        similarity = similarities(texts, videos)
    if dsl:
        # One matrix for both directions, as the released code has it.
        rescored = dual_softmax(similarity)
        found["dsl"] = {name: similarity_ranks(rescored, labels, direction=name) for name in DIRECTIONS}
    if qb_norm:
        normalised = querybank_norm(similarity, None if bank is None else bank @ videos.T)
        by_video = querybank_norm(similarity.T)
        found["qb_norm"] = {
            "text_to_video": similarity_ranks(normalised, labels),
            "video_to_text": similarity_ranks(by_video.T, labels, direction="video_to_text"),
        }
    metrics: dict[str, Any] = {
        kind: {name: rank_metrics(ranks, resamples) for name, ranks in both.items()}
        for kind, both in found.items()
    }
    for kind in metrics.keys() - {"plain"}:
        metrics[kind]["note"] = RESCORED_NOTE
    return metrics


def torch_products(device: "torch.device") -> Products:
    """Inner products that `device` computes, for `embedding_ranks`; it holds one side's embeddings and a chunk of scores."""
    import torch

    def of_columns(columns: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        there = torch.from_numpy(columns).to(device)

        def of_rows(rows: np.ndarray) -> np.ndarray:
            scores: np.ndarray = (torch.from_numpy(rows).to(device) @ there.T).cpu().numpy()
            return scores

        return of_rows

    return of_columns


def rank_metrics(ranks: Ranks, resamples: int) -> Metrics:
    """`Ranks.metrics`, the mean of the recalls, and with `resamples` their 95% intervals."""
    metrics: Metrics = ranks.metrics()
    metrics["mean_recall"] = float(np.mean([metrics[f"r{k}"] for k in RECALLS_AT]))
    if resamples:
        intervals = rank_intervals(ranks, resamples=resamples)
        metrics["intervals"] = {name: list(interval) for name, interval in intervals.items()}
    return metrics


def chance(num_clips: int) -> Metrics:
    """The expected metrics of a random order."""
    recalls = {f"r{k}": min(1.0, k / num_clips) for k in RECALLS_AT}
    middle = (num_clips + 1) / 2
    mean_recall = sum(recalls.values()) / len(recalls)
    return {**recalls, "mean_recall": mean_recall, "median_rank": middle, "mean_rank": middle}


def table(result: dict[str, Any]) -> str:
    """Recalls in percent, as papers have them; ranks from 1."""
    num_queries = result["num_queries"]
    searched = f"searched by their {result['queries']}"
    if num_queries != result["num_clips"]:
        searched = f"searched by {num_queries:,} {result['queries']}"
    lines = [f"{result['num_clips']:,} clips, {searched}, {result['num_frames']} frames each"]
    if result["num_distinct_texts"] < num_queries:
        lines.append(f"({num_queries - result['num_distinct_texts']:,} of the texts repeat another)")
    rows = []
    for kind, directions in result["metrics"].items():
        suffix = {"plain": "", "dsl": ", DSL*", "qb_norm": ", QB-Norm*"}[kind]
        for direction in DIRECTIONS:
            name = direction.replace("_", " ") + suffix
            rows.append(_row(name, directions[direction]))
            intervals = directions[direction].get("intervals", {})
            for end, name in enumerate(("  95% interval, from", "  to") if intervals else ()):
                rows.append(_row(name, {key: ends[end] for key, ends in intervals.items()}))
    rows.append(_row("chance", result["chance"]))
    lines.append(Table(_COLUMNS, rows).text(gap=""))
    if len(result["metrics"]) > 1:
        lines.append(f"* {RESCORED_NOTE}")
    return "\n".join(lines)


_RECALLS = [*(f"r{k}" for k in RECALLS_AT), "mean_recall"]
_RECALL_COLUMNS = [Column(name, ".1f", 7) for name in ("R@1", "R@5", "R@10", "mean")]
_COLUMNS = (Column(width=24), *_RECALL_COLUMNS, Column("MdR", ".1f", 9), Column("MeanR", ".1f", 10))


def _row(name: str, metrics: Metrics) -> tuple[object, ...]:
    recalls = (100 * metrics[recall] for recall in _RECALLS)
    return name, *recalls, metrics["median_rank"], metrics["mean_rank"]
