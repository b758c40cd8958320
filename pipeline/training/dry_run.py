"""What `clipvip-train --dry-run` tells: the whole recipe, and what it comes to on what is there."""

from pathlib import Path

from clipvip.pipeline.training.batches import BatchPlan
from clipvip.pipeline.training.checkpoint import list_checkpoints
from clipvip.pipeline.training.recipe import Recipe, dump_recipe
from clipvip.pipeline.training.start import chosen_device, start_model


def describe_run(recipe: Recipe, plan: BatchPlan) -> str:
    """The recipe as YAML, which can be run as it is, after comments with numbers. Loads the model, as the run would.

    Raises:
        UserError, CheckpointError: the model does not go with the recipe.
    """
    parameters = [parameter.numel() for parameter in start_model(recipe).parameters()]
    out = Path(recipe.run.out)
    batch_size, num_steps = recipe.optim.batch_size, plan.num_steps(recipe)
    lines = [f"{num_steps:,} steps, {plan.steps_per_epoch:,} in an epoch, batches of {batch_size:,}"]
    for part in plan.parts:
        what = f"{len(part.shards.locations):,} shards, {part.order.num_samples:,} samples"
        lines.append(f"source {part.name}: {what}, {part.rows:,} in a batch")
    lines += [
        f"{sum(parameters):,} parameters, from {recipe.model.init}",
        f"{recipe.run.processes} on {chosen_device(recipe)} -> {out}",
    ]
    checkpoints = list_checkpoints(out)
    if checkpoints:
        lines.append(f"goes on from {checkpoints[-1]}")
    return "".join(f"# {line}\n" for line in lines) + dump_recipe(recipe)
