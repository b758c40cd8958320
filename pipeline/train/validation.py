"""Retrieval scores of a run: on the validation split while it trains, on the test split when it is done.

The test split is scored once, with weights that were chosen without it. All processes encode, each some
shards. Training goes on after a validation as if there had been none.
"""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import yaml

from clipvip.model.model_card import write_card
from clipvip.pipeline.evaluate.baselines import comparison
from clipvip.pipeline.evaluate.embeddings import load_clip_vip, query_texts
from clipvip.pipeline.evaluate.retrieval import few_clips_warning, figures, table
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.train.baseline import baseline_scores
from clipvip.pipeline.train.checkpoint import TrainState
from clipvip.pipeline.train.distributed import barrier
from clipvip.pipeline.train.recipe import Recipe, recipe_tree
from clipvip.pipeline.train.scoring import score_split
from clipvip.pipeline.train.start import save_model
from clipvip.pipeline.train.step import Job
from clipvip.shards.files.atomic import write_json, write_jsonl
from clipvip.shards.files.places import location_of, sorted_glob
from clipvip.shards.files.stores import Location, is_remote, is_url
from clipvip.shards.format.manifest import read_manifest
from clipvip.shards.tar.reader import list_shards, read_shard

BEST_FOLDER = "best"
CRITERION = "mean_recall"

Row = dict[str, Any]


def check_splits(recipe: Recipe) -> None:
    """Look whether the splits can be scored, before anything is trained.

    An error names a folder without shards, clips with several captions, shards in two splits, or a choice of
    weights that needs a validation split and has none.
    """
    wanted = recipe.evaluation
    if wanted.select == "best" and wanted.validation is None:
        raise UserError("--select best: needs a split to choose by; give --validation, or --select last")
    taken: dict[str, str] = {}
    for source in recipe.data.sources.values():
        for location in [source.shards] if isinstance(source.shards, str) else source.shards:
            if not is_remote(location):
                taken |= dict.fromkeys(_shards_of(Path(location)), "training")
    for option, split in (("--validation", wanted.validation), ("--test", wanted.test)):
        if split is None:
            continue
        folder = location_of(split)
        num_clips = 0
        for path in list_shards(folder):
            for sample in read_shard(path, with_pixels=False):
                query_texts(sample, all_captions=False)
                num_clips += 1
        warning = few_clips_warning(num_clips)
        if warning and os.environ.get("RANK", "0") == "0":
            click.echo(f"Warning: {option} {folder}: {warning}", err=True)
        identities = _shards_of(folder)
        shared = next((taken[identity] for identity in identities if identity in taken), None)
        if shared is not None:
            raise UserError(f"{option} {folder}: holds shards that are also in {shared}; give another split")
        taken |= dict.fromkeys(identities, option)


def _shards_of(folder: Location) -> list[str]:
    """What tells the shards of a folder from others: their checksums, else their paths."""
    if isinstance(folder, Path) and not folder.is_dir():
        return [str(folder.resolve())]
    manifest = read_manifest(folder)
    if manifest is None:
        return [str(path.resolve()) for path in sorted_glob(folder, "*.tar")]
    return [record.sha256 for record in manifest.shards]


def validate(job: Job, state: TrainState) -> Row:
    """Score the validation split, add that to the state's rows, and keep the weights if they are best."""
    wanted, rows = job.recipe.evaluation, state.validations
    assert wanted.validation is not None
    job.model.eval()
    result = score_split(job, job.model, location_of(wanted.validation))
    job.model.train()
    metrics = result["metrics"]["plain"]
    row = {"step": state.step, **metrics["text_to_video"], "video_to_text": metrics["video_to_text"]}
    is_best = all(row[CRITERION] > earlier[CRITERION] for earlier in rows)
    rows.append(row)
    if job.place.is_first:
        if is_best and wanted.select == "best":
            save_model(job.model, job.out / BEST_FOLDER)
        write_rows(job.out, rows)
    barrier(job.place)
    return row


def as_result(row: Row) -> dict[str, Any]:
    """A validation as a retrieval test tells its metrics."""
    return {"metrics": {"plain": {"text_to_video": row, "video_to_text": row["video_to_text"]}}}


def write_rows(out: Path, rows: list[Row]) -> None:
    """Write all validations of a run to OUT/validation.jsonl."""
    if rows:
        write_jsonl(out / "validation.jsonl", rows)


