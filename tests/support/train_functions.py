"""What tests of training run in several processes, which import it by name."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.utils.data import Dataset

from clipvip.pipeline.train.checkpoint import TrainState
from clipvip.pipeline.train.distributed import LateLargest, Place, process_group
from clipvip.pipeline.train.loop import batches_of, prepare
from clipvip.pipeline.train.recipe import recipe_from_tree
from clipvip.pipeline.train.step import compute_gradients, train_step


def gradients_and_steps(tree: dict[str, Any], folder: str, num_steps: int) -> int:
    """Save the gradient of the first batch, and the weights after `num_steps`, of the first process."""
    with process_group("cpu") as place:
        save_gradients_and_steps(tree, Path(folder), num_steps, place)
    return 0


def save_gradients_and_steps(tree: dict[str, Any], folder: Path, num_steps: int, place: Place) -> None:
    job = prepare(recipe_from_tree(tree, name="test"), place, cache=folder / "cache")
    for step, chunks in enumerate(batches_of(job, TrainState())):
        if step == num_steps:
            break
        if step == 0:
            compute_gradients(job, chunks)
            gradients = {name: p.grad for name, p in job.model.named_parameters() if p.grad is not None}
            if place.is_first:
                save_file(
                    {name: g.clone() for name, g in gradients.items()}, folder / "gradients.safetensors"
                )
            job.optimizer.zero_grad(set_to_none=True)
        train_step(job, chunks, learning_rate=job.recipe.optim.learning_rate)
    if place.is_first:
        weights = {name: tensor.detach().clone() for name, tensor in job.model.state_dict().items()}
        save_file(weights, folder / "weights.safetensors")


def plain_gradients(tree: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The gradient of the first batch by one plain backward pass: nothing joined, cached or summed."""
    from clipvip.pipeline.train.step import batch_terms

    place = Place(0, 1, torch.device("cpu"))
    job = prepare(recipe_from_tree(tree, name="test"), place, cache=Path("unused"))
    chunks = next(batches_of(job, TrainState()))
    embeddings = {(c.source, role): rows for c in chunks for role, rows in job.encode(c).items()}
    has_caption = {c.source: c.has_caption for c in chunks if c.has_caption is not None}
    terms = batch_terms(embeddings, has_caption, job.model.logit_scale, plan=job.plan, loss=job.recipe.loss)
    torch.stack(list(terms.values())).sum().backward()
    return {name: p.grad for name, p in job.model.named_parameters() if p.grad is not None}


def signals_seen(folder: str) -> int:
    """Write what this process reads at each of four steps; the second is told to stop at the third."""
    with process_group("cpu") as place:
        signals = LateLargest(place=place)
        seen = []
        for step in range(4):
            seen.append(signals.read())
            signals.begin(15 if place.rank == 1 and step == 2 else 0)
        signals.read()
        Path(folder, str(place.rank)).write_text(" ".join(map(str, seen)))
    return 0


class Unsendable(Dataset[Any]):
    """What it loads cannot be sent to another process, as tensors when no shared memory is left."""

    def __getitem__(self, spec: object) -> Any:
        return lambda: spec
