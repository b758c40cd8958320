"""The commands as users type them, on shards made here.

Data wait, stopping, resuming, evaluation, captions, retrieval.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import torch
from evaluation_rate import evaluation_rate, forward_rate

from clipvip.pipeline.train.checkpoint import TrainState
from clipvip.pipeline.train.loop import batches_of
from gpu_sections.made_data import make_ofa
from gpu_sections.rows import Check, last_line, run_command, started
from gpu_sections.session import clip_of, opened, settings, shards_of

_TRAIN = "clipvip.pipeline.train.command"
_EXIT_WAIT = 20.0


def _train_arguments(check: Check, name: str, *, batch_size: int, **changes: Any) -> tuple[list[str], Path]:
    """`clipvip-train` in a folder of its own; its settings are those of `session.settings`."""
    out = check.folder / "runs" / name
    changes = {"run__out": out, "run__workers": 12, "run__save_every_steps": 1_000_000, **changes}
    overrides = settings(check, clip_of(check), batch_size=batch_size, **changes)
    return ["pretrain_vip_b32", *(word for text in overrides for word in ("--set", text))], out


def loop(check: Check) -> None:
    """`clipvip-train` with its loading processes, ended by SIGTERM; how it ends by an error.

    Loading by itself.
    """
    _stopped_run(check, compiled=not check.tiny, seconds=70)
    if check.has_time_for("end by divergence", 50):
        _diverging_run(check)
    if check.has_time_for("loading alone", 35):
        _loading_alone(check, seconds=2 if check.tiny else 8)
    if not check.tiny:
        _stopped_run(check, compiled=False, seconds=70)


def _stopped_run(check: Check, *, compiled: bool, seconds: float) -> None:
    """Train until four lines of the log are written, then send SIGTERM: rates, and seconds to the end."""
    batch_size, chunk = (8, 8) if check.tiny else (1024, 128)
    name = f"batch {batch_size} in chunks of {chunk}, {'compiled' if compiled else 'not compiled'}"
    if not check.has_time_for(name, seconds):
        return
    arguments, out = _stopped_arguments(check, compiled=compiled)
    log = check.folder / "train.log"
    with started(check, _TRAIN, *arguments, log=log) as process:
        begin = time.monotonic()
        _wait_for_lines(process, out / "log.jsonl", 1)
        first = time.monotonic() - begin
        _wait_for_lines(process, out / "log.jsonl", 4)
        process.send_signal(signal.SIGTERM)
        ending, code = _ended(process)
    check.row(name, **_rates(out), start_and_first_step_s=first)
    check.row(f"{name}, end by SIGTERM", **_end_of(ending, code, log))


def _stopped_arguments(check: Check, *, compiled: bool) -> tuple[list[str], Path]:
    batch_size, chunk = (8, 8) if check.tiny else (1024, 128)
    return _train_arguments(
        check, "compiled" if compiled else "not-compiled", batch_size=batch_size, chunk_size=chunk,
        run__log_every_steps=1, run__compile=compiled,
    )  # fmt: skip


def _wait_for_lines(process: "subprocess.Popen[bytes]", path: Path, lines: int) -> None:
    """Wait until a file has so many lines, or the process has ended."""
    while process.poll() is None and not (path.exists() and path.read_text().count("\n") >= lines):
        time.sleep(0.05)


def _ended(process: "subprocess.Popen[bytes]") -> tuple[float, int | None]:
    """Seconds until the process has ended, and its exit code; None where it has not in time."""
    begin = time.monotonic()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_EXIT_WAIT)
    return time.monotonic() - begin, process.poll()


def _end_of(seconds: float, code: int | None, log: Path) -> dict[str, Any]:
    if code is None:
        return {"verdict": f"WRONG: still there after {seconds:.0f} s"}
    return {"exit_s": seconds, "exit_code": code, "said": last_line(log)}


def _rates(out: Path) -> dict[str, float]:
    """What the last log line says of speed; the first lines count the start of the loading processes too."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    last = {
        tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"] if tag.startswith("speed/")
    }
    names = {"samples_per_second": "clips_per_s", "gpu_memory_gib": "peak_gib"}
    rates = {names.get(tag[6:], tag[6:]): value for tag, value in last.items()}
    for fraction, percent in {"mfu": "mfu_percent", "data_wait_fraction": "data_wait_percent"}.items():
        if fraction in rates:
            rates[percent] = 100 * rates.pop(fraction)
    return rates


def _diverging_run(check: Check) -> None:
    """Seconds from the line that tells the error to the end of the command."""
    arguments, _ = _train_arguments(
        check, "diverging", batch_size=8 if check.tiny else 64, run__log_every_steps=1, run__compile=False,
        optim__learning_rate=1e30, optim__warmup_fraction=0,
    )  # fmt: skip
    log = check.folder / "diverging.log"
    with started(check, _TRAIN, *arguments, log=log) as process:
        while process.poll() is None and "Error" not in log.read_text(errors="replace"):
            time.sleep(0.05)
        ending, code = _ended(process)
    check.row("end by divergence", **_end_of(ending, code, log))


