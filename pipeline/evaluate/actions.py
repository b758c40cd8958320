"""The stage `actions`: zero-shot recognition of actions, by the names of their classes alone."""

import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from clipvip.analysis.classification import ClassScores, class_scores, mean_of_prompts
from clipvip.pipeline.evaluate.baselines import Figure, with_baselines
from clipvip.pipeline.evaluate.clip_names import ClipName
from clipvip.pipeline.evaluate.labels import Labels, read_classes, read_labels, same_class
from clipvip.pipeline.evaluate.options import (
    DEFAULT_RESAMPLES,
    Bootstrap,
    ClipsOptions,
    Page,
    require_page_folder,
    result_folder,
)
from clipvip.pipeline.evaluate.output import Output, finish, interval_note, reasons
from clipvip.pipeline.pages.tables import Column, Table
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.options import opt, options
from clipvip.pipeline.runtime.report import Report, StageReport, counted
from clipvip.pipeline.runtime.stage import stage
from clipvip.shards.errors import Skip
from clipvip.shards.files.stores import Location
from clipvip.shards.tar.reader import Sample, list_shards

if TYPE_CHECKING:
    from clipvip.pipeline.evaluate.embeddings import ClipEmbeddings, ClipEncoder

RESULT_NAME = "actions.json"
# Several sentences per class, averaged: CLIP (Radford et al., 2021), section 3.1.4. The second is the paper's
# for HMDB51 (appendix A).
DEFAULT_PROMPTS = (
    "a video of {}",
    "a person {}",
    "a video of a person doing {}",
    "someone is shown {}",
    "footage of the action {}",
)


@options
class ActionsOptions(ClipsOptions):
    """What `actions` is asked for."""

    classes: Location = opt("Class names: one a line, or .json.")
    labels: Location | None = opt(
        "Classes of the clips: a table (.csv, .tsv) or records (.jsonl, .json) with `video` and `label`.",
        shown="the sentence that each clip has from its set's annotations",
        default=None,
    )
    prompts: tuple[str, ...] = opt(
        "A sentence with {} (or [label]) in the place of the class; give it again for more, which are "
        "averaged.",
        names=("--prompt",),
        metavar="TEXT",
        shown="; ".join(DEFAULT_PROMPTS),
        default=(),
    )
    out: Location | None = result_folder(RESULT_NAME)
    page: Page = None
    bootstrap: Bootstrap = DEFAULT_RESAMPLES

    def sentences(self) -> tuple[str, ...]:
        """The prompts, each with {} in the place of the class; a UserError where one has no such place."""
        # The paper writes the place as [label].
        prompts = tuple(prompt.replace("[label]", "{}") for prompt in self.prompts) or DEFAULT_PROMPTS
        for prompt in prompts:
            if "{}" not in prompt:
                raise UserError(f'--prompt "{prompt[:80]}": put {{}} where the class is to stand')
        return prompts


@dataclass(frozen=True, kw_only=True)
class ActionsReport(StageReport):
    """How well the clips were classified; `classes` has the names to the numbers of `scores`.

    `baselines` are the scores of the other models, by the names that were given.
    """

    scores: ClassScores
    classes: list[str]
    baselines: dict[str, ClassScores] = field(default_factory=dict)


@stage(
    ActionsOptions,
    "clipvip-eval actions",
    "--model runs/b32/model --shards hmdb51/ --classes classes.txt --labels labels.csv",
    '--model runs/b32/model --shards hmdb51/ --classes classes.txt --prompt "a person {}"',
    resumable=False,
)
def actions(options: ActionsOptions) -> ActionsReport:
    """Classify clips by the nearest class name: top-1 and top-5 accuracy, and the mean over classes.

    A class is the mean of its prompts' embeddings. A tie with the right class counts against it. Clips
    without a label, or with one that is no class, are skipped and counted.

    Raises:
        UserError, DatasetError, CheckpointError: what was given cannot be used, or no clip of it has a class.

    Examples:
        >>> import clipvip
        >>> report = clipvip.actions(
        ...     model="runs/b32/model", shards="test-clips", labels="labels.csv", classes="classes.txt"
        ... )
        >>> 0 <= report.scores.top1 <= report.scores.top5 <= 1
        True
    """
    started = time.monotonic()
    require_page_folder(options.page)
    shards = options.shards
    prompts = options.sentences()
    paths = list_shards(shards)
    names = read_classes(options.classes)
    labels, skips = (None, []) if options.labels is None else read_labels(options.labels)
    models = options.load_models()
    from clipvip.pipeline.evaluate.embeddings import embed_clips, settings_of

    numbers = {same_class(name): number for number, name in enumerate(names)}
    find = labelling(numbers, labels)
    scored: dict[str, ClassScores] = {}
    results: dict[str, dict[str, Any]] = {}
    for given, model in models.items():
        encoder = options.encoder(model)
        clips = embed_clips(encoder, paths, find)
        if not scored:
            skips += clips.skips
        if not clips.about:
            hint = "give --labels, or other --classes" if labels is None else "look at --labels and --classes"
            raise UserError(f"{shards}: no clip has a label that is a class ({reasons(skips)}); {hint}")
        scored[given] = score_clips(encoder, clips, names, prompts, resamples=options.bootstrap)
        results[given] = {**as_result(scored[given], names), **settings_of(model)}
    settings = settings_of(models[options.model])
    scores, result = scored.pop(options.model), results.pop(options.model)
    if labels is not None:
        seen = {name for clip, _ in clips.about for name in clip.all()}
        result["labels_not_used"] = sum(seen.isdisjoint(row) for row in labels.rows)
    result = with_baselines(result, results)
    about = {
        "model": options.model,
        **options.compared(),
        "shards": str(shards),
        "classes": str(options.classes),
        "labels": None if options.labels is None else str(options.labels),
        "prompts": list(prompts),
        **settings,
    }
    counts: dict[str, int | float] = {"clips": len(clips.about), "classes": len(names)}
    report = Report("actions", about, counts, skips=skips)
    output = Output(RESULT_NAME, options.out, options.page, figures)
    made = finish(report, result, table(result), output=output, started=started)
    return ActionsReport(content=made.content, text=made.text, scores=scores, classes=names, baselines=scored)


