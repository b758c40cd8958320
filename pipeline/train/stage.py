"""The stage `train`: a recipe, a few options that change it, and checks before any process starts."""

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clipvip.pipeline.runtime.errors import UserError, require_local
from clipvip.pipeline.runtime.options import ALSO, MOST_PROCESSES, at_least, opt, options
from clipvip.pipeline.runtime.report import StageReport
from clipvip.pipeline.runtime.stage import StageOptions, stage
from clipvip.pipeline.train.processes import run_training
from clipvip.pipeline.train.recipe import (
    Recipe,
    differences,
    dump_recipe,
    load_recipe,
    recipe_from_tree,
    recipe_tree,
)
from clipvip.pipeline.train.recipe_names import RecipeName
from clipvip.pipeline.train.store_run import in_store, local_folder, publish, run_folder
from clipvip.shards.files.atomic import atomic_write_bytes
from clipvip.shards.files.claims import lock_folder

if TYPE_CHECKING:
    from clipvip.pipeline.train.batches import BatchPlan


def _place(what: str) -> Any:
    return opt(f"{what}; {ALSO}.", metavar="DIR", default=None)


@options
class TrainOptions(StageOptions):
    """Options of `train`: a packaged recipe's name or the path of a YAML file, and changes."""

    recipe: str = opt(type=RecipeName(), argument=True, kw_only=False)
    shards: str | None = opt(
        "Folder of shards, or their URLs with {000..099}.", metavar="DIR_OR_URLS", default=None
    )
    captions: tuple[str, ...] | None = opt(
        f"Folder that 'clipvip-data caption' wrote for these shards; may be given several times; {ALSO}.",
        metavar="DIR",
        default=(),
    )
    init: str | None = opt(
        f"The CLIP or CLIP-ViP model to start from; {ALSO}.", metavar="FOLDER_OR_NAME", default=None
    )
    out: str | None = _place("Folder for this run; the same command again goes on from there")
    gpus: int | None = opt(
        "Processes with a GPU each; 0: compute on the CPU.", at_least(0, MOST_PROCESSES), default=None
    )
    validation: str | None = _place("Folder of shards to score during training, each clip with one text")
    test: str | None = _place("Folder of shards to score once, at the end, into test.json")
    select: Literal["best", "last"] | None = opt(
        "The weights to keep: of the best validation, or of the last step.",
        shown="the recipe's",
        default=None,
    )
    resume: Literal["auto", "never"] = opt(
        "auto: go on from the last checkpoint in --out where there is one; never: refuse if there is one.",
        default="auto",
    )
    overrides: tuple[str, ...] = opt(
        "Change one setting; repeatable.", names=("--set",), metavar="KEY=VALUE", default=()
    )
    dry_run: bool = opt("Say what would be trained, after all checks, and write nothing.", default=False)


@stage(
    TrainOptions,
    "clipvip-train",
    "pretrain_vip_b32 --shards clips/ --captions captions/ --init openai/clip-vit-base-patch32\n"
    "--out runs/b32 --gpus 8",
    "finetune_didemo_b32 --shards didemo-train/ --validation didemo-val/ --test didemo-test/\n"
    "--init runs/b32/model --select best --out runs/didemo",
    "demo --shards clips/ --captions captions/ --init clip/ --out run --dry-run",
    note="Exit codes: 0 training is complete, 1 what was given cannot be used, 2 wrong options, 130 stopped "
    "by Ctrl-C, 143 by SIGTERM; after the last two a checkpoint of the step just done is in the folder.",
)
def train(options: TrainOptions) -> StageReport:
    """Post-pretrain or fine-tune CLIP-ViP as RECIPE says: a YAML file, or the name of a packaged recipe.

    The model ends up in DIR/model, in the layout that ClipVip.from_pretrained loads.

    Returns:
        What report.json holds and, under `result`, the scores of the test split; nothing in processes other
        than the first of those that a launcher started.

    Raises:
        UserError, DatasetError, CheckpointError: what was given cannot be used, or training diverged.
        TrainingStopped: SIGTERM or Ctrl-C came; a checkpoint is saved, and the same call goes on from there.

    Examples:
        >>> import clipvip
        >>> report = clipvip.train(
        ...     "demo",
        ...     shards="clips",
        ...     captions="captions",
        ...     init="openai/clip-vit-base-patch32",
        ...     out="run",
        ...     gpus=0,
        ...     overrides=["optim.epochs=null", "optim.steps=1", "optim.batch_size=4", "run.workers=0"],
        ... )
        >>> clipvip.ClipVip.from_pretrained("run/model").config.model_type
        'clip_vip'
    """
    recipe = recipe_of(options)
    if not recipe.run.out:
        raise UserError("no folder for the run; give --out")
    require_local("run.cache", recipe.run.cache)
    with run_folder(recipe):
        return _train(recipe, options)


