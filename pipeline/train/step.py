"""One training step: encode, loss, gradient, update. Prints nothing and reads no files.

The loss contrasts every sample of the batch with every other, over all processes and chunks. Each process
encodes its own rows, the embeddings are joined, every process computes the same loss, and sends the part of
its gradient that belongs to its rows back through its encoder. With several chunks that is done in two
passes (first only embeddings, then once more with gradient), which is exact and needs the memory of one.
"""

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from clipvip.model import ClipVip, ClipVipConfig
from clipvip.model.flops import text_flops, video_flops
from clipvip.model.losses import omnisource_terms
from clipvip.model.variants import Precision
from clipvip.pipeline.train.average import WeightAverage
from clipvip.pipeline.train.batches import BatchPlan, Chunk
from clipvip.pipeline.train.distributed import Place, gather_rows
from clipvip.pipeline.train.gradients import GradientSums
from clipvip.pipeline.train.recipe import Loss, Recipe

# (source, role): the embeddings of one kind of input; roles are video, frame, text, caption.
Embeddings = dict[tuple[str, str], torch.Tensor]
Encoder = Callable[[Chunk], dict[str, torch.Tensor]]

# In fp16: the largest number sent back through the encoder; the next is tried if one overflows (65,504).
_LARGEST_FP16 = (16.0, 2.0**-4, 2.0**-12)
# Beyond so many graphs torch.compile stops compiling; it is torch's own limit over all functions together. A
# source has one for videos, one for frames and nine for texts, as many again where its last chunk of a batch
# is smaller, and each once more without gradients where there are two passes: 44.
MAX_SHAPES = 256


@dataclass(frozen=True)
class Job:
    """What training needs and does not change: the recipe and what was made from it."""

    recipe: Recipe
    place: Place
    out: Path
    model: ClipVip
    optimizer: torch.optim.Optimizer
    gradient_sums: GradientSums
    encode: Encoder
    precision: Precision
    plan: BatchPlan
    num_steps: int
    average: WeightAverage | None = None

    def weights_to_keep(self) -> AbstractContextManager[None]:
        """In this block the model has the weights that are validated and written: their average, or they."""
        return nullcontext() if self.average is None else self.average.in_the_model()


@dataclass(frozen=True)
class StepValues:
    """What a step gave: the loss of the whole batch and its terms, before the update."""

    loss: float
    terms: dict[str, float]
    logit_scale: float
    grad_norm: float


class NotFinite(ArithmeticError):
    """The loss or the gradient is infinite or not a number; the weights are as before the step."""


class StepResult:
    """The values of a step that a GPU may still be computing."""

    def __init__(
        self,
        loss: torch.Tensor,
        terms: dict[str, torch.Tensor],
        logit_scale: torch.Tensor,
        grad_norm: torch.Tensor,
    ) -> None:
        values = torch.stack([loss, logit_scale, grad_norm, *terms.values()])
        self.is_finite = values[:3].isfinite().all()  # a scalar on the device
        self._names = list(terms)
        self._values = values.to("cpu", non_blocking=True)
        self._is_there = torch.cuda.Event() if values.device.type == "cuda" else None
        if self._is_there is not None:
            self._is_there.record()

    def read(self) -> StepValues:
        """Wait for the values. NotFinite where they are not, and so nothing was updated."""
        if self._is_there is not None:
            self._is_there.synchronize()
        loss, logit_scale, grad_norm, *terms = self._values.tolist()
        if not math.isfinite(logit_scale):
            raise NotFinite(f"logit_scale {logit_scale}")
        if not math.isfinite(loss) or not math.isfinite(grad_norm):
            raise NotFinite(f"loss {loss}, gradient norm {grad_norm}")
        return StepValues(loss, dict(zip(self._names, terms, strict=True)), logit_scale, grad_norm)


def make_encoder(model: ClipVip, *, precision: Precision, device: torch.device, compiled: bool) -> Encoder:
    """A function from a chunk on `device` to its embeddings by role, each (rows, dim) in float32.

    Captions, where rows may have several, are (rows, the most that they may have, dim).
    """
    if compiled:
        compile_layers(model)
    forward = partial(model, embeds_only=True)
    pixels = model.config.vision_config.image_size, model.config.normalization
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16

    def encode(chunk: Chunk) -> dict[str, torch.Tensor]:
        embeddings = {}
        with torch.autocast(device.type, dtype, enabled=precision != "fp32"):
            video = chunk.video.normalized(*pixels)
            embeddings["video"] = forward(pixel_values=video, seen=chunk.video_seen).video_embeds
            if chunk.frame is not None:
                # The middle frame goes through the same encoder, as a video of one frame.
                frame = chunk.frame.normalized(*pixels)
                embeddings["frame"] = forward(pixel_values=frame, seen=chunk.frame_seen).video_embeds
            texts = {"text": chunk.text_ids, "caption": chunk.caption_ids}
            ids = {
                role: tokens[:, : chunk.num_tokens] for role, tokens in texts.items() if tokens is not None
            }
            # In one pass, and without masks: tokens see none that come after them, and padding is last.
            rows = forward(input_ids=torch.cat(list(ids.values()))).text_embeds
            embeddings |= zip(ids, rows.split(list(map(len, ids.values()))), strict=True)
        if chunk.has_caption is not None and chunk.has_caption.dim() == 2:
            embeddings["caption"] = _by_row(embeddings["caption"], *chunk.has_caption.shape)
        return {role: rows.float() for role, rows in embeddings.items()}

    return encode


