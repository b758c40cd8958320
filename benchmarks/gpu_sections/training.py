"""The training step: how fast, where the time goes, which kernels, and how much memory."""

import contextlib
import gzip
import shutil
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from clipvip.pipeline.loading.pixels import Pixels
from clipvip.pipeline.train import step as step_module
from gpu_sections.rows import Check
from gpu_sections.session import Session, clip_of, opened, step_row

_KERNELS_LISTED = 25


def step(check: Check) -> None:
    """B/32 in one chunk of 128, B/16 of 32: as the recipe has it, compiled or not.

    Full attention beside it.
    """
    b32, b16 = clip_of(check), clip_of(check, patch_size=16)
    large, small = (8, 4) if check.tiny else (128, 32)
    full = {"model__encoder": "full_attention"}
    ways: dict[str, tuple[Path, int, dict[str, Any]]] = {
        "B/32": (b32, large, {}),
        "B/16": (b16, small, {}),
        "B/32, full attention": (b32, large, full),
        "B/32, texts of 24 tokens": (b32, large, {"data__max_text_tokens": 24}),
    }
    # On a GPU the default first; a processor compiles for so long that the rest comes before it.
    for compiled, seconds in ((False, 10), (True, 30)) if check.tiny else ((True, 30), (False, 10)):
        for way, (init, batch_size, changes) in ways.items():
            name = f"{way}, batch {batch_size}, {'compiled' if compiled else 'not compiled'}"
            if check.has_time_for(name, seconds):
                with opened(check, init, batch_size=batch_size, run__compile=compiled, **changes) as session:
                    step_row(check, name, session)


class _Stopwatch:
    """Times of named parts of the step, by events on a GPU."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._spans: list[tuple[str, Any, Any]] = []

    def _now(self) -> Any:
        if not self._check.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def timed(self, function: Callable[..., Any], name: str | Callable[..., str]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            called = name if isinstance(name, str) else name(*arguments)
            begin = self._now()
            result = function(*arguments, **named)
            self._spans.append((called, begin, self._now()))
            return result

        return call

    def milliseconds(self) -> dict[str, float]:
        self._check.wait()
        total: dict[str, float] = defaultdict(float)
        for name, begin, end in self._spans:
            total[name] += begin.elapsed_time(end) if self._check.on_gpu else 1000 * (end - begin)
        return dict(total)


def split(check: Check) -> None:
    """Copy, resize, forward, loss, backward, clipping and AdamW of one step, and how often the host waits."""
    for name, compiled in {"compiled": True, "not compiled": False}.items():
        if compiled and (check.tiny or not check.has_time_for(f"B/32, {name}", 25)):
            continue
        with opened(
            check, clip_of(check), batch_size=8 if check.tiny else 128, run__compile=compiled
        ) as session:
            for _ in range(3):
                session.step()
            _tell_split(check, f"B/32, {name}", session)
            waits = _count_waits(check, session) if check.on_gpu else "only a GPU is waited for"
            check.row(f"B/32, {name}, waits of the host in a step", waits=waits)


def _tell_split(check: Check, name: str, session: Session, steps: int = 5) -> None:
    watch = _Stopwatch(check)
    job = session.job
    pinned = [chunk.pin_memory() for chunk in session.host_chunks] if check.on_gpu else session.host_chunks
    encode = watch.timed(job.encode, "resize and forward")
    object.__setattr__(job, "encode", encode)
    whole = watch.timed(session.step, "step without copy")
    with contextlib.ExitStack() as stack:
        replace = stack.enter_context

        def watched(owner: Any, attribute: str, called: str | Callable[..., str]) -> None:
            replace(patch.object(owner, attribute, watch.timed(getattr(owner, attribute), called)))

        watched(step_module, "batch_terms", "loss")
        watched(
            torch.autograd,
            "backward",
            lambda tensors, *_: "backward" if isinstance(tensors, list) else "loss's backward",
        )
        watched(torch.nn.utils, "clip_grad_norm_", "clip")
        watched(job.optimizer, "step", "AdamW")
        normalized = Pixels.normalized
        resize = watch.timed(normalized, "resize")
        replace(patch.object(Pixels, "normalized", lambda *arguments: resize(*arguments)))
        copy = watch.timed(lambda: [chunk.to(check.device) for chunk in pinned], "copy")
        for _ in range(steps):
            session.chunks = copy()
            whole()
    found = {key: value / steps for key, value in watch.milliseconds().items()}
    found["forward"] = found.pop("resize and forward") - found["resize"]
    order = [
        "copy",
        "resize",
        "forward",
        "loss",
        "loss's backward",
        "backward",
        "clip",
        "AdamW",
        "step without copy",
    ]
    for part in order:
        check.row(f"{name}: {part}", ms=found[part])


def _count_waits(check: Check, session: Session) -> int:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            session.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


def profile(check: Check) -> None:
    """The kernels that cost most in a step, with a trace for a browser: trace.json.gz."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if check.on_gpu else [])]
    compiled = not check.tiny and check.has_time_for("compiled", 20)
    with opened(check, clip_of(check), batch_size=8 if check.tiny else 128, run__compile=compiled) as session:
        for _ in range(3):
            session.step()
        check.wait()
        with profiler(activities=activities) as found:
            session.step()
            check.wait()
    averages = found.key_averages()
    key = "self_device_time_total" if check.on_gpu else "self_cpu_time_total"
    # On a GPU kernels and the operations that start them are told both; only the kernels count.
    events = [e for e in averages if getattr(e, key) > 0 and (not check.on_gpu or e.self_cpu_time_total == 0)]
    events.sort(key=lambda event: getattr(event, key), reverse=True)
    total = sum(getattr(event, key) for event in events)
    kernels = sum(event.count for event in events)
    check.row("compiled" if compiled else "not compiled", kernels=kernels, kernel_ms=total / 1000)
    for event in events[:_KERNELS_LISTED]:
        share = 100 * getattr(event, key) / total
        check.row(event.key[:100], ms=getattr(event, key) / 1000, calls=event.count, percent=share)
    trace = check.folder / "trace.json"
    found.export_chrome_trace(str(trace))
    with trace.open("rb") as plain, gzip.open(check.out / "trace.json.gz", "wb") as packed:
        shutil.copyfileobj(plain, packed)


def memory(check: Check) -> None:
    """A batch of 1024 on one device in chunks, and the largest chunk that fits."""
    init = clip_of(check)
    batch_size, chunk_size = (16, 8) if check.tiny else (1024, 128)
    with opened(
        check, init, batch_size=batch_size, chunk_size=chunk_size, run__compile=not check.tiny
    ) as session:
        step_row(check, f"B/32, batch {batch_size} in chunks of {chunk_size}", session, times=2)
    for size in [8, 16] if check.tiny else [192, 256, 320, 384, 512]:
        with _out_of_memory_told(check, f"B/32, one chunk of {size}") as told:
            if check.has_time_for(f"B/32, one chunk of {size}", 15):
                with opened(check, init, batch_size=size, run__compile=not check.tiny) as session:
                    step_row(check, f"B/32, one chunk of {size}", session, times=2)
        if told:
            break


@contextlib.contextmanager
def _out_of_memory_told(check: Check, name: str) -> Iterator[list[str]]:
    told: list[str] = []
    try:
        yield told
    except torch.OutOfMemoryError as error:
        told.append(str(error))
    if told:
        check.free()
        check.row(name, left_out=f"does not fit: {told[0][:120]}")
