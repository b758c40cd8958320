"""The stage `retrieval`: how well a model finds clips by text and texts by clip."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click
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
from clipvip.pipeline.evaluate.baselines import Figure, with_baselines
from clipvip.pipeline.evaluate.options import (
    DEFAULT_RESAMPLES,
    Bootstrap,
    ClipsOptions,
    Page,
    require_page_folder,
    result_folder,
)
from clipvip.pipeline.evaluate.output import Output, Scores, finish, why_none
from clipvip.pipeline.pages.tables import Column, Table
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.options import ALSO, opt, options, require_captions
from clipvip.pipeline.runtime.report import Report, StageReport, counted
from clipvip.pipeline.runtime.stage import stage
from clipvip.shards.errors import Skip
from clipvip.shards.files.stores import Location
from clipvip.shards.tar.reader import list_shards

if TYPE_CHECKING:
    import torch

    from clipvip.pipeline.evaluate.embeddings import PairEmbeddings

RESULT_NAME = "retrieval.json"
DIRECTIONS: tuple[Direction, Direction] = ("text_to_video", "video_to_text")
RESCORED_NOTE = "uses all queries of the set at once: not comparable with a search that sees one at a time"
# DSL and QB-Norm hold the whole matrix, and a few copies of it: 2 GiB of float32 each.
_MAX_RESCORED_SCORES = 2**29
_FEW_CLIPS = 20


@options
class RetrievalOptions(ClipsOptions):
    """Options of `retrieval`."""

    captions: tuple[Location, ...] | None = opt(
        f"Folder of captions to search by instead of subtitles; may be given several times; {ALSO}.",
        default=(),
    )
    dsl: bool = opt("Score with the dual softmax too, which uses all queries at once.", default=False)
    qb_norm: bool = opt(
        "Score with QB-Norm too; its bank of texts is the queries, or --query-bank.", default=False
    )
    query_bank: Location | None = opt(
        "Texts for the bank of --qb-norm, such as those of training: shards, captions, or a file of lines.",
        default=None,
    )
    all_captions: bool = opt(
        "Search by every caption of a clip that has several; each is right for that clip.", default=False
    )
    out: Location | None = result_folder(RESULT_NAME)
    page: Page = None
    bootstrap: Bootstrap = DEFAULT_RESAMPLES


@dataclass(frozen=True)
class RankMetrics:
    """Recalls, and their mean, as fractions of the queries; ranks from 1; 95% intervals by these names."""

    r1: float
    r5: float
    r10: float
    median_rank: float
    mean_rank: float
    mean_recall: float
    intervals: dict[str, list[float]] | None = None

    @classmethod
    def of(cls, ranks: Ranks, resamples: int) -> "RankMetrics":
        """Without `resamples` there are no intervals."""
        metrics = ranks.metrics()
        intervals = rank_intervals(ranks, resamples=resamples) if resamples else {}
        return cls(
            **metrics,
            mean_recall=float(np.mean([metrics[f"r{k}"] for k in RECALLS_AT])),
            intervals={name: list(ends) for name, ends in intervals.items()} or None,
        )


@dataclass(frozen=True)
class BothWays:
    """Each text among all clips, and each clip among all texts; `note` says what to bear in mind."""

    text_to_video: RankMetrics
    video_to_text: RankMetrics
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class RetrievalScores(Scores):
    """All that a retrieval test tells; `queries` says what the texts are, `warnings` what to be wary of.

    `metrics` are by `plain` similarity, and where that was asked for by `dsl` and `qb_norm`.
    """

    warnings: list[str] | None
    queries: str
    num_queries: int
    num_clips: int
    num_skipped: int
    num_distinct_texts: int
    num_frames: int
    max_text_tokens: int
    metrics: dict[str, BothWays]
    chance: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class RetrievalReport(StageReport):
    """The scores; those by plain similarity are at hand as `text_to_video` and `video_to_text`.

    `baselines` are those of the other models, by the names that were given.
    """

    scores: RetrievalScores
    baselines: dict[str, RetrievalScores] = field(default_factory=dict)

    @property
    def text_to_video(self) -> RankMetrics:
        return self.scores.metrics["plain"].text_to_video

    @property
    def video_to_text(self) -> RankMetrics:
        return self.scores.metrics["plain"].video_to_text


@stage(
    RetrievalOptions,
    "clipvip-eval retrieval",
    "--model runs/b32/model --shards test-clips/ --out runs/b32/eval",
    "--model runs/msrvtt/model --shards shards/msrvtt-1ka --dsl --qb-norm",
    resumable=False,
)
def retrieval(options: RetrievalOptions) -> RetrievalReport:
    """Rank all clips for each text and all texts for each clip: R@1, R@5, R@10, median and mean rank.

    A clip is the one right answer to its text; from clip to text the best of its own counts. Frames are
    evenly spread, first to last. A tie with the right answer counts against recall and gives the middle rank.

    Raises:
        UserError, DatasetError, CheckpointError: what was given cannot be used, or no clip of it.

    Examples:
        >>> import clipvip
        >>> report = clipvip.retrieval(model="runs/b32/model", shards="test-clips")
        >>> report.scores.num_clips, 0 <= report.text_to_video.r1 <= 1
        (12, True)
    """
    started = time.monotonic()
    require_page_folder(options.page)
    shards, captions, all_captions = options.shards, options.captions or (), options.all_captions
    paths = list_shards(shards)
    require_captions(captions)
    if options.query_bank is not None and not options.qb_norm:
        raise UserError("--query-bank: is the bank of --qb-norm; give that too")
    models = options.load_models()
    from clipvip.pipeline.evaluate.embeddings import embed_pairs, settings_of

    queries = "captions" if captions or all_captions else "subtitles"
    bank = _bank_texts(options.query_bank)
    scored: dict[str, RetrievalScores] = {}
    skips: list[Skip] = []
    for name, model in models.items():
        pairs = embed_pairs(options.encoder(model), paths, captions=captions, all_captions=all_captions)
        if not len(pairs.texts):
            raise UserError(f"{shards}: {why_none(pairs.skips)}")
        vectors = None if bank is None else model.encode_text(bank).numpy()
        how = Scoring(options.dsl, options.qb_norm, vectors, options.bootstrap, model.device)
        skips = skips if scored else pairs.skips
        scored[name] = score_pairs(pairs, queries=queries, settings=settings_of(model), how=how)
    scores = scored.pop(options.model)
    for warning in scores.warnings or ():
        click.echo(f"Warning: {shards}: {warning}", err=True)
    settings = settings_of(models[options.model])
    about = {"model": options.model, **options.compared(), "shards": str(shards), "queries": queries}
    result = with_baselines(scores.as_dict(), {name: one.as_dict() for name, one in scored.items()})
    report = Report("retrieval", {**about, **settings}, counts={"clips": scores.num_clips}, skips=skips)
    output = Output(RESULT_NAME, options.out, options.page, figures)
    made = finish(report, result, table(result), output=output, started=started)
    return RetrievalReport(content=made.content, text=made.text, scores=scores, baselines=scored)


def _bank_texts(place: Location | None) -> list[str] | None:
    """The texts of --query-bank; a UserError where there are none."""
    if place is None:
        return None
    from clipvip.shards.sources.texts import read_texts  # Parquet takes a while to import

    texts = [text for text in read_texts(place) if isinstance(text, str) and text]
    if not texts:
        raise UserError(f"--query-bank {place}: holds no texts")
    return texts


@dataclass(frozen=True)
class Scoring:
    """What is measured besides the plain similarity.

    `bank` (k, dim) are embeddings of other texts for QB-Norm from text to video; without it, and from video
    to text, the queries are their own bank. With `resamples` each metric has an interval. Where `device` is a
    GPU, it multiplies.
    """

    dsl: bool = False
    qb_norm: bool = False
    bank: np.ndarray | None = None
    resamples: int = DEFAULT_RESAMPLES
    device: "torch.device | None" = None


def score_pairs(
    pairs: "PairEmbeddings", *, queries: str, settings: Mapping[str, int], how: Scoring = Scoring()
) -> RetrievalScores:
    """All that a retrieval test tells, see `all_metrics`; `settings` is of `settings_of`."""
    num_clips = len(pairs.videos)
    warning = few_clips_warning(num_clips)
    return RetrievalScores(
        warnings=[warning] if warning else None,
        queries=queries,
        num_queries=len(pairs.texts),
        num_clips=num_clips,
        num_skipped=len(pairs.skips),
        num_distinct_texts=len(set(pairs.sentences)),
        **settings,
        metrics=all_metrics(pairs.texts, pairs.videos, pairs.labels, how=how),
        chance=chance(num_clips),
    )


def few_clips_warning(num_clips: int) -> str | None:
    """What is to be said of a test of so few clips that its numbers tell next to nothing; else None."""
    if num_clips >= _FEW_CLIPS:
        return None
    by_chance = 100 * min(10 / max(num_clips, 1), 1)
    clips = counted(num_clips, "clips")
    return (
        f"only {clips} to search: chance alone has R@10 {by_chance:.0f}%, so that the numbers say little "
        f"about the model; give {_FEW_CLIPS} or more"
    )


def all_metrics(
    texts: np.ndarray, videos: np.ndarray, labels: np.ndarray | None = None, *, how: Scoring
) -> dict[str, BothWays]:
    """Metrics of embeddings of texts (n, dim) and videos (m, dim), plain and with what is asked for.

    `labels` (n,) is the video of each text, text i's being video i without.

    Raises:
        UserError: an embedding that is no number, or too many pairs for rescoring.
    """
    device, bank = how.device, how.bank
    products = torch_products(device) if device is not None and device.type != "cpu" else None
    try:
        plain = {
            name: embedding_ranks(texts, videos, labels, direction=name, products=products)
            for name in DIRECTIONS
        }
    except ValueError as error:
        raise UserError(f"{error}; the model's weights may be damaged") from error
    found: dict[str, dict[Direction, Ranks]] = {"plain": plain}
    if how.dsl or how.qb_norm:
        size = max(len(texts), 0 if bank is None else len(bank)) * len(videos)
        if size > _MAX_RESCORED_SCORES:
            limit = int(_MAX_RESCORED_SCORES**0.5)
            raise UserError(
                f"--dsl and --qb-norm need all scores in memory, for {limit:,} clips at most; leave them out"
            )
        similarity = similarities(texts, videos)
    if how.dsl:
        # One matrix for both directions, as the released code has it.
        rescored = dual_softmax(similarity)
        found["dsl"] = {name: similarity_ranks(rescored, labels, direction=name) for name in DIRECTIONS}
    if how.qb_norm:
        normalised = querybank_norm(similarity, None if bank is None else bank @ videos.T)
        by_video = querybank_norm(similarity.T)
        found["qb_norm"] = {
            "text_to_video": similarity_ranks(normalised, labels),
            "video_to_text": similarity_ranks(by_video.T, labels, direction="video_to_text"),
        }
    return {
        kind: BothWays(
            RankMetrics.of(ranks["text_to_video"], how.resamples),
            RankMetrics.of(ranks["video_to_text"], how.resamples),
            None if kind == "plain" else RESCORED_NOTE,
        )
        for kind, ranks in found.items()
    }


def torch_products(device: "torch.device") -> Products:
    """Inner products that `device` computes; it holds one side's embeddings and a chunk of scores."""
    import torch

    def of_columns(columns: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        there = torch.from_numpy(columns).to(device)
        return lambda rows: (torch.from_numpy(rows).to(device) @ there.T).cpu().numpy()

    return of_columns


def chance(num_clips: int) -> dict[str, float]:
    """The expected metrics of a random order."""
    recalls = {f"r{k}": min(1.0, k / num_clips) for k in RECALLS_AT}
    middle = (num_clips + 1) / 2
    mean_recall = sum(recalls.values()) / len(recalls)
    return {**recalls, "mean_recall": mean_recall, "median_rank": middle, "mean_rank": middle}


def figures(result: dict[str, Any]) -> dict[str, dict[str, Figure]]:
    """The recalls that models are compared by."""
    return {
        _title(kind, direction): {
            f"R@{k}": Figure(one[f"r{k}"], one.get("intervals", {}).get(f"r{k}")) for k in RECALLS_AT
        }
        for kind, directions in result["metrics"].items()
        for direction in DIRECTIONS
        if (one := directions[direction])
    }


def table(result: dict[str, Any]) -> str:
    """Recalls in percent, as papers have them; ranks from 1."""
    num_queries, num_clips = result["num_queries"], result["num_clips"]
    several = "their" if num_queries == num_clips else f"{num_queries:,}"
    searched = f"searched by {several} {result['queries']}"
    lines = [f"{counted(num_clips, 'clips')}, {searched}, {counted(result['num_frames'], 'frames')} each"]
    if result["num_distinct_texts"] < num_queries:
        lines.append(f"texts that repeat another: {num_queries - result['num_distinct_texts']:,}")
    rows = []
    for kind, directions in result["metrics"].items():
        for direction in DIRECTIONS:
            rows.append(_row(_title(kind, direction), directions[direction]))
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


def _title(kind: str, direction: Direction) -> str:
    return direction.replace("_", " ") + {"plain": "", "dsl": ", DSL*", "qb_norm": ", QB-Norm*"}[kind]


def _row(name: str, metrics: dict[str, Any]) -> tuple[object, ...]:
    recalls = (100 * metrics[recall] for recall in _RECALLS)
    return name, *recalls, metrics["median_rank"], metrics["mean_rank"]
