"""The stage `multiple_choice`: which of several sentences a model finds nearest to a clip."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from clipvip.analysis.bootstrap import mean_interval
from clipvip.analysis.classification import Choice, choose_option
from clipvip.pipeline.evaluate.baselines import Figure, with_baselines
from clipvip.pipeline.evaluate.clip_names import ClipName, names_for
from clipvip.pipeline.evaluate.options import (
    DEFAULT_RESAMPLES,
    Bootstrap,
    ClipsOptions,
    Page,
    require_page_folder,
    result_folder,
)
from clipvip.pipeline.evaluate.output import Output, Scores, finish, interval_note, reasons
from clipvip.pipeline.evaluate.questions import Question, read_questions
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

RESULT_NAME = "multiple_choice.json"


@options
class MultipleChoiceOptions(ClipsOptions):
    """What `multiple_choice` is asked for."""

    questions: Location = opt(
        'Lines {"video": id, "options": [texts], "answer": index from 0} (.jsonl), or the tables of '
        "MSR-VTT MC (JSFusion) or LSMDC MC as published."
    )
    out: Location | None = result_folder(RESULT_NAME)
    page: Page = None
    bootstrap: Bootstrap = DEFAULT_RESAMPLES


@dataclass(frozen=True)
class PlaceCounts:
    """How often one place among the options was the answer, was chosen, and was chosen rightly."""

    answer: int
    chosen: int
    right: int


@dataclass(frozen=True, kw_only=True)
class ChoiceScores(Scores):
    """Accuracy, its 95% interval, and chance, as fractions; `num_options`: options -> questions."""

    accuracy: float
    chance: float
    num_questions: int
    num_right: int
    num_undecided: int
    num_options: dict[str, int]
    places: list[PlaceCounts]
    interval: list[float] | None


@dataclass(frozen=True, kw_only=True)
class MultipleChoiceReport(StageReport):
    """How well the questions were answered; `baselines`: by the other models, by the names given."""

    scores: ChoiceScores
    baselines: dict[str, ChoiceScores] = field(default_factory=dict)


@stage(
    MultipleChoiceOptions,
    "clipvip-eval multiple-choice",
    "--model runs/b32/model --shards msrvtt-test/ --questions MSR_MC_test.csv",
    resumable=False,
)
def multiple_choice(options: MultipleChoiceOptions) -> MultipleChoiceReport:
    """Answer questions about clips: the answer is the option whose text is most similar to the clip.

    A tie of the right option with a wrong one counts as wrong; options with the text of the right one are
    right too. Each question is answered for itself: there is no DSL here. A question whose clip is not in the
    shards, or whose video has several clips there, is skipped and counted.

    Raises:
        UserError, DatasetError, CheckpointError: what was given cannot be used, or no question fits a clip.

    Examples:
        >>> import clipvip
        >>> report = clipvip.multiple_choice(
        ...     model="runs/b32/model", shards="test-clips", questions="MSR_MC_test.csv"
        ... )
        >>> report.scores.num_questions
        12
    """
    started = time.monotonic()
    require_page_folder(options.page)
    shards = options.shards
    paths = list_shards(shards)
    questions, skips = read_questions(options.questions)
    models = options.load_models()
    from clipvip.pipeline.evaluate.embeddings import embed_clips, settings_of

    wanted = {name for question in questions for name in names_for(question.video)}

    def choose(sample: Sample) -> ClipName | None:
        name = ClipName.of(sample)
        return None if wanted.isdisjoint(name.all()) else name

    scored: dict[str, ChoiceScores] = {}
    results: dict[str, dict[str, Any]] = {}
    num_asked = num_clips = 0
    for name, model in models.items():
        encoder = options.encoder(model)
        clips = embed_clips(encoder, paths, choose)
        rows, asked, not_asked = match_clips(questions, clips.about)
        if not scored:
            skips += [*clips.skips, *not_asked]
            num_asked, num_clips = len(asked), len(set(rows))
        if not asked:
            raise UserError(
                f"{options.questions}: none of its questions is about one clip of {shards} "
                f"({reasons(skips)}); the first is about {questions[0].video[:80]!r}"
            )
        choices = answer_questions(encoder, clips, rows, asked)
        scored[name] = score_choices(asked, choices, resamples=options.bootstrap)
        results[name] = {**scored[name].as_dict(), "num_clips": num_clips, **settings_of(model)}
    about = {
        "model": options.model,
        **options.compared(),
        "shards": str(shards),
        "questions": str(options.questions),
        **settings_of(models[options.model]),
    }
    scores, result = scored.pop(options.model), results.pop(options.model)
    result = with_baselines(result, results)
    report = Report("multiple-choice", about, {"questions": num_asked, "clips": num_clips}, skips=skips)
    output = Output(RESULT_NAME, options.out, options.page, figures)
    made = finish(report, result, table(result), output=output, started=started)
    return MultipleChoiceReport(content=made.content, text=made.text, scores=scores, baselines=scored)


def match_clips(
    questions: Sequence[Question], clips: Sequence[ClipName]
) -> tuple[list[int], list[Question], list[Skip]]:
    """The clip (its index) of each question that is about one, those questions, and why others are not."""
    # A key or clip id names a clip; a video id names the only clip of its video.
    particular: dict[str, int] = {}
    of_video: dict[str, list[int]] = {}
    for row, clip in enumerate(clips):
        particular.setdefault(clip.key, row)
        if clip.clip_id:
            particular.setdefault(clip.clip_id, row)
        of_video.setdefault(clip.video_id, []).append(row)
    rows: list[int] = []
    asked: list[Question] = []
    skips: list[Skip] = []
    for question in questions:
        names = names_for(question.video)
        found = [particular[name] for name in names if name in particular][:1]
        found = found or next((of_video[name] for name in names if name in of_video), [])
        if len(found) == 1:
            rows.append(found[0])
            asked.append(question)
        elif found:
            detail = f"video {question.video[:80]} has {len(found)} clips; name one by its key"
            skips.append(Skip("several_clips", question.where, detail))
        else:
            skips.append(Skip("no_clip", question.where, f"video {question.video[:80]}"))
    return rows, asked, skips


def answer_questions(
    encoder: "ClipEncoder",
    clips: "ClipEmbeddings[ClipName]",
    rows: Sequence[int],
    questions: Sequence[Question],
) -> list[Choice]:
    """The choice of the model for each question, which is about the clip `rows[i]` of `clips`."""
    from clipvip.pipeline.evaluate.embeddings import embed_texts

    texts = list(dict.fromkeys(text for question in questions for text in question.options))
    by_text = dict(zip(texts, embed_texts(encoder, texts), strict=True))
    choices = []
    for row, question in zip(rows, questions, strict=True):
        # One row at a time: equal texts then have equal scores, whatever the order of the options.
        scores = np.array([by_text[text] @ clips.videos[row] for text in question.options])
        right = np.array([text == question.options[question.answer] for text in question.options])
        try:
            choices.append(choose_option(scores, question.answer, right))
        except ValueError as error:
            raise UserError(f"{error}; the model's weights may be damaged") from error
    return choices


def score_choices(
    questions: Sequence[Question], choices: Sequence[Choice], *, resamples: int
) -> ChoiceScores:
    """What the choices come to; without `resamples` there is no interval."""
    right = np.array([choice.right for choice in choices], np.float64)
    answers = Counter(question.answer for question in questions)
    chosen = Counter(choice.chosen for choice in choices if choice.chosen is not None)
    chosen_rightly = Counter(q.answer for q, choice in zip(questions, choices, strict=True) if choice.right)
    sizes = Counter(len(question.options) for question in questions)
    return ChoiceScores(
        accuracy=float(right.mean()),
        chance=float(np.mean([q.options.count(q.options[q.answer]) / len(q.options) for q in questions])),
        num_questions=len(questions),
        num_right=int(right.sum()),
        num_undecided=sum(choice.chosen is None for choice in choices),
        num_options={str(size): sizes[size] for size in sorted(sizes)},
        places=[PlaceCounts(answers[n], chosen[n], chosen_rightly[n]) for n in range(max(sizes))],
        interval=list(mean_interval(right, resamples=resamples)) if resamples else None,
    )


def figures(result: dict[str, Any]) -> dict[str, dict[str, Figure]]:
    """The accuracy, which models are compared by."""
    return {"accuracy": {"percent": Figure(result["accuracy"], result.get("interval"))}}


def table(result: dict[str, Any]) -> str:
    """Accuracy in percent, as papers have it, and the counts of each place."""
    sizes = ", ".join(f"{size} ({count:,})" for size, count in result["num_options"].items())
    about = f"{counted(result['num_questions'], 'questions')} about {counted(result['num_clips'], 'clips')}"
    lines = [f"{about}, {counted(result['num_frames'], 'frames')} each; options of a question: {sizes}"]
    lines.append(f"{'accuracy':<12}{100 * result['accuracy']:6.1f}{interval_note(result.get('interval'))}")
    lines.append(f"{'chance':<12}{100 * result['chance']:6.1f}")
    names = ("answer", "chosen", "right")
    rows = [(number, *map(place.get, names)) for number, place in enumerate(result["places"], start=1)]
    columns = [Column("option", width=12), *(Column(name, ",", 9) for name in names)]
    lines.append(Table(columns, rows).text(gap=""))
    if result["num_undecided"]:
        lines.append(f"undecided, counted as wrong: {result['num_undecided']:,}")
    return "\n".join(lines)
