"""`clipvip-eval actions`: zero-shot recognition of actions, by the names of their classes alone.

Classes and labels are read in `eval_labels`, clips encoded in `clip_embeddings`, scores made in
`analysis.classification`.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from clipvip.analysis.classification import ClassScores, class_scores, mean_of_prompts
from clipvip.pipeline.evaluate.clip_names import ClipName
from clipvip.pipeline.evaluate.labels import Labels, class_numbers, read_classes, read_labels, same_class
from clipvip.pipeline.evaluate.options import clips_options, measuring_options
from clipvip.pipeline.evaluate.output import finish, interval_note, reasons
from clipvip.pipeline.pages.tables import Column, Table
from clipvip.pipeline.runtime.errors import StageCommand, UserError
from clipvip.pipeline.runtime.report import Report
from clipvip.shards.errors import Skip
from clipvip.shards.format.manifest import num_samples
from clipvip.shards.tar.reader import Sample, list_shards

if TYPE_CHECKING:
    from clipvip.model import ClipVip
    from clipvip.pipeline.evaluate.embeddings import ClipEmbeddings

RESULT_NAME = "actions.json"
# Several sentences per class, averaged: CLIP (Radford et al., 2021), section 3.1.4. The second is the paper's for
# HMDB51 (appendix A).
DEFAULT_PROMPTS = (
    "a video of {}",
    "a person {}",
    "a video of a person doing {}",
    "someone is shown {}",
    "footage of the action {}",
)

_EPILOG = """\b
Examples:
  clipvip-eval actions --model runs/b32/model --shards hmdb51/ --classes classes.txt --labels labels.csv
  clipvip-eval actions --model runs/b32/model --shards hmdb51/ --classes classes.txt --prompt "a person {}"
