"""The command `clipvip-train`: a recipe, a few options, and the processes that train. Training is in training/."""

import os
import signal
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipvip import __version__
from clipvip.pipeline.runtime.errors import StageCommand, UserError, require_local
from clipvip.pipeline.runtime.options import LocalName, dry_run_option, json_option, print_result
from clipvip.pipeline.runtime.stopping import leave
from clipvip.pipeline.runtime.worker_process import die_with_parent
from clipvip.pipeline.train.recipe import (
    Recipe,
    differences,
    dump_recipe,
    load_recipe,
    recipe_from_tree,
    recipe_tree,
)
from clipvip.shards.files.atomic import atomic_write_bytes
from clipvip.shards.files.claims import lock_folder

if TYPE_CHECKING:
    from clipvip.pipeline.train.batches import BatchPlan

# What a shell reports for a process that a signal ended: 130 after Ctrl-C, 143 after SIGTERM.
_SIGNAL_EXIT = 128

_EPILOG = """Exit codes: 0 training is complete, 1 what was given cannot be used, 2 wrong options, 130 stopped by
Ctrl-C, 143 by SIGTERM; after the last two a checkpoint of the step just done is in the folder.

\b
Examples:
  clipvip-train pretrain_vip_b32 --shards clips/ --captions captions/ --init openai/clip-vit-base-patch32 \\
      --out runs/b32 --gpus 8
  clipvip-train finetune_didemo_b32 --shards didemo-train/ --validation didemo-val/ --test didemo-test/ \\
      --init runs/b32/model --select best --out runs/didemo
  clipvip-train demo --shards clips/ --captions captions/ --init clip/ --out run --dry-run
"""


@click.command(cls=StageCommand, epilog=_EPILOG)
@click.argument("recipe")
@click.option("--shards", metavar="DIR_OR_URLS", help="Folder of shards, or their URLs with {000..099}.")
@click.option(
    "--captions",
    type=LocalName(),
    metavar="DIR",
    help="Folder that 'clipvip-data caption' wrote for these shards.",
)
@click.option(
    "--init", type=LocalName(), metavar="FOLDER_OR_NAME", help="The CLIP or CLIP-ViP model to start from."
)
@click.option(
    "--out",
    type=LocalName(),
    metavar="DIR",
    help="Folder for this run; the same command again goes on from there.",
)
@click.option(
    "--gpus",
    type=click.IntRange(min=0),
    help="Processes with a GPU each; 0: compute on the CPU.",
)
@click.option(
    "--validation",
    type=LocalName(),
    metavar="DIR",
    help="Folder of shards to score during training, each clip with one text.",
)
@click.option(
    "--test",
    type=LocalName(),
    metavar="DIR",
    help="Folder of shards to score once, at the end, into test.json.",
)
@click.option(
    "--select",
    type=click.Choice(["best", "last"]),
    show_default="the recipe's",
    help="The weights to keep: of the best validation, or of the last step.",
)
@click.option(
    "--resume",
    type=click.Choice(["auto", "never"]),
    default="auto",
    show_default=True,
    help="auto: go on from the last checkpoint in --out where there is one; never: refuse if there is one.",
)
@click.option(
    "--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Change one setting; repeatable."
)
@json_option
@dry_run_option("what the recipe comes to after all checks")
@click.version_option(__version__, package_name="clipvip")
@click.pass_context
def main(
    ctx: click.Context,
    recipe: str,
    shards: str | None,
    captions: str | None,
    init: str | None,
    out: str | None,
    gpus: int | None,
    validation: str | None,
    test: str | None,
    select: str | None,
    resume: str,
    overrides: tuple[str, ...],
    as_json: bool,
    dry_run: bool,
) -> None:
    """Post-pretrain or fine-tune CLIP-ViP as RECIPE says: a YAML file, or the name of a packaged recipe.

    The model ends up in DIR/model, in the layout that ClipVip.from_pretrained loads.
    """
    settings = load_recipe(recipe, overrides)
    settings = with_options(settings, shards=shards, captions=captions, init=init, out=out, gpus=gpus)
    chosen = {"validation": validation, "test": test, "select": select}
    settings = with_evaluation(settings, {name: value for name, value in chosen.items() if value is not None})
    plan = check(settings, resume=resume)
    if dry_run:
        from clipvip.pipeline.train.dry_run import describe_run

        print_result(*describe_run(settings, plan), as_json=as_json)
        return
    claim(settings, plan)
    run = run_one_of_many if is_launched() else run_processes
    ctx.exit(run(settings, as_json=as_json))


def with_options(
    recipe: Recipe,
    *,
    shards: str | None,
    captions: str | None,
    init: str | None,
    out: str | None,
    gpus: int | None,
) -> Recipe:
    """The recipe with what the command line's own options say."""
    tree = recipe_tree(recipe)
    if shards is not None or captions is not None:
        source = tree["data"]["sources"][_source_for_options(recipe)]
        source["shards"] = source["shards"] if shards is None else shards
        source["captions"] = source["captions"] if captions is None else captions or None
    if init is not None:
        tree["model"]["init"] = init
    if out is not None:
        tree["run"]["out"] = out
    if gpus == 0:
        tree["run"]["device"] = "cpu"
    elif gpus is not None:
        tree["run"]["processes"] = gpus
        if recipe.run.device == "auto":
            tree["run"]["device"] = "cuda"
    return recipe_from_tree(tree, name="options")