def _loading_alone(check: Check, *, seconds: float) -> None:
    """Clips a second that the loading processes give when nobody computes."""
    batch_size = 8 if check.tiny else 128
    with opened(check, clip_of(check), batch_size=batch_size, run__workers=12, run__compile=False) as session:
        batches = batches_of(session.job, TrainState())
        next(batches)
        begin, clips = time.monotonic(), 0
        while time.monotonic() - begin < seconds:
            clips += sum(len(chunk.keys) for chunk in next(batches))
        rate = clips / (time.monotonic() - begin)
        batches.close()
    check.row("loading alone, 12 processes", clips_per_s=rate)


def group(check: Check) -> None:
    """One process under torchrun, so with NCCL on a GPU.

    It goes on from the checkpoint of `loop`, and saves again.
    """
    arguments, out = _stopped_arguments(check, compiled=not check.tiny)
    before = _last_step(out)
    launcher = ["--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    launcher += ["-m", "clipvip.pipeline.train"]
    log = check.folder / "group.log"
    with started(check, "torch.distributed.run", *launcher, *arguments, log=log) as process:
        begin = time.monotonic()
        while process.poll() is None and _last_step(out) <= before:
            time.sleep(0.05)
        first = time.monotonic() - begin
        _signal_training(process.pid)
        ending, code = _ended(process)
    saved = max((path.name for path in (out / "checkpoints").glob("step-*")), default="")
    right = code is not None and _last_step(out) > before and saved == f"step-{_last_step(out):08d}"
    check.row(
        f"torchrun, from step {before}",
        start_and_first_step_s=first,
        exit_s=ending,
        saved=saved,
        verdict="right" if right else f"WRONG: {last_line(log)}",
    )


def _last_step(out: Path) -> int:
    """The last step in a run's log; 0 where there is none."""
    path = out / "log.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return int(json.loads(lines[-1])["step"]) if lines else 0


def _signal_training(launcher: int) -> None:
    """SIGTERM to the processes that the launcher started, which then save.

    The launcher itself would kill them.
    """
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGTERM)


def evaluation(check: Check) -> None:
    """Clips a second from shards to embeddings, with and without processes, beside the forward pass alone.

    Both compute as training does, which also resizes on the device.
    """
    from clipvip.model import ClipVip
    from clipvip.pipeline.evaluate.embeddings import ClipEncoder
    from clipvip.shards.tar.reader import list_shards

    check.free()
    paths = list_shards(shards_of(check)[0])
    model = ClipVip.from_clip(clip_of(check)).eval()
    torch.nn.Module.to(model, check.device)
    alone: dict[int, float] = {}
    for batch_size in (4,) if check.tiny else (16, 64):
        encoder = ClipEncoder(model, batch_size, shows_progress=False)
        alone[batch_size] = forward_rate(encoder, times=5 if check.tiny else 40)
        check.row(f"forward alone, batch {batch_size}", clips_per_s=alone[batch_size])
    for batch_size, workers in ((4, 0), (4, 1)) if check.tiny else ((16, 0), (16, 12), (64, 12)):
        name = f"evaluation, batch {batch_size}, {workers} processes"
        if not check.has_time_for(name, 25):
            continue
        encoder = ClipEncoder(model, batch_size, shows_progress=False, workers=workers)
        # With processes as many clips as their start is little beside; threads read a few.
        some = paths * 4 if workers else paths[:8]
        rate, _ = evaluation_rate(encoder, some)
        share = 100 * rate / max(alone.values())
        check.row(name, clips_per_s=rate, of_forward_percent=share, peak_gib=check.peak_gib())
    check.free()


def end_to_end(check: Check) -> None:
    """`clipvip-data caption` and `clipvip-eval retrieval` on whole shards."""
    shards, _ = shards_of(check)
    few = check.folder / "few-shards"
    few.mkdir(exist_ok=True)
    for path in sorted(shards.glob("*.tar"))[: 1 if check.tiny else 8]:
        if not (few / path.name).exists():
            os.link(path, few / path.name)
    gpus = "1" if check.on_gpu else "0"
    model = make_ofa(check.folder / "ofa-base", tiny=check.tiny)
    out = check.folder / "captioned"
    seconds = run_command(
        check, "clipvip.pipeline.cli", "caption", "--shards", str(few), "--out", str(out), "--model",
        str(model),
        "--gpus", gpus, "--workers", "2" if check.tiny else "12", log=check.folder / "caption.log",
    )  # fmt: skip
    run = json.loads((out / "report.json").read_text())
    captions = run["counts"]["captions"]
    check.row("caption", captions=captions, captions_per_s=captions / seconds, whole_command_s=seconds)
    from clipvip.model import ClipVip

    video_model = check.folder / "clip-vip"
    ClipVip.from_clip(clip_of(check)).save_pretrained(video_model)
    out = check.folder / "retrieval"
    seconds = run_command(
        check, "clipvip.pipeline.evaluate.cli", "retrieval", "--model", str(video_model), "--shards",
        str(few),
        "--out", str(out), "--device", check.device.type, log=check.folder / "retrieval.log",
    )  # fmt: skip
    clips = sum(1 for _ in few.glob("*.tar")) * (12 if check.tiny else 64)
    check.row("retrieval", clips_per_s=clips / seconds, whole_command_s=seconds)