"""


@click.command("actions", cls=StageCommand, resumable=False, epilog=_EPILOG)
@clips_options
@click.option(
    "--classes",
    "classes_file",
    required=True,
    type=click.Path(path_type=Path),
    help="Class names: one a line, or .json.",
)
@click.option(
    "--labels",
    "labels_file",
    type=click.Path(path_type=Path),
    help="Classes of the clips: a table (.csv, .tsv) or records (.jsonl, .json) with `video` and `label`.",
    show_default="the sentence that each clip has from its set's annotations",
)
@click.option(
    "--prompt",
    "prompts",
    multiple=True,
    metavar="TEXT",
    help="A sentence with {} (or [label]) in the place of the class; give it again for more, which are averaged.",
    show_default="; ".join(DEFAULT_PROMPTS),
)
@measuring_options(RESULT_NAME)
def actions(
    model_name: str,
    shards: Path,
    classes_file: Path,
    labels_file: Path | None,
    prompts: tuple[str, ...],
    out: Path | None,
    resamples: int,
    num_frames: int | None,
    max_text_tokens: int | None,
    batch_size: int,
    max_pixels: int,
    device: str,
    as_json: bool,
) -> None:
    """Classify clips by the nearest class name: top-1 and top-5 accuracy, and the mean over classes.

    A class is the mean of its prompts' embeddings. A tie with the right class counts against it. Clips without a
    label, or with one that is no class, are passed over and counted.
    """
    started = time.monotonic()
    # The paper writes the place as [label].
    prompts = tuple(prompt.replace("[label]", "{}") for prompt in prompts) or DEFAULT_PROMPTS
    for prompt in prompts:
        if "{}" not in prompt:
            raise UserError(f'--prompt "{prompt[:80]}": put {{}} where the class is to stand')
    paths = list_shards(shards)
    names = read_classes(classes_file)
    labels, skips = (None, []) if labels_file is None else read_labels(labels_file)
    # torch is imported from here on, so that mistakes above are told at once.
    from clipvip.pipeline.evaluate.embeddings import embed_clips, load_clip_vip, settings_of
    from clipvip.pipeline.runtime.device import torch_device

    model = load_clip_vip(
        model_name,
        device=torch_device(device),
        num_frames=num_frames,
        max_text_tokens=max_text_tokens,
    )
    choose = labelling(class_numbers(names), labels, skips)
    clips = embed_clips(
        model, paths, choose, batch_size=batch_size, total=num_samples(shards), max_pixels=max_pixels
    )
    skips += clips.skips
    if not clips.about:
        hint = "give --labels, or other --classes" if labels is None else "look at --labels and --classes"
        raise UserError(f"{shards}: no clip has a label that is a class ({reasons(skips)}); {hint}")
    found = _scores(clips, embed_classes(model, names, prompts), resamples)
    result = {**as_result(found, names), **settings_of(model)}
    if labels is not None:
        seen = {name for clip in clips.about for name in clip.name.all()}
        result["labels_not_used"] = sum(seen.isdisjoint(row) for row in labels.rows)
    options = {
        "model": model_name,
        "shards": str(shards),
        "classes": str(classes_file),
        "labels": None if labels_file is None else str(labels_file),
        "prompts": list(prompts),
        **settings_of(model),
    }
    report = Report("actions", options, {"clips": len(clips.about), "classes": len(names)}, skips=skips)
    finish(
        report,
        result,
        table(result),
        as_json=as_json,
        out=out,
        name=RESULT_NAME,
        started=started,
        done=len(clips.about),
        unit="clips",
    )


def _scores(clips: "ClipEmbeddings[Labelled]", classes: np.ndarray, resamples: int) -> ClassScores:
    labels = np.array([clip.label for clip in clips.about])
    try:
        return class_scores(clips.videos @ classes.T, labels, resamples=resamples)
    except ValueError as error:
        raise UserError(f"{error}; the model's weights may be damaged") from error


@dataclass(frozen=True, slots=True)
class Labelled:
    """A clip and the number of its class."""

    name: ClipName
    label: int


def labelling(
    numbers: dict[str, int], labels: Labels | None, skips: list[Skip]
) -> Callable[[Sample], Labelled | None]:
    """What finds the class of a clip among `numbers`: by `labels`, or without them by the clip's own one sentence.

    It gives None for a clip that has no class, and notes why in `skips`.
    """

    def find(sample: Sample) -> Labelled | None:
        name = ClipName.of(sample)
        written = set(sample.sentences) if labels is None else labels.of(name)
        known = {numbers[same_class(label)] for label in written if same_class(label) in numbers}
        if len(known) == 1 and len({same_class(label) for label in written}) == 1:
            return Labelled(name, known.pop())
        if not written:
            skips.append(Skip("no_label", sample.key))
        elif len(written) > 1:
            skips.append(Skip("several_labels", sample.key, "; ".join(sorted(written))[:200]))
        else:
            skips.append(Skip("unknown_label", sample.key, next(iter(written))[:200]))
        return None

    return find


def embed_classes(model: "ClipVip", names: Sequence[str], prompts: Sequence[str]) -> np.ndarray:
    """Embeddings (classes, dim) of unit length, of each class the mean over `prompts`."""
    from clipvip.pipeline.evaluate.embeddings import embed_texts

    texts = [prompt.replace("{}", name) for name in names for prompt in prompts]
    return mean_of_prompts(embed_texts(model, texts).reshape(len(names), len(prompts), -1))


def as_result(found: ClassScores, names: Sequence[str]) -> dict[str, Any]:
    """Accuracies as fractions, beside those of guessing; the classes' own; and what is taken for what."""
    num_classes = len(names)
    result: dict[str, Any] = {
        "top1": found.top1,
        "top5": found.top5,
        "mean_per_class": found.mean_per_class,
        "chance": {
            "top1": 1 / num_classes,
            "top5": min(1.0, 5 / num_classes),
            "mean_per_class": 1 / num_classes,
        },
        "num_clips": int(found.num_clips.sum()),
        "num_classes": num_classes,
        "num_classes_with_clips": int((found.num_clips > 0).sum()),
        "confused": [
            {
                "class": names[pair.label],
                "taken_for": names[pair.taken_for],
                "clips": pair.count,
                "of": int(found.num_clips[pair.label]),
            }
            for pair in found.confusions
        ],
        "classes": [
            {"class": name, "clips": int(clips), "top1": float(share) if clips else None}
            for name, clips, share in zip(names, found.num_clips, found.per_class, strict=True)
        ],
    }
    if found.intervals:
        result["intervals"] = {name: list(ends) for name, ends in found.intervals.items()}
    return result


def table(result: dict[str, Any]) -> str:
    """Accuracies in percent, as papers have them, and the pairs of classes that are confused most."""
    with_clips = result["num_classes_with_clips"]
    lines = [f"{result['num_clips']:,} clips of {with_clips:,} classes, {result['num_frames']} frames each"]
    if with_clips < result["num_classes"]:
        lines[0] += f"; {result['num_classes']:,} classes to choose from"
    columns = (Column(width=16), Column(spec=".1f", width=7), Column("chance", ".1f", 9), Column())
    intervals = result.get("intervals", {})
    rows = [
        (title, 100 * result[name], 100 * result["chance"][name], interval_note(intervals.get(name)))
        for name, title in (("top1", "top-1"), ("top5", "top-5"), ("mean_per_class", "mean per class"))
    ]
    lines.append(Table(columns, rows).text(gap=""))
    if result["confused"]:
        lines.append("most confused:")
    for pair in result["confused"]:
        lines.append(f"  {pair['class']} taken for {pair['taken_for']}: {pair['clips']:,} of {pair['of']:,}")
    if result.get("labels_not_used"):
        lines.append(f"{result['labels_not_used']:,} labels are of no clip that was classified")
    return "\n".join(lines)
