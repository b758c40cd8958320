"""The stage `interpolate`: a model between a start and what was fine-tuned from it, scored along the way."""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click

from clipvip.pipeline.evaluate.options import (
    DEFAULT_RESAMPLES,
    BatchSize,
    Bootstrap,
    Readers,
    result_folder,
)
from clipvip.pipeline.evaluate.output import Output, finish, why_none
from clipvip.pipeline.evaluate.retrieval import (
    DIRECTIONS,
    BothWays,
    RetrievalOptions,
    RetrievalScores,
    Scoring,
    score_pairs,
)
from clipvip.pipeline.pages.plots import Plot, Point, line_plot, svg_file
from clipvip.pipeline.pages.tables import Column, Table
from clipvip.pipeline.runtime.errors import UserError, WrongOptions
from clipvip.pipeline.runtime.options import (
    ALSO,
    LAST,
    Device,
    Listed,
    at_least,
    opt,
    options,
    require_captions,
)
from clipvip.pipeline.runtime.report import Report, StageReport, counted
from clipvip.pipeline.runtime.stage import StageOptions, stage
from clipvip.shards.files.atomic import atomic_write_bytes
from clipvip.shards.files.stores import Location, is_url
from clipvip.shards.tar.reader import list_shards

if TYPE_CHECKING:
    from clipvip.model.interpolation import Interpolation

RESULT_NAME = "interpolation.json"
PLOT_NAME = "interpolation.svg"
CRITERION = "mean_recall"
_CHOSEN_BY = "the highest mean of text-to-video R@1, R@5 and R@10, of equals the smallest alpha"


class _Alphas(Listed):
    """Numbers from 0 to 1, as `0,0.5,1`; from Python also one or several numbers."""

    def __init__(self) -> None:
        super().__init__(r"1(\.0*)?|0?\.\d+|0\.?", "give numbers from 0 to 1, such as 0.5 or 0,0.25,0.5")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        words = super().convert([value] if isinstance(value, Real) else value, param, ctx)
        return words or self.fail("give one at least", param, ctx)


@options
class InterpolateOptions(StageOptions):
    """Options of `interpolate`."""

    start: str = opt(argument=True, metavar="A", kw_only=False)
    end: str = opt(argument=True, metavar="B", kw_only=False)
    alpha: tuple[str, ...] = opt(
        "How far from A (0) to B (1); with --eval several, with commas between them.",
        _Alphas(),
        metavar="NUMBERS",
    )
    out: Path | None = opt(
        "Folder for the model, of several alphas the best on --eval; must be new or empty.", default=None
    )
    eval: Location | None = opt(
        f"Folder of shards to score each alpha on, by retrieval; {ALSO}.", default=None
    )
    captions: tuple[Location, ...] | None = opt(
        f"Folder of captions to search by instead of subtitles; may be given several times; {ALSO}.",
        default=(),
    )
    all_captions: bool = opt(
        "Search by every caption of a clip that has several; each is right for that clip.", default=False
    )
    results: Location | None = result_folder(f"{RESULT_NAME}, {PLOT_NAME}")
    seed: int = opt(
        "Seed of B's training; if A is a CLIP, the parameters that A lacks are drawn by it.",
        at_least(0),
        default=42,
    )
    bootstrap: Bootstrap = DEFAULT_RESAMPLES
    batch_size: Annotated[BatchSize, LAST] = 16
    workers: Annotated[Readers, LAST] = None
    device: Annotated[Device, LAST] = "auto"

    @property
    def alphas(self) -> list[float]:
        """In ascending order."""
        return sorted({float(word) for word in self.alpha})

    def scoring(self) -> RetrievalOptions | None:
        """How each point is scored, as `clipvip-eval retrieval` does; None without --eval."""
        if self.eval is None:
            return None
        return RetrievalOptions(
            model=self.end,
            shards=self.eval,
            captions=self.captions,
            all_captions=self.all_captions,
            bootstrap=self.bootstrap,
            batch_size=self.batch_size,
            workers=self.workers,
            device=self.device,
        )


@dataclass(frozen=True, kw_only=True)
class InterpolateReport(StageReport):
    """What each alpha scores, where that was asked for, and the one that was chosen."""

    scores: dict[float, RetrievalScores]
    chosen: float


