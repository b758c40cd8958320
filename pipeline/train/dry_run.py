"""What `clipvip-train --dry-run` tells: the whole recipe, and what it comes to on what is there."""

from typing import Any

from clipvip.pipeline.runtime.report import counted
from clipvip.pipeline.train.batches import BatchPlan
from clipvip.pipeline.train.checkpoint import list_checkpoints
from clipvip.pipeline.train.recipe import Recipe, dump_recipe, recipe_tree
from clipvip.pipeline.train.start import chosen_device, start_model
from clipvip.pipeline.train.store_run import in_store, local_folder


def describe_run(recipe: Recipe, plan: BatchPlan) -> tuple[dict[str, Any], str]:
    """Numbers and the recipe, as JSON has them, and as YAML that can be run, after comments with the numbers.

    Loads the model, as the run would: UserError or CheckpointError where it does not go with the recipe.
    """
    num_parameters = sum(parameter.numel() for parameter in start_model(recipe).parameters())
    checkpoints = list_checkpoints(local_folder(recipe))
    counts = {
        "steps": plan.num_steps(recipe),
        "steps_per_epoch": plan.order.steps_per_epoch,
        "batch_size": recipe.optim.batch_size,
        "parameters": num_parameters,
    }
    sources = {}
    for part in plan.parts:
        held = {"shards": len(part.shards.shards), "samples": part.order.num_samples}
        sources[part.shards.name] = held | {"samples_per_batch": part.order.rows}
    last = in_store(recipe, str(checkpoints[-1])) if checkpoints else None
    told = {"counts": counts, "sources": sources, "goes_on_from": last}
    content = {"stage": "train", "options": recipe_tree(recipe), **told}
    steps = counted(counts["steps"], "steps")
    lines = [f"{steps}, {counts['steps_per_epoch']:,} in an epoch, batches of {counts['batch_size']:,}"]
    for name, source in sources.items():
        what = f"{counted(source['shards'], 'shards')}, {counted(source['samples'], 'samples')}"
        lines.append(f"source {name}: {what}, {source['samples_per_batch']:,} in a batch")
    lines += [
        f"{num_parameters:,} parameters, from {recipe.model.init}",
        f"{recipe.run.processes} on {chosen_device(recipe)} -> {recipe.run.out}",
    ]
    if last:
        lines.append(f"goes on from {last}")
    return content, "".join(f"# {line}\n" for line in lines) + dump_recipe(recipe).rstrip("\n")