def score_clips(
    encoder: "ClipEncoder",
    clips: "ClipEmbeddings[tuple[ClipName, int]]",
    names: Sequence[str],
    prompts: Sequence[str],
    *,
    resamples: int,
) -> ClassScores:
    """How well clips, about which the number of the class is noted, are classified by the classes' names."""
    from clipvip.pipeline.evaluate.embeddings import embed_texts

    # Of each class the mean over the prompts.
    texts = [prompt.replace("{}", name) for name in names for prompt in prompts]
    classes = mean_of_prompts(embed_texts(encoder, texts).reshape(len(names), len(prompts), -1))
    right = np.array([label for _, label in clips.about])
    try:
        return class_scores(clips.videos @ classes.T, right, resamples=resamples)
    except ValueError as error:
        raise UserError(f"{error}; the model's weights may be damaged") from error


def labelling(
    numbers: dict[str, int], labels: Labels | None
) -> Callable[[Sample], tuple[ClipName, int] | Skip]:
    """What finds a clip's names and its class's number, by `labels` or else its own one sentence."""

    def find(sample: Sample) -> tuple[ClipName, int] | Skip:
        name = ClipName.of(sample)
        written = set(sample.sentences) if labels is None else labels.of(name)
        known = {numbers[same_class(label)] for label in written if same_class(label) in numbers}
        if len(known) == 1 and len({same_class(label) for label in written}) == 1:
            return name, known.pop()
        if not written:
            return Skip("no_label", sample.key)
        if len(written) > 1:
            return Skip("several_labels", sample.key, "; ".join(sorted(written))[:200])
        return Skip("unknown_label", sample.key, next(iter(written))[:200])

    return find


def as_result(found: ClassScores, names: Sequence[str]) -> dict[str, Any]:
    """Accuracies as fractions, beside those of guessing; the classes' own; and what is taken for what."""
    num_classes, num_clips = len(names), found.num_clips
    share = 1 / num_classes
    result: dict[str, Any] = {
        "top1": found.top1,
        "top5": found.top5,
        "mean_per_class": found.mean_per_class,
        "chance": {"top1": share, "top5": min(1.0, 5 / num_classes), "mean_per_class": share},
        "num_clips": int(num_clips.sum()),
        "num_classes": num_classes,
        "num_classes_with_clips": int((num_clips > 0).sum()),
        "confused": [
            {"class": names[label], "taken_for": names[taken], "clips": count, "of": int(num_clips[label])}
            for label, taken, count in map(astuple, found.confusions)
        ],
        "classes": [
            {"class": name, "clips": int(clips), "top1": float(share) if clips else None}
            for name, clips, share in zip(names, num_clips, found.per_class, strict=True)
        ],
    }
    if found.intervals:
        result["intervals"] = {name: list(ends) for name, ends in found.intervals.items()}
    return result


_TITLES = {"top1": "top-1", "top5": "top-5", "mean_per_class": "mean per class"}


def figures(result: dict[str, Any]) -> dict[str, dict[str, Figure]]:
    """The accuracies that models are compared by."""
    intervals = result.get("intervals", {})
    return {title: {"percent": Figure(result[name], intervals.get(name))} for name, title in _TITLES.items()}


def table(result: dict[str, Any]) -> str:
    """Accuracies in percent, as papers have them, and the pairs of classes that are confused most."""
    with_clips = result["num_classes_with_clips"]
    lines = [
        (
            f"{counted(result['num_clips'], 'clips')} of {counted(with_clips, 'classes')}, "
            f"{counted(result['num_frames'], 'frames')} each"
        )
    ]
    if with_clips < result["num_classes"]:
        lines[0] += f"; {counted(result['num_classes'], 'classes')} to choose from"
    columns = (Column(width=16), Column(spec=".1f", width=7), Column("chance", ".1f", 9), Column())
    intervals = result.get("intervals", {})
    rows = [
        (title, 100 * result[name], 100 * result["chance"][name], interval_note(intervals.get(name)))
        for name, title in _TITLES.items()
    ]
    lines.append(Table(columns, rows).text(gap=""))
    if result["confused"]:
        lines.append("most confused:")
    for pair in result["confused"]:
        lines.append(f"  {pair['class']} taken for {pair['taken_for']}: {pair['clips']:,} of {pair['of']:,}")
    if result.get("labels_not_used"):
        lines.append(f"labels of clips that were not classified: {result['labels_not_used']:,}")
    return "\n".join(lines)
