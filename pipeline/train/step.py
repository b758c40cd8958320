"""One training step: encode, loss, gradient, update. Prints nothing and reads no files.

The loss contrasts every sample of the batch with every other, over all processes and chunks. Each process
encodes its own rows, the embeddings are joined, every process computes the same loss, and sends the part of
its gradient that belongs to its rows back through its encoder. With several chunks that is done in two
passes (first only embeddings, then once more with gradient), which is exact and needs the memory of one.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from clipvip.model import ClipVip
from clipvip.model.losses import omnisource_terms
from clipvip.model.variants import Precision
from clipvip.pipeline.train.batches import BatchPlan, Chunk
from clipvip.pipeline.train.distributed import Place, gather_rows, sum_gradients
from clipvip.pipeline.train.recipe import Loss, Recipe

# (source, role): the embeddings of one kind of input; roles are video, frame, text, caption.
Embeddings = dict[tuple[str, str], torch.Tensor]
Encoder = Callable[[Chunk], dict[str, torch.Tensor]]

# In fp16: the largest number sent back through the encoder; the next is tried if one overflows (65,504).
_LARGEST_FP16 = (16.0, 2.0**-4, 2.0**-12)
# Beyond so many shapes torch.compile stops compiling; its own limit of 8 is reached by three sources of data.
MAX_SHAPES = 64


@dataclass(frozen=True)
class Job:
    """What training needs and does not change: the recipe and what was made from it."""

    recipe: Recipe
    place: Place
    out: Path
    model: ClipVip
    optimizer: torch.optim.Optimizer
    encode: Encoder
    precision: Precision
    plan: BatchPlan
    num_steps: int
    step_flops: float


@dataclass(frozen=True)
class StepResult:
    """What a step gave: the loss of the whole batch and its terms, before the update."""

    loss: float
    terms: dict[str, float]
    logit_scale: float
    grad_norm: float


class NotFinite(ArithmeticError):
    """The loss or the gradient is infinite or not a number; the weights are as before the step."""


def make_encoder(model: ClipVip, *, precision: Precision, device: torch.device, compiled: bool) -> Encoder:
    """A function from a chunk on `device` to its embeddings by role, each (rows, dim) in float32."""
    if compiled:
        compile_layers(model)
    forward = partial(model, embeds_only=True)
    pixels = model.config.vision_config.image_size, model.config.normalization
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16

    def encode(chunk: Chunk) -> dict[str, torch.Tensor]:
        embeddings = {}
        with torch.autocast(device.type, dtype, enabled=precision != "fp32"):
            embeddings["video"] = forward(pixel_values=chunk.video.normalized(*pixels)).video_embeds
            if chunk.frame is not None:
                # The middle frame goes through the same encoder, as a video of one frame.
                embeddings["frame"] = forward(pixel_values=chunk.frame.normalized(*pixels)).video_embeds
            for role, ids, mask in (
                ("text", chunk.text_ids, chunk.text_mask),
                ("caption", chunk.caption_ids, chunk.caption_mask),
            ):
                if ids is not None:
                    embeddings[role] = forward(input_ids=ids, attention_mask=mask).text_embeds
        return {role: rows.float() for role, rows in embeddings.items()}

    return encode


def compile_layers(model: ClipVip) -> None:
    """Let each transformer layer of both towers compute by a graph for the shape that it is given.

    All layers of a tower share a graph, so that one is compiled and not twelve: beside an H100 the whole
    network of B/32 took over 90 seconds, its layers take about 20 (docs/benchmarks.md).

    A run has few shapes: rows of its chunks, by videos, single frames and texts. With graphs for any shape,
    torch 2.13 fails on the gradient of proxy-guided attention (it cannot order strides that hold a symbol).
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MAX_SHAPES)
    for module in model.modules():
        if isinstance(module, CLIPEncoderLayer):
            module.compile(dynamic=False)


def train_step(job: Job, chunks: list[Chunk], *, learning_rate: float) -> StepResult:
    """Update the weights by one batch, of which `chunks` (on the device) is this process's part.

    NotFinite, before anything is updated, where the loss or the gradient is not.
    """
    model, optimizer, optim = job.model, job.optimizer, job.recipe.optim
    logit_scale = model.logit_scale.item()
    if not math.isfinite(logit_scale):  # which the loss refuses
        raise NotFinite(f"logit_scale {logit_scale}")
    for largest in _LARGEST_FP16 if job.precision == "fp16" else (None,):
        optimizer.zero_grad(set_to_none=True)
        value, terms = compute_gradients(job, chunks, largest=largest)
        grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), optim.clip_norm).item()
        if math.isfinite(grad_norm) or not math.isfinite(value):
            break
    if not math.isfinite(value) or not math.isfinite(grad_norm):
        raise NotFinite(f"loss {value}, gradient norm {grad_norm}")
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        model.logit_scale.clamp_(0.0, math.log(optim.max_scale))
    return StepResult(value, terms, logit_scale, grad_norm)