def _by_row(captions: torch.Tensor, rows: int, most: int) -> torch.Tensor:
    """(rows * some, dim) -> (rows, most, dim), filled up with zeros."""
    by_row = captions.view(rows, -1, captions.shape[-1])
    return torch.nn.functional.pad(by_row, (0, 0, 0, most - by_row.shape[1]))


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

    Where the loss or the gradient is not finite nothing is updated, which whoever reads the result is told. A
    GPU is not waited for, except in fp16, where a gradient that overflows is computed again: there NotFinite
    is raised here.
    """
    model, optimizer, optim = job.model, job.optimizer, job.recipe.optim
    is_fp16 = job.precision == "fp16"
    for largest in _LARGEST_FP16 if is_fp16 else (None,):
        optimizer.zero_grad(set_to_none=True)
        loss, terms = compute_gradients(job, chunks, largest=largest)
        grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), optim.clip_norm)
        if is_fp16 and (grad_norm.isfinite() | ~loss.isfinite()).item():
            break
    result = StepResult(loss, terms, model.logit_scale.detach(), grad_norm)
    if is_fp16:
        result.read()
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["rate_factor"]
    # By which torch's GradScaler tells a fused optimizer to leave the weights as they are.
    optimizer.found_inf = 1 - result.is_finite.float()  # type: ignore[attr-defined]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        model.logit_scale.clamp_(0.0, math.log(optim.max_scale))
    if job.average is not None:
        job.average.update()
    return result


def step_flops(chunks: list[Chunk], config: ClipVipConfig) -> float:
    """FLOPs that a step on `chunks` needs; what is done twice, to save memory, counts once."""
    total = 0
    for chunk in chunks:
        videos = [(chunk.video, chunk.video_seen), (chunk.frame, chunk.frame_seen)]
        forward = sum(
            video_flops(config, video.num_frames, embeds_only=True, num_patches=seen.num_patches)
            for video, seen in videos
            if video is not None
        )
        total += len(chunk.keys) * forward + chunk.num_texts * text_flops(config, chunk.num_tokens)
    return float(3 * total)  # a backward pass costs twice the forward pass


def compute_gradients(
    job: Job, chunks: list[Chunk], *, largest: float | None = None
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Set the gradient of the whole batch's loss in every process; return the loss and its terms, scalars.

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
    bias = None
    if job.recipe.loss.contrast == "sigmoid":
        assert model.logit_bias is not None  # `start_model` gives it one
        bias = model.logit_bias.detach().clone().requires_grad_()
    terms = batch_terms(joined, has_caption, scale, bias, plan=plan, loss=job.recipe.loss)
    total = torch.stack(list(terms.values())).sum()
    total.backward()

    scale_up = None if largest is None else _power_of_two(largest, joined.values())
    # Of 16 rows the second of two processes has 8 to 16. In chunks of 3 these are 8 to 11, 11 to 14 and 14 to
    # 16 of the joined rows, and so of their gradients.
    offsets = {key: place.share(len(rows))[0] for key, rows in joined.items()}
    for number, (chunk, output) in enumerate(zip(chunks, outputs, strict=True), start=1):
        if two_passes:
            output = job.encode(chunk)
        gradients = []  # of what is trained: a tower may be frozen
        for role, rows in output.items():
            key = (chunk.source, role)
            mine = slice(offsets[key], offsets[key] + len(rows))
            offsets[key] = mine.stop
            gradient = _gradient(joined[key])[mine]
            if rows.requires_grad:
                gradients.append(gradient if scale_up is None else gradient * scale_up)
        trained = [rows for rows in output.values() if rows.requires_grad]
        # Of temperature and bias every process has the whole gradient already: they are not in the sums.
        with job.gradient_sums.last_pass() if number == len(chunks) else nullcontext():
            if trained:
                torch.autograd.backward(trained, gradients)
    if scale_up is not None:
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad /= scale_up
    if model.logit_scale.requires_grad:
        model.logit_scale.grad = scale.grad
    if bias is not None and model.logit_bias is not None and model.logit_bias.requires_grad:
        model.logit_bias.grad = bias.grad
    return total.detach(), {name: term.detach() for name, term in terms.items()}


def batch_terms(
    joined: Embeddings,
    has_caption: dict[str, torch.Tensor],
    logit_scale: torch.Tensor,
    logit_bias: torch.Tensor | None = None,
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
            checks_scale=False,  # it is kept in its bounds after each step
            variant=loss.pairs if part.shards.kind == "clips" else "baseline",
            weighting=loss.weighting,
            contrast=loss.contrast,
            logit_bias=logit_bias,
        )
        terms |= {f"{part.shards.name}/{name}": term for name, term in of_source.items()}
    return terms


def _join(
    chunks: list[Chunk], outputs: list[dict[str, torch.Tensor]], *, plan: BatchPlan, place: Place
) -> tuple[Embeddings, dict[str, torch.Tensor]]:
    """The embeddings of the whole batch, to receive gradients; by source, who has captions: as in chunks."""
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


def _power_of_two(largest: float, rows: Iterable[torch.Tensor]) -> torch.Tensor:
    """The factor, exact in any format, that brings the largest gradient to `largest` or up to half less.

    For 16, where the largest is 0.003, it is 4,096, which makes 12.3 of it.
    """
    most = torch.stack([_gradient(tensor).abs().max() for tensor in rows]).max()
    mantissa, _ = torch.frexp(largest / most)  # in [0.5, 1); the division by it gives a power of two
    factor = largest / most / mantissa / 2
    return torch.where((most > 0) & most.isfinite(), factor, 1.0)
