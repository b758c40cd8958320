"""Parts of the training step done as they are and as they were: what each of them is worth."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from unittest.mock import patch

import torch

from clipvip.model.layer import QuickGeluMLP, TransformerLayer
from clipvip.model.optim import parameter_groups
from clipvip.pipeline.train.batches import Chunk
from clipvip.pipeline.train.step import Encoder, Job, StepResult, train_step
from clipvip.pipeline.train.uploads import Uploads
from gpu_sections.rows import Check
from gpu_sections.session import Session, clip_of, opened, step_row

_STEPS = 5


def ways(check: Check) -> None:
    """Copies, results, texts, the optimizer and parts of a layer, on and off; the chunk size of `auto`."""
    batch_size, compiled = (8 if check.tiny else 128), not check.tiny
    with opened(check, clip_of(check), batch_size=batch_size, run__compile=compiled) as session:
        session.step()
        _loops(check, session)
        _texts(check, session)
        _optimizers(check, session)
    _layers(check, batch_size, compiled=compiled)
    name = "run.chunk_size=auto"
    if check.has_time_for(name, 40):
        whole = 16 if check.tiny else 1024
        changes = {"run__chunk_size": "auto", "run__compile": compiled}
        with opened(check, clip_of(check), batch_size=whole, **changes) as session:
            rows = [len(chunk.keys) for chunk in session.host_chunks]
            check.row(name, batch=whole, chunks=len(rows), largest=max(rows))
            step_row(check, name, session, times=2)


def _layers(check: Check, batch_size: int, *, compiled: bool) -> None:
    """Proxy-guided attention of all frames in one kernel, or in two pieces; the MLP's factors in its weights.

    A processor takes two pieces by itself, and other ways for the factors.
    """
    on = check.device.type
    for name, owner, attribute, value in (
        ("attention of all frames in one kernel", TransformerLayer, "frame_kernel_on", (on,)),
        ("attention in two pieces", TransformerLayer, "frame_kernel_on", ()),
        ("the MLP's factors by the products", QuickGeluMLP, "with_folded_factors", QuickGeluMLP.on_processor),
    ):
        if check.has_time_for(name, 25):
            changes = {"run__compile": compiled}
            with (
                patch.object(owner, attribute, value),
                opened(check, clip_of(check), batch_size=batch_size, **changes) as session,
            ):
                step_row(check, name, session, times=3)


def _loops(check: Check, session: Session) -> None:
    """Whole steps one after another with a new copy each, as training does them."""
    host = [chunk.pin_memory() for chunk in session.host_chunks] if check.on_gpu else session.host_chunks
    beside = Uploads(check.device)

    def before(chunks: list[Chunk]) -> list[Chunk]:
        return [chunk.to(check.device) for chunk in chunks]

    for name, upload, reads_late in (
        ("copied beside the step, read a step late", beside, True),
        ("copied before the step, read a step late", before, True),
        ("copied beside the step, read at once", beside, False),
        ("copied before the step, read at once", before, False),
    ):
        run = partial(_steps, session.job, host, upload, reads_late=reads_late)
        check.row(name, ms=1000 * check.seconds(run, times=2, warm_up=1) / _STEPS)


def _steps(
    job: Job, host: list[Chunk], upload: Callable[[list[Chunk]], list[Chunk]], *, reads_late: bool
) -> None:
    unread: StepResult | None = None
    for _ in range(_STEPS):
        result = train_step(job, upload(host), learning_rate=1e-6)
        if unread is not None:
            unread.read()
        unread = result
        if not reads_late:
            result.read()
    if unread is not None:
        unread.read()


def _texts(check: Check, session: Session) -> None:
    """Both texts in one pass; each in its own, with masks; and in the full length."""
    full = session.job.recipe.data.max_text_tokens
    longest = max(chunk.num_tokens for chunk in session.chunks)
    chunks, job = session.chunks, session.job
    for name, encode, num_tokens in (
        (f"texts of {longest} tokens, in one pass", job.encode, None),
        (f"texts of {full} tokens, in one pass", job.encode, full),
        (f"texts of {full} tokens, each in its own pass with masks", _one_by_one(job), full),
    ):
        cut = [replace(chunk, num_tokens=num_tokens or chunk.num_tokens) for chunk in chunks]
        run = partial(train_step, replace(job, encode=encode), cut, learning_rate=1e-6)
        check.row(name, ms=1000 * check.seconds(run, times=3, warm_up=2))


def _one_by_one(job: Job) -> Encoder:
    def encode(chunk: Chunk) -> dict[str, torch.Tensor]:
        found = job.encode(replace(chunk, caption_ids=None))
        if chunk.caption_ids is not None:
            half = torch.float16 if job.precision == "fp16" else torch.bfloat16
            with torch.autocast(job.place.device.type, half, enabled=job.precision != "fp32"):
                texts = {"input_ids": chunk.caption_ids, "attention_mask": chunk.caption_mask}
                found["caption"] = job.model(**texts, embeds_only=True).text_embeds.float()
        return found

    return encode


def _optimizers(check: Check, session: Session) -> None:
    """AdamW in one kernel for all weights, and as a list of operations."""
    job = session.job
    for name, way in (("AdamW, fused", {"fused": True}), ("AdamW, foreach", {"foreach": True})):
        groups = parameter_groups(job.model, weight_decay=0.0)
        optimizer = torch.optim.AdamW(groups, lr=0.0, **way)
        for parameter in job.model.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        check.row(name, ms=1000 * check.seconds(optimizer.step, times=3))
        job.model.zero_grad(set_to_none=True)
        del optimizer