def compute_gradients(
    job: Job, chunks: list[Chunk], *, largest: float | None = None
) -> tuple[float, dict[str, float]]:
    """Set the gradient of the whole batch's loss in every process; return the loss and its terms.

    With `largest` what goes back through the encoder is scaled so that about this is its largest number, and
    the gradient scaled back: fp16 has no numbers below 6e-8. The scale follows from the batch alone.
    """
    model, plan, place = job.model, job.plan, job.place
    sources = [chunk.source for chunk in chunks]
    two_passes = len(set(sources)) < len(sources)
    # The second pass draws what the first drew, chunk after chunk, and so ends where that ended.
    gpus = [place.device] if place.device.type == "cuda" else []
    with torch.random.fork_rng(gpus, enabled=two_passes), torch.set_grad_enabled(not two_passes):
        outputs = [job.encode(chunk) for chunk in chunks]
    joined, has_caption = _join(chunks, outputs, plan=plan, place=place)
    scale = model.logit_scale.detach().clone().requires_grad_()
    terms = batch_terms(joined, has_caption, scale, plan=plan, loss=job.recipe.loss)
    total = torch.stack(list(terms.values())).sum()
    total.backward()

    scale_up = _power_of_two(largest, joined.values())
    # Of 16 rows the second of two processes has 8 to 16. In chunks of 3 these are 8 to 11, 11 to 14 and 14 to
    # 16 of the joined rows, and so of their gradients.
    offsets = {key: place.share(len(rows))[0] for key, rows in joined.items()}
    for chunk, output in zip(chunks, outputs, strict=True):
        if two_passes:
            output = job.encode(chunk)
        gradients = []
        for role, rows in output.items():
            key = (chunk.source, role)
            mine = slice(offsets[key], offsets[key] + len(rows))
            offsets[key] = mine.stop
            gradients.append(_gradient(joined[key])[mine] * scale_up)
        torch.autograd.backward(list(output.values()), gradients)
    if scale_up != 1:
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad /= scale_up
    # Every process has the whole gradient of the temperature already: it is not summed.
    sum_gradients((p for p in model.parameters() if p is not model.logit_scale), place=place)
    model.logit_scale.grad = scale.grad
    return total.item(), {name: term.item() for name, term in terms.items()}


def batch_terms(
    joined: Embeddings,
    has_caption: dict[str, torch.Tensor],
    logit_scale: torch.Tensor,
    *,
    plan: BatchPlan,
    loss: Loss,
) -> dict[str, torch.Tensor]:
    """The terms whose sum is the loss, by name; samples are contrasted within their source.

    An image and its own text are one pair; the terms of clips are those of Table 3.
    """
    terms: dict[str, torch.Tensor] = {}
    for part in plan.parts:
        of_source = omnisource_terms(
            video=joined[part.shards.name, "video"],
            subtitle=joined.get((part.shards.name, "text")),
            frame=joined.get((part.shards.name, "frame")),
            caption=joined.get((part.shards.name, "caption")),
            caption_mask=has_caption.get(part.shards.name),
            logit_scale=logit_scale,
            variant=loss.pairs if part.shards.kind == "clips" else "baseline",
            weighting=loss.weighting,
        )
        terms |= {f"{part.shards.name}/{name}": term for name, term in of_source.items()}
    return terms


def _join(
    chunks: list[Chunk], outputs: list[dict[str, torch.Tensor]], *, plan: BatchPlan, place: Place
) -> tuple[Embeddings, dict[str, torch.Tensor]]:
    """The embeddings of the whole batch, to receive gradients; by source, who has a caption: bool (rows,)."""
    joined: Embeddings = {}
    has_caption = {}
    for part in plan.parts:
        gather = partial(gather_rows, total=part.order.rows, place=place)
        mine = [
            output for chunk, output in zip(chunks, outputs, strict=True) if chunk.source == part.shards.name
        ]
        for role in mine[0]:
            rows = gather(torch.cat([output[role].detach() for output in mine]))
            joined[part.shards.name, role] = rows.clone().requires_grad_()
        flags = [c.has_caption for c in chunks if c.source == part.shards.name and c.has_caption is not None]
        if flags:
            has_caption[part.shards.name] = gather(torch.cat(flags).to(torch.uint8)).bool()
    return joined, has_caption


def _gradient(tensor: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def _power_of_two(largest: float | None, rows: Iterable[torch.Tensor]) -> float:
    """The factor, exact in any format, that brings the largest gradient to `largest` or up to half less.

    For 16, where the largest is 0.003, it is 4,096, which makes 12.3 of it.
    """
    most = 0.0 if largest is None else max(_gradient(tensor).abs().max().item() for tensor in rows)
    if largest is None or not 0 < most < math.inf:
        return 1.0
    return float(2.0 ** math.floor(math.log2(largest / most)))
