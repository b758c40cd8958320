"""The baseline of a run: a plain CLIP with its frames averaged, or another model, scored beside the trained.

It is scored once on each split, and kept in OUT/baseline.json for whenever the run goes on.
"""

import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import torch

from clipvip.model.preprocess import load_tokenizer
from clipvip.model.starts import is_plain, read_config
from clipvip.pipeline.evaluate.embeddings import load_clip_vip
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.models import model_at_hand, named_by
from clipvip.pipeline.train.distributed import barrier, gather_objects
from clipvip.pipeline.train.recipe import Recipe
from clipvip.pipeline.train.scoring import score_split
from clipvip.pipeline.train.step import Job
from clipvip.shards.files.atomic import write_json
from clipvip.shards.files.places import location_of, read_whole
from clipvip.shards.files.stores import is_url

BASELINE_NAME = "baseline.json"
AUTO = "auto"

Scores = dict[str, Any]


def baseline_of(recipe: Recipe) -> str | None:
    """The model beside which a run is scored: that which its recipe names, or the plain CLIP of its start."""
    wanted, init = recipe.evaluation.baseline, recipe.model.init
    if wanted != AUTO:
        return wanted
    if recipe.model.from_scratch:  # only sizes are taken of it
        return None
    return init if _is_plain(init) else None


def check_baseline(recipe: Recipe) -> None:
    """Look whether a baseline that the recipe names can be scored; weights are not read.

    A UserError or CheckpointError says why not.
    """
    name = recipe.evaluation.baseline
    if name is None or name == AUTO:
        return
    if name.lower() in ("none", "no", "off", "false"):
        raise UserError(f"evaluation.baseline: {name} is no model; write null for no baseline")
    with named_by("evaluation.baseline"), model_at_hand(name) as local:
        if not Path(local).is_file():
            read_config(local)
        if Path(local).is_file() or load_tokenizer(local) is None:
            raise UserError(
                f"evaluation.baseline: {name} is no model folder with a tokenizer beside its weights"
            )


def baseline_scores(job: Job, split: Literal["validation", "test"]) -> dict[str, Scores]:
    """What the baseline scores on a split, by its name; nothing where the run has none, or no such split.

    Every process has to call it. What an earlier run of the same command found stands. The baseline sees as
    many frames as the model that is trained, and as much of each text.
    """
    shards = getattr(job.recipe.evaluation, split)
    name = None if shards is None else baseline_of(job.recipe)
    if shards is None or name is None:
        return {}
    path = job.out / BASELINE_NAME
    # All do as the first process does, also where others read an older file.
    splits = gather_objects(_read(path, name), place=job.place)[0]
    found = splits.get(split)
    # A validation split is known by its content (`data_record`), wherever it lies.
    if found is None or (split == "test" and found.get("shards") != shards):
        with torch.random.fork_rng([]), model_at_hand(name) as local:
            model = load_clip_vip(local, device=job.place.device, like=job.model)
            found = {"shards": shards, **score_split(job, model, location_of(shards))}
        if job.place.is_first:
            head = {"schema": 1, "stage": "baseline", "model": name}
            write_json(path, {**head, "splits": splits | {split: found}})
        barrier(job.place)
    return {name: found}


def recalls_of(scores: Scores) -> dict[str, float]:
    """From text to video: the metrics that validations are logged by."""
    metrics = scores["metrics"]["plain"]["text_to_video"]
    return {name: value for name, value in metrics.items() if isinstance(value, float)}


def _read(path: Path, name: str) -> dict[str, Scores]:
    """The scores of the splits, as the file has them of this baseline; a damaged file counts as none."""
    with suppress(FileNotFoundError, ValueError, RecursionError):
        content = json.loads(path.read_bytes())
        if isinstance(content, dict) and content.get("model") == name:
            splits = content.get("splits")
            return splits if isinstance(splits, dict) else {}
    return {}


def _is_plain(init: str) -> bool:
    if not is_url(init):
        return is_plain(init)
    with tempfile.TemporaryDirectory(prefix="clipvip-config-") as folder:
        Path(folder, "config.json").write_bytes(read_whole(location_of(init) / "config.json"))
        return is_plain(folder)
