"""The end of a run: the weights that it chose, their scores on the test split, and its report."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from clipvip.pipeline.evaluate.baselines import comparison
from clipvip.pipeline.evaluate.retrieval import figures, table
from clipvip.pipeline.runtime.report import Report, StageReport, counted
from clipvip.pipeline.train.baseline import baseline_scores
from clipvip.pipeline.train.checkpoint import TrainState
from clipvip.pipeline.train.distributed import barrier
from clipvip.pipeline.train.logs import read_log
from clipvip.pipeline.train.recipe import Recipe, recipe_tree
from clipvip.pipeline.train.step import Job
from clipvip.pipeline.train.validation import (
    as_result,
    best_row,
    choose_weights,
    score_test,
    write_training_card,
)
from clipvip.shards.errors import DatasetError
from clipvip.shards.format.captions import made_by


def finish(job: Job, state: TrainState, *, steps_now: int, seconds: float) -> StageReport:
    """Write the model folder and the report after `steps_now` steps of this process.

    The first process gets what report.json holds, with the scores of the test split under `result`.
    """
    recipe, out, place = job.recipe, job.out, job.place
    result: dict[str, Any] = {}
    summary = ""
    folder = out / "model"
    is_best = recipe.evaluation.select == "best"
    chosen = int(best_row(state.validations)["step"]) if is_best else state.step
    if place.is_first:
        choose_weights(job, folder)
    barrier(place)
    beside = baseline_scores(job, "validation")
    scores = score_test(job, chosen, folder)
    if place.is_first:
        write_training_card(job, chosen, scores, folder)
        rows = read_log(out)
        batch_size = recipe.optim.batch_size
        counts: dict[str, int | float] = {"steps": state.step, "samples": state.step * batch_size}
        details: dict[str, Any] = {"captions": captions} if (captions := _captions(recipe)) else {}
        details |= {"loss": {"first": rows[0]["loss"], "last": rows[-1]["loss"]}} if rows else {}
        report = Report(
            "train",
            options=recipe_tree(recipe),
            counts=counts | {"samples_without_caption": state.rows_without_caption},
            details=details,
            skips=[state.skips[key] for key in sorted(state.skips)],
        )
        result = report.write(out, seconds=seconds, done_now=steps_now * batch_size, unit="samples")
        chosen_by = f"weights of step {chosen:,} ({recipe.evaluation.select}"
        chosen_by += f" of {counted(len(state.validations), 'validations')})" if state.validations else ")"
        summary = report.summary(out)
        if rows:  # none are left of a run that was complete, and its log damaged since
            first, last = rows[0], rows[-1]
            summary += f"\n  loss {first['loss']:.4f} at step {first['step']:,}"
            if last is not first:
                summary += f", {last['loss']:.4f} at step {last['step']:,}"
        for name, made in captions.items():
            summary += f"\n  captions {name}: nothing there says what made them" if not made else ""
        summary += f"\n  model: {folder}, {chosen_by}"
        if beside:
            row = next(row for row in state.validations if row["step"] == chosen)
            compared = comparison("this run", as_result(row) | {"baselines": beside}, figures)
            summary += f"\nvalidation split {recipe.evaluation.validation}, {chosen_by}:\n{compared.text()}"
        if scores:
            result = result | {"result": scores}
            summary += f"\ntest split {scores['shards']}, {chosen_by}:\n{table(scores)}"
            if "baselines" in scores:
                summary += f"\n\n{comparison('this run', scores, figures).text()}"
    barrier(place)
    return StageReport(content=result, text=summary)


def _captions(recipe: Recipe) -> dict[str, str | None]:
    """What made the captions of each folder that the recipe names; None where they do not say it."""
    found: dict[str, str | None] = {}
    for source in recipe.data.sources.values():
        given = [source.captions] if isinstance(source.captions, str) else source.captions or []
        for folder in given:
            with suppress(DatasetError):  # its damage is told where it is read
                found[folder] = made_by(Path(folder)) or None
    return found