def best_row(rows: list[Row]) -> Row:
    return max(rows, key=lambda row: (row[CRITERION], -row["step"]))


def choose_weights(job: Job, folder: Path) -> None:
    """Write the weights that the recipe selects to `folder`: the model's, or OUT/best; UserError: gone."""
    if job.recipe.evaluation.select == "last":
        save_model(job.model, folder)
        return
    best = job.out / BEST_FOLDER
    if not best.is_dir():
        hint = f"remove {job.out} and train again"
        raise UserError(f"{best}: the weights of the best validation are gone; {hint}")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(best, partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def score_test(job: Job, step: int, folder: Path) -> dict[str, Any] | None:
    """Score the test split, if there is one, with the model in `folder`, of `step`, into OUT/test.json.

    What an earlier run of the same command found stands.
    """
    recipe, split = job.recipe, job.recipe.evaluation.test
    if split is None:
        return None
    what = {"schema": 1, "stage": "test", "shards": split, "select": recipe.evaluation.select, "step": step}
    path = job.out / "test.json"
    found = None
    with suppress(FileNotFoundError, ValueError, RecursionError):  # a damaged one is scored again
        found = json.loads(path.read_bytes())
    if not isinstance(found, dict) or {name: found.get(name) for name in what} != what:
        # As it is on disk and as `clipvip-eval` loads it.
        # OUT/best of a run that an older version began does not say how it was trained.
        frames, tokens = recipe.data.num_frames, recipe.data.max_text_tokens
        model = load_clip_vip(str(folder), device=job.place.device, num_frames=frames, max_text_tokens=tokens)
        found = {**what, **score_split(job, model, location_of(split))}
        if job.place.is_first:
            write_json(path, found)
    baseline = baseline_scores(job, "test")
    if baseline and found.get("baselines") != baseline:
        found = found | {"baselines": baseline}
        if job.place.is_first:
            write_json(path, found)
    barrier(job.place)
    return found


def _loss_in_words(recipe: Recipe) -> str:
    """Which loss a model was trained with, for its card."""
    if recipe.loss.contrast == "sigmoid":
        return f"variant {recipe.loss.pairs}, sigmoid"
    weighted = {"released": "as in the authors' code", "paper": "as in the paper"}[recipe.loss.weighting]
    return f"variant {recipe.loss.pairs}; its terms are weighted {weighted}"


def write_training_card(job: Job, step: int, scores: dict[str, Any] | None, folder: Path) -> None:
    """Say in the model's card how it was trained and what it scores; no paths of this machine."""
    recipe = job.recipe
    optim, init = recipe.optim, recipe.model.init
    averaged = "" if optim.ema is None else f", averaged over steps with a decay of {optim.ema:g}"
    training = {
        **({"base_model": init} if _is_name(init) else {}),
        "steps": f"{step:,} of batches of {optim.batch_size:,}",
        "loss": _loss_in_words(recipe),
        "learning rate": f"{optim.learning_rate:g}, weight decay {optim.weight_decay:g}",
        "frames": str(recipe.data.num_frames),
        **({"dropped in training": dropped} if (dropped := _dropped(recipe)) else {}),
        "weights": f"of step {step:,} ({recipe.evaluation.select}){averaged}",
    }
    tree = recipe_tree(recipe)
    settings = yaml.safe_dump({name: tree[name] for name in ("seed", "loss", "optim")}, sort_keys=False)
    told = table(scores) if scores else ""
    if scores and "baselines" in scores:
        beside = {_name_in_card(name): one for name, one in scores["baselines"].items()}
        told += f"\n\n{comparison('this model', scores | {'baselines': beside}, figures).text()}"
    write_card(folder, job.model.config, training=training, recipe=settings, scores=told)


def _dropped(recipe: Recipe) -> str:
    """What of clips training left out; nothing where it saw them whole."""
    fractions = {"patches": recipe.model.drop_patches, "frames": recipe.data.drop_frames}
    return ", ".join(f"{fraction:.0%} of the {what}" for what, fraction in fractions.items() if fraction)


def _is_name(model: str) -> bool:
    """Whether a model is named as on the hub, and not by a path or URL, which a card leaves out."""
    return not is_url(model) and not Path(model).exists()


def _name_in_card(model: str) -> str:
    return model if _is_name(model) else "baseline"
