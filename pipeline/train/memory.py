"""How much memory a run needs on its device and in its loading processes, found out before it starts."""

import math
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import click
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from clipvip.model import ClipVip, ClipVipConfig
from clipvip.model.layer import TransformerLayer
from clipvip.model.seen import EVERYTHING, Seen
from clipvip.model.variants import Precision
from clipvip.pipeline.loading.processes import SHARED_MEMORY, free_shared_memory
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.report import counted
from clipvip.pipeline.train import distributed
from clipvip.pipeline.train.batches import Chunk, ChunkDataset, ChunkSpec
from clipvip.pipeline.train.samples import SampleSettings
from clipvip.pipeline.train.step import Job
from clipvip.shards.files.stores import is_remote

# Of what is free, for what the count below leaves out: the allocator's gaps, workspaces, kernels.
_USED_PART = 0.9
# Frames are resized so many at a time, see `Pixels.normalized`; in floating point that takes about this.
_RESIZING_BYTES = 2**30
# Frames of stored clips where nobody has looked: 256 pixels high, 16 by 9, RGB.
_STORED_FRAME_BYTES = 256 * 456 * 3
# Chunks are a multiple of this, which matrix products like, where the batch allows it.
_ROWS_STEP = 8
_ROWS_LOOKED_AT = 4
# Of a chunk besides pixels: token ids and masks of two texts or more; pages that are not full, semaphores.
_TOKEN_BYTES = 2 * 8
_SMALL_BYTES = 2**16


@dataclass(frozen=True)
class SavedBytes:
    """What the forward pass keeps for the backward pass: so much a sample, and so much for all of them."""

    per_row: float
    besides: float


def saved_bytes(
    config: ClipVipConfig,
    settings: SampleSettings,
    *,
    num_tokens: int,
    precision: Precision,
    checkpoint_activations: bool = False,
) -> SavedBytes:
    """Count what autograd keeps of a chunk, by a forward pass on tensors that have shapes and no content.

    As on a GPU without compiling, which keeps more. On an H100 B/32 took 40.8 GiB at its peak for a batch of
    128, weights, gradient and optimizer included; of the network of then this counted 37.8 GiB without them.
    """
    few, more = 4, 8
    counted = [
        _saved(config, settings, rows, num_tokens, precision, checkpoint_activations) for rows in (few, more)
    ]
    per_row = (counted[1] - counted[0]) / (more - few)
    return SavedBytes(per_row, max(counted[0] - few * per_row, 0.0))


def _saved(
    config: ClipVipConfig,
    settings: SampleSettings,
    rows: int,
    num_tokens: int,
    precision: Precision,
    checkpoint_activations: bool,
) -> float:
    size = config.vision_config.image_size
    storages: dict[int, int] = {}
    kept_alive = []  # or the next would get the address of one that is counted
    of_layers: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        kept_alive.append(tensor)
        return tensor

    def note(layer: torch.nn.Module, inputs: object, output: torch.Tensor | tuple[torch.Tensor]) -> None:
        hidden = output if isinstance(output, torch.Tensor) else output[0]
        of_layers.append(hidden.nbytes)

    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision != "fp32")  # fp16 takes as much
    with torch.random.fork_rng([]), FakeTensorMode():
        model = ClipVip(config)
        for module in model.modules():
            if isinstance(module, CLIPEncoderLayer):
                module.register_forward_hook(note)
            if isinstance(module, TransformerLayer):
                module.frame_kernel_on = ("cpu",)  # where these tensors are said to be
        weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
            for num_frames in (settings.kept_frames, *([1] if settings.needs_frame else [])):
                seen = EVERYTHING
                if settings.drop_patches:
                    kept = settings.kept_patches(config.num_patches)
                    seen = Seen(patches=torch.zeros(rows, num_frames, kept, dtype=torch.int16))
                model(pixel_values=torch.empty(rows, num_frames, 3, size, size), embeds_only=True, seen=seen)
            texts = rows * settings.texts_of_row
            model(input_ids=torch.zeros(texts, num_tokens, dtype=torch.int64))
    total = sum(num_bytes for storage, num_bytes in storages.items() if storage not in weights)
    if checkpoint_activations:  # the outputs of layers are kept, and what one layer keeps is made again
        return sum(of_layers) + total / max(config.vision_config.num_hidden_layers, 1)
    return float(total)