def with_evaluation(recipe: Recipe, changes: dict[str, str]) -> Recipe:
    """The recipe with other settings of its evaluation."""
    tree = recipe_tree(recipe)
    tree["evaluation"] |= changes
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
    """Find what is wrong with a run before any process starts; the plan of its batches. Writes nothing.

    Raises:
        UserError, DatasetError: in one line, what is wrong and what to do.
    """
    if not recipe.run.out:
        raise UserError("no folder for the run; give --out")
    for name, value in (
        ("run.out", recipe.run.out),
        ("run.cache", recipe.run.cache),
        ("model.init", recipe.model.init),
    ):
        require_local(name, value)
    # torch and the model are imported from here on, so that mistakes above are told at once.
    from clipvip.pipeline.train.batches import plan_batches
    from clipvip.pipeline.train.checkpoint import RECIPE_NAME, list_checkpoints
    from clipvip.pipeline.train.data_record import (
        data_differences,
        describe_data,
        order_of_run,
        recorded_data,
    )
    from clipvip.pipeline.train.distributed import launched_world_size
    from clipvip.pipeline.train.enough import check_samples, check_shares
    from clipvip.pipeline.train.logs import require_wandb
    from clipvip.pipeline.train.start import check_device, check_init
    from clipvip.pipeline.train.validation import check_splits

    out = Path(recipe.run.out)
    check_device(recipe)
    if recipe.run.wandb_project is not None:
        require_wandb()
    check_init(recipe)
    checkpoints = list_checkpoints(out)
    if checkpoints and resume == "never":
        raise UserError(f"{out}: holds checkpoints, and --resume is never; remove it or give another --out")
    saved = out / RECIPE_NAME
    of_run = [path for path in (saved, *(folder / RECIPE_NAME for folder in checkpoints)) if path.is_file()]
    known_data = recorded_data(out)
    if checkpoints and of_run:
        changed = differences(load_recipe(str(of_run[0])), recipe, paths=known_data is None)
        if changed:
            raise UserError(
                f"{out}: holds checkpoints of another recipe ({'; '.join(changed[:3])}); give the same "
                "settings or another --out"
            )
    check_splits(recipe)
    with tempfile.TemporaryDirectory() as cache:
        place = Path(recipe.run.cache or cache)
        plan = plan_batches(recipe, cache=place, order_version=order_of_run(out))
        if known_data is not None:
            changed = data_differences(known_data, describe_data(recipe, plan))
            if changed:
                raise UserError(
                    f"{out}: holds checkpoints of a run on other data ({'; '.join(changed[:3])}); give the same data "
                    "or another --out"
                )
        check_shares(plan, processes=launched_world_size() or recipe.run.processes)
        check_samples(plan, warns=os.environ.get("RANK", "0") == "0")
    return plan


def claim(recipe: Recipe, plan: "BatchPlan") -> None:
    """Note down the recipe and what the data are in the folder of the run, locked against another until the command ends."""
    from clipvip.pipeline.train.checkpoint import DATA_NAME, RECIPE_NAME
    from clipvip.pipeline.train.data_record import describe_data

    out = Path(recipe.run.out)
    if os.environ.get("RANK", "0") == "0":
        click.get_current_context().with_resource(lock_folder(out))
        atomic_write_bytes(out / RECIPE_NAME, dump_recipe(recipe).encode())
        atomic_write_bytes(out / DATA_NAME, describe_data(recipe, plan).as_json().encode())


def is_launched() -> bool:
    """Whether torchrun or the like started this process as one of several."""
    from clipvip.pipeline.train.distributed import launched_world_size

    return launched_world_size() is not None


def run_processes(recipe: Recipe, *, as_json: bool) -> int:
    """Train in as many processes as the recipe says; return the exit code."""
    if recipe.run.processes == 1:
        return run_here(recipe, as_json=as_json)
    from clipvip.pipeline.train.launch import LaunchError, launch

    try:
        return launch(train_process, recipe_tree(recipe), as_json, processes=recipe.run.processes)
    except LaunchError as error:
        raise UserError(
            f"{error}, as a system out of memory does; the same command goes on from the last checkpoint"
        ) from error


def train_process(tree: dict[str, Any], as_json: bool) -> int:
    """One of several processes of this machine: see `run_one_of_many`."""
    return run_one_of_many(recipe_from_tree(tree, name="recipe.yaml"), as_json=as_json)


def run_one_of_many(recipe: Recipe, *, as_json: bool) -> int:
    """As `run_here`; where that fails, say why in one line and end this process, which holds up no other."""
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun looks after its processes, and does not outlive them
        die_with_parent()
    command = StageCommand("clipvip-train", callback=lambda: run_here(recipe, as_json=as_json))
    try:
        exit_code: int = command.main([], standalone_mode=False)
    except click.ClickException as error:
        error.show()
        exit_code = error.exit_code
    except Exception:  # noqa: BLE001 (a mistake of ours)
        traceback.print_exc()
        exit_code = 1
    if exit_code:
        leave(exit_code)
    return exit_code


def run_here(recipe: Recipe, *, as_json: bool) -> int:
    """Train in this process, print what came of it, and return the exit code."""
    from clipvip.pipeline.train.distributed import process_group
    from clipvip.pipeline.train.loop import train
    from clipvip.pipeline.train.start import chosen_device

    with process_group(chosen_device(recipe)) as place:
        outcome = train(recipe, place=place)
        if not place.is_first:
            return _exit_code(outcome.stopped_by)
    if outcome.stopped_by:
        click.echo(
            f"Stopped by {signal.Signals(outcome.stopped_by).name} after step {outcome.step:,} of "
            f"{outcome.num_steps:,}; a checkpoint is saved. The same command goes on from here.",
            err=True,
        )
    else:
        print_result(outcome.result, outcome.summary, as_json=as_json)
    return _exit_code(outcome.stopped_by)


def _exit_code(stopped_by: int) -> int:
    return _SIGNAL_EXIT + stopped_by if stopped_by else 0


if __name__ == "__main__":
    main()