def _train(recipe: Recipe, options: TrainOptions) -> StageReport:
    plan = check(recipe, resume=options.resume)
    if options.dry_run:
        from clipvip.pipeline.train.dry_run import describe_run

        content, text = describe_run(recipe, plan)
        return StageReport(content=content, text=text)
    from clipvip.pipeline.train.checkpoint import DATA_NAME, RECIPE_NAME
    from clipvip.pipeline.train.data_record import describe_data

    if os.environ.get("RANK", "0") != "0":
        return run_training(recipe)
    out = local_folder(recipe)
    with lock_folder(out):  # against another run
        atomic_write_bytes(out / RECIPE_NAME, dump_recipe(recipe).encode())
        atomic_write_bytes(out / DATA_NAME, describe_data(recipe, plan).as_json().encode())
        report = run_training(recipe)
        publish(recipe)
        return replace(report, text=in_store(recipe, report.text))


def recipe_of(options: TrainOptions) -> Recipe:
    """The recipe with changed settings and what other options say; a UserError where they do not fit it."""
    recipe = load_recipe(options.recipe, options.overrides)
    tree = recipe_tree(recipe)
    if options.shards is not None or options.captions:
        source = tree["data"]["sources"][_source_for_options(recipe)]
        source["shards"] = source["shards"] if options.shards is None else options.shards
        if options.captions:  # "" stands for none
            folders = list(filter(None, options.captions))
            source["captions"] = folders if len(folders) > 1 else folders[0] if folders else None
    if options.gpus == 0:
        tree["run"]["device"] = "cpu"
    elif options.gpus is not None:
        tree["run"]["processes"] = options.gpus
        if recipe.run.device == "auto":
            tree["run"]["device"] = "cuda"
    named = {"model": ("init",), "run": ("out",), "evaluation": ("validation", "test", "select")}
    for section, names in named.items():
        given = {name: getattr(options, name) for name in names}
        tree[section] |= {name: value for name, value in given.items() if value is not None}
    return recipe_from_tree(tree, name="options")


def _source_for_options(recipe: Recipe) -> str:
    clips = [name for name, source in recipe.data.sources.items() if source.kind == "clips"]
    names = clips or list(recipe.data.sources)
    if len(names) > 1:
        raise UserError(
            f"--shards and --captions are for recipes with one source of clips, this has {', '.join(names)}; "
            f"write --set data.sources.{names[0]}.shards=... instead"
        )
    return names[0]


def check(recipe: Recipe, *, resume: str) -> "BatchPlan":
    """The plan of a run's batches, before any process starts; or an error that says what is wrong with it."""
    # torch and the model are imported from here on, so that mistakes above are told at once.
    from clipvip.pipeline.train import data_record
    from clipvip.pipeline.train.baseline import check_baseline
    from clipvip.pipeline.train.batches import plan_batches
    from clipvip.pipeline.train.checkpoint import RECIPE_NAME, list_checkpoints
    from clipvip.pipeline.train.distributed import launched_world_size
    from clipvip.pipeline.train.enough import check_samples
    from clipvip.pipeline.train.logs import require_wandb
    from clipvip.pipeline.train.start import check_device, check_init
    from clipvip.pipeline.train.validation import check_splits

    out = local_folder(recipe)
    check_device(recipe)
    if recipe.run.wandb_project is not None:
        require_wandb()
    check_init(recipe)
    checkpoints = list_checkpoints(out)
    if checkpoints and resume == "never":
        raise UserError(f"{out}: holds checkpoints, and --resume is never; remove it or give another --out")
    of_run = [path for folder in (out, *checkpoints) if (path := folder / RECIPE_NAME).is_file()]
    known_data = data_record.recorded_data(out)
    if checkpoints and of_run:
        changed = differences(load_recipe(str(of_run[0])), recipe, paths=known_data is None)
        if changed:
            raise UserError(
                f"{out}: holds checkpoints of another recipe ({'; '.join(changed[:3])}); give the same "
                "settings or another --out"
            )
    check_splits(recipe)
    check_baseline(recipe)
    with tempfile.TemporaryDirectory() as cache:
        place = Path(recipe.run.cache or cache)
        plan = plan_batches(recipe, cache=place, order_version=data_record.order_of_run(out))
        if known_data is not None:
            changed = data_record.data_differences(known_data, data_record.describe_data(recipe, plan))
            if changed:
                raise UserError(
                    f"{out}: holds checkpoints of a run on other data ({'; '.join(changed[:3])}); give the "
                    "same data or another --out"
                )
        processes = launched_world_size() or recipe.run.processes
        check_samples(plan, processes=processes, warns=os.environ.get("RANK", "0") == "0")
    return plan