@stage(
    InterpolateOptions,
    "clipvip-data interpolate",
    "runs/b32/model runs/msrvtt/model --alpha 0.5 --out between/",
    "openai/clip-vit-base-patch32 runs/b32/model --alpha 0,0.25,0.5,0.75,1\n"
    "--eval parts/val --results curve/ --out best/",
    resumable=False,
)
def interpolate(options: InterpolateOptions) -> InterpolateReport:
    """Make the model between A and B, whose weights are (1 - alpha) A + alpha B, in float32.

    B was trained from A: it is a CLIP-ViP model, A one of the same architecture or the CLIP that B's training
    began with. Such a CLIP starts as training does with B's settings.

    With --eval each alpha is scored by retrieval, while clips are read once, and the scores are printed;
    --results also writes them, with a curve. Choose by a validation split: scores on a split that chose
    alpha are too good.

    Raises:
        UserError, DatasetError, CheckpointError: what was given cannot be used.

    Examples:
        >>> import clipvip
        >>> report = clipvip.interpolate("runs/b32/model", "runs/msrvtt/model", alpha="0.5", out="between")
        >>> clipvip.ClipVip.from_pretrained("between").config.model_type
        'clip_vip'
    """
    started = time.monotonic()
    alphas, asked = options.alphas, options.scoring()
    _require_sense(options)
    paths: list[Location] = [] if asked is None else [*list_shards(asked.shards)]
    require_captions(options.captions or ())
    # torch and what needs it are imported only now, so that mistakes in options are told at once.
    from clipvip.model.weights import whole_folder
    from clipvip.pipeline.runtime.device import torch_device
    from clipvip.pipeline.tools.interpolate_work import load_line

    with nullcontext(None) if options.out is None else whole_folder(options.out) as folder:
        line = load_line(options.start, options.end, seed=options.seed, device=torch_device(options.device))
        if asked is None:
            scores: dict[float, RetrievalScores] = {}
            chosen = alphas[0]
            content = {"stage": "interpolate", "options": _about(options), "counts": {"alphas": 1}}
            made = StageReport(content=content, text="")
        else:
            scores, made = _score(options, asked, paths, line, started=started)
            chosen = _best(scores)
        text = made.text
        if folder is not None:
            _save(options, line, chosen, folder)
            text += f"\nalpha {chosen:g} of {options.start} to {options.end} -> {options.out}"
    return InterpolateReport(content=made.content, text=text.strip(), scores=scores, chosen=chosen)


def _require_sense(options: InterpolateOptions) -> None:
    if options.out is None and options.eval is None:
        raise WrongOptions("there is nothing to do: give --out for the model, --eval for its scores, or both")
    if options.eval is None and len(options.alphas) > 1:
        raise WrongOptions("--alpha has several numbers: give --eval to choose by, or one number")
    for name, given in (("captions", options.captions or None), ("results", options.results)):
        if given is not None and options.eval is None:
            raise WrongOptions(f"--{name}: works only with --eval; give that too, or leave --{name} out")


def _about(options: InterpolateOptions) -> dict[str, object]:
    return {"start": options.start, "end": options.end, "alphas": options.alphas, "seed": options.seed}