def fitting_chunk(shares: Sequence[int], most: int) -> int | None:
    """How many samples to encode at a time, so that no more than `most` are: None for a whole batch.

    Args:
        shares: a process's rows of each source in a batch.

    A divisor of the largest share where one is near: of 1,024 where 200 fit 128, of which there are 8. Else
    chunks as even as they come: of 500 where 120 fit 104, of which there are 5.
    """
    largest, most = max(shares), max(most, 1)
    if sum(shares) <= most:
        return None
    # With two chunks of a source or more only one is held at a time, see step.py.
    most = min(most, max(math.ceil(largest / 2), 1))
    if most <= _ROWS_STEP:
        return most
    for size in range(most - most % _ROWS_STEP, most // 2, -_ROWS_STEP):
        if largest % size == 0:
            return size
    even = math.ceil(largest / math.ceil(largest / most))
    return min(math.ceil(even / _ROWS_STEP) * _ROWS_STEP, most)


def choose_chunk_size(job: Job, kept: int | None, row_bytes: float) -> int | None:
    """What `run.chunk_size` says; for `auto` what memory allows, the same in every process.

    Args:
        kept: what this run chose when it began, which holds as long as it fits.
        row_bytes: of the frames of a row as they are sent to the device.
    """
    recipe, place = job.recipe, job.place
    asked = recipe.run.chunk_size
    if asked != "auto":
        return asked
    free = min(distributed.gather_objects(_free_on(job), place=place))
    shares = [math.ceil(part.order.rows / place.world_size) for part in job.plan.parts]
    if sum(shares) * _bytes_at_most(job) < _USED_PART * free:
        return None
    needs = _needs(job)
    per_row = max(need.per_row for need in needs)
    # Of this batch and the next, which is copied meanwhile.
    free -= _RESIZING_BYTES + 2 * sum(shares) * row_bytes + max(need.besides for need in needs)
    chosen = fitting_chunk(shares, int(_USED_PART * free / per_row)) or max(shares)
    if kept is not None and min(kept * len(shares), sum(shares)) <= free / per_row:
        chosen = kept
    if place.is_first:
        what = counted(chosen, "samples") if chosen < max(shares) else "the whole batch"
        room = f"{per_row / 2**30:.2g} GiB a sample, {free / 2**30:.1f} GiB free"
        click.echo(f"run.chunk_size=auto: {what} at a time ({room})", err=True)
    return chosen


def _bytes_at_most(job: Job) -> float:
    """More than a sample can need, by a formula, so that small models need no count."""
    config, data = job.model.config, job.recipe.data
    vision, text = config.vision_config, config.text_config
    num_tokens = (config.num_proxies + 1 + config.num_patches) * (data.num_frames + 1)
    values = num_tokens * vision.num_hidden_layers * (vision.hidden_size + vision.intermediate_size)
    num_texts = max(2, *(part.settings.texts_of_row for part in job.plan.parts))
    of_token = text.num_hidden_layers * (text.hidden_size + text.intermediate_size)
    values += num_texts * data.max_text_tokens * of_token
    return 64.0 * values


def _needs(job: Job) -> list[SavedBytes]:
    """Of each source; UserError: an encoder of which it cannot be counted."""
    recipe = job.recipe
    try:
        return [
            saved_bytes(
                job.model.config,
                part.settings,
                num_tokens=recipe.data.max_text_tokens,
                precision=job.precision,
                checkpoint_activations=recipe.run.checkpoint_activations,
            )
            for part in job.plan.parts
        ]
    except RuntimeError as error:  # a plug-in's encoder may ask for values
        raise UserError(
            f"run.chunk_size=auto: the memory that the encoder needs is not known ({error}); give a number"
        ) from error


def _free_on(job: Job) -> float:
    """Bytes of the device that are free, less those that gradient and optimizer will take."""
    device = job.place.device
    if device.type == "cuda":
        free = float(torch.cuda.mem_get_info(device)[0])
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    else:
        free = free_memory() / _processes_here(job)
    for parameter in job.model.parameters():
        if parameter.requires_grad:
            has_moments = bool(job.optimizer.state.get(parameter))
            free -= (1 if has_moments else 3) * parameter.nbytes
    return free


def _processes_here(job: Job) -> int:
    """Training processes of this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", job.place.world_size))


def bytes_of_frames(dataset: ChunkDataset) -> tuple[int, ...]:
    """For each source the bytes of a frame, as loading processes hand them over.

    Where these are of the size in which they are stored, of the first rows, where these are on this machine.
    """
    found = []
    for number, part in enumerate(dataset.plan.parts):
        num_bytes = 3 * dataset.image_size**2 if dataset.resizes else _STORED_FRAME_BYTES
        if not dataset.resizes and not is_remote(part.shards.shards[0].location):
            rows = min(part.order.rows, _ROWS_LOOKED_AT)
            chunk = dataset[ChunkSpec(number, 0, 0, rows, ends_batch=True)]
            if isinstance(chunk, Chunk):  # else the run will say why not
                num_bytes = math.ceil(chunk.num_pixel_bytes / rows / part.settings.frames_of_row)
        found.append(num_bytes)
    return tuple(found)


def fitting_loaders(
    workers: int, prefetch: int, *, chunk_bytes: float, processes: int, shared: float, memory: float
) -> tuple[int, int]:
    """How many loading processes and chunks ahead there is room for, at most as many as asked for.

    Args:
        processes: training processes of this machine, each with its own loading processes.
        shared, memory: free bytes of /dev/shm, which each loading process fills with its chunks and one more,
            and of all memory, where the chunks ahead may once more be copied for a GPU.

    Raises:
        UserError: /dev/shm has no room for a single loading process.
    """

    def fits(workers: int, prefetch: int) -> bool:
        once = processes * workers * chunk_bytes
        return once * (prefetch + 1) <= shared and once * (2 * prefetch + 1) <= memory

    while prefetch > 1 and not fits(workers, prefetch):
        prefetch -= 1
    while workers > 1 and not fits(workers, prefetch):
        workers -= 1
    needed = 2 * processes * chunk_bytes
    if needed > shared:
        raise UserError(
            f"{SHARED_MEMORY} has {_size(shared)} free, and a loading process with chunks of "
            f"{_size(chunk_bytes)} needs {_size(needed)}: give it more (docker run --shm-size=16g), or "
            "set a smaller run.chunk_size, or run.workers=0"
        )
    return workers, prefetch


def choose_loaders(job: Job, largest: ChunkSpec, frame_bytes: int) -> tuple[int, int]:
    """`run.workers` and `run.prefetch`, or fewer where memory does not suffice, which is said.

    Raises as `fitting_loaders`.
    """
    run, place = job.recipe.run, job.place
    settings = job.plan.parts[largest.source].settings
    seen_bytes = 2 * settings.kept_patches(job.model.config.num_patches) if settings.drop_patches else 0
    row_bytes = (frame_bytes + seen_bytes) * settings.frames_of_row
    row_bytes += max(2, settings.texts_of_row) * job.recipe.data.max_text_tokens * _TOKEN_BYTES
    chunk_bytes = (largest.stop - largest.start) * row_bytes + _SMALL_BYTES
    if run.workers == 0:
        return 0, run.prefetch
    of_all = distributed.gather_objects((free_shared_memory(), free_memory()), place=place)
    free_shared, free = (min(amounts) for amounts in zip(*of_all, strict=True))
    workers, prefetch = fitting_loaders(
        run.workers,
        run.prefetch,
        chunk_bytes=chunk_bytes,
        processes=_processes_here(job),
        shared=free_shared,
        memory=free,
    )
    if (workers, prefetch) != (run.workers, run.prefetch) and place.is_first:
        click.echo(
            f"run.workers={workers} run.prefetch={prefetch}, less than asked for: chunks take "
            f"{_size(chunk_bytes)}, free: {_size(free_shared)} in {SHARED_MEMORY}, {_size(free)} in all",
            err=True,
        )
    return workers, prefetch


def free_memory() -> float:
    """Bytes that this machine, or the container that this runs in, has left; infinite if unknown."""
    found = [math.inf]
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):  # `max` is no number: no limit
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        found.append(float(limit - used))
    return min(found)


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 2**20:,.0f} MiB" if num_bytes >= 2**23 else f"{num_bytes / 2**10:,.0f} KiB"