def _score(
    options: InterpolateOptions,
    asked: RetrievalOptions,
    paths: Sequence[Location],
    line: "Interpolation",
    *,
    started: float,
) -> tuple[dict[float, RetrievalScores], StageReport]:
    """The scores of each alpha, and the report of them, which is written where --results says."""
    from clipvip.pipeline.evaluate.embeddings import embed_pairs, settings_of
    from clipvip.pipeline.tools.interpolate_work import LineEncoder, at_point

    model, alphas = line.model, options.alphas
    if model.tokenizer is None:
        raise UserError(
            f"{options.end}: has no tokenizer to read texts by; put that of its CLIP beside the weights"
        )
    encoder = LineEncoder.of(asked.encoder(model), line, alphas)
    pairs = embed_pairs(encoder, paths, captions=options.captions or (), all_captions=options.all_captions)
    if not pairs.sentences:
        raise UserError(f"{options.eval}: {why_none(pairs.skips)}")
    queries = "subtitles" if not options.captions and not options.all_captions else "captions"
    settings = settings_of(model)
    how = Scoring(resamples=options.bootstrap, device=model.device)
    scores = {
        alpha: score_pairs(at_point(pairs, number), queries=queries, settings=settings, how=how)
        for number, alpha in enumerate(alphas)
    }
    for warning in scores[alphas[0]].warnings or ():
        click.echo(f"Warning: {options.eval}: {warning}", err=True)
    result = _result(scores)
    about = {**_about(options), "shards": str(options.eval), "queries": queries, **settings}
    report = Report("interpolate", about, counts={"clips": len(pairs.videos)}, skips=pairs.skips)
    output = Output(RESULT_NAME, options.results, page=None)
    made = finish(report, result, _table(scores), output=output, started=started)
    if options.results is not None:
        atomic_write_bytes(options.results / PLOT_NAME, svg_file(_plot(scores)))
    return scores, made


def _best(scores: dict[float, RetrievalScores]) -> float:
    return max(scores, key=lambda alpha: (_plain(scores[alpha]).text_to_video.mean_recall, -alpha))


def _plain(scores: RetrievalScores) -> BothWays:
    return scores.metrics["plain"]


def _result(scores: dict[float, RetrievalScores]) -> dict[str, Any]:
    """As JSON has it: what holds for all alphas, and the metrics of each."""
    shared: dict[str, Any] = {}
    points = []
    for alpha, of_alpha in scores.items():
        shared = of_alpha.as_dict()
        points.append({"alpha": alpha, **shared.pop("metrics")["plain"]})
    return {**shared, "points": points, "best": {"alpha": _best(scores), "chosen_by": _CHOSEN_BY}}


def _table(scores: dict[float, RetrievalScores]) -> str:
    """Recalls in percent; ranks from 1."""
    first, best = next(iter(scores.values())), _best(scores)
    clips, frames = counted(first.num_clips, "clips"), counted(first.num_frames, "frames")
    lines = [f"{clips}, searched by {first.queries}, {frames} each"]
    columns = (Column("alpha", "g", 6), *(Column(name, ".1f", 6) for name in ("R@1", "R@5", "R@10", "mean")),
               Column("95% interval"), Column("MdR", ".1f"), Column())  # fmt: skip
    for direction in DIRECTIONS:
        rows = []
        for alpha, of_alpha in scores.items():
            found = getattr(_plain(of_alpha), direction)
            recalls = (100 * recall for recall in (found.r1, found.r5, found.r10, found.mean_recall))
            interval = (found.intervals or {}).get(CRITERION)
            span = f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}" if interval else ""
            is_best = direction == DIRECTIONS[0] and alpha == best
            rows.append((alpha, *recalls, span, found.median_rank, "best" if is_best else ""))
        lines += [f"{direction.replace('_', ' ')}:", Table(columns, rows).text()]
    return "\n".join(lines)


def _plot(scores: dict[float, RetrievalScores]) -> Plot:
    lines = {}
    for direction in DIRECTIONS:
        points = []
        for alpha, of_alpha in scores.items():
            found = getattr(_plain(of_alpha), direction)
            ends = (found.intervals or {}).get(CRITERION, [None, None])
            low, high = (None if end is None else 100 * end for end in ends)
            points.append(Point(alpha, 100 * found.mean_recall, low, high))
        lines[direction.replace("_", " ")] = points
    title = "From the start (0) to the fine-tuned model (1)"
    return line_plot(lines, title=title, x_label="alpha", y_label="mean of R@1, R@5 and R@10, %")


def _save(options: InterpolateOptions, line: "Interpolation", alpha: float, folder: Path) -> None:
    """Write the model of an alpha, and say in its card what it is; no paths of this machine."""
    from clipvip.model.model_card import write_card

    line.put(alpha)
    line.model.save_pretrained(folder)
    start = options.start
    made = {
        **({} if is_url(start) or Path(start).exists() else {"base_model": start}),
        "weights": f"{1 - alpha:g} of the start's and {alpha:g} of the fine-tuned model's",
    }
    write_card(folder, line.model.config, training=made)
