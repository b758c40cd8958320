"""The commands as users type them, on shards made here: data wait, stopping, resuming, captions, retrieval."""

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from clipvip.pipeline.training.checkpoint import TrainState
from clipvip.pipeline.training.loop import batches_of
from gpu_sections.made_data import make_ofa
from gpu_sections.rows import Check, last_line, run_command, started
from gpu_sections.session import clip_of, opened, settings, shards_of

_TRAIN = "clipvip.pipeline.train"
_EXIT_WAIT = 20.0


def _train_arguments(check: Check, name: str, *, batch_size: int, **changes: Any) -> tuple[list[str], Path]:
    """`clipvip-train` in a folder of its own; its settings are those of `session.settings`."""
    out = check.folder / "runs" / name
    changes = {"run__out": out, "run__workers": 12, "run__save_every_steps": 1_000_000, **changes}
    overrides = settings(check, clip_of(check), batch_size=batch_size, **changes)
    return ["pretrain_vip_b32", *(word for text in overrides for word in ("--set", text))], out


def loop(check: Check) -> None:
    """`clipvip-train` with its loading processes; how it ends by SIGTERM and by an error; loading by itself."""
    _whole_run(check, compiled=not check.tiny, seconds=60)
    _ending(check, "SIGTERM", {"optim__steps": 1_000_000})
    _ending(
        check,
        "divergence",
        {"optim__learning_rate": 1e30, "optim__warmup_fraction": 0, "optim__steps": 100_000},
    )
    if check.has_time_for("loading alone", 25):
        _loading_alone(check, seconds=2 if check.tiny else 8)
    if not check.tiny:
        _whole_run(check, compiled=False, seconds=70)


def _whole_run(check: Check, *, compiled: bool, seconds: float) -> None:
    large, chunk, steps, every = (8, 8, 4, 2) if check.tiny else (1024, 128, 8, 2)
    way = "compiled" if compiled else "not compiled"
    name = f"batch {large} in chunks of {chunk}, {way}"
    if not check.has_time_for(name, seconds):
        return
    arguments, out = _train_arguments(
        check, way.replace(" ", "-"), batch_size=large, chunk_size=chunk, optim__steps=steps,
        run__log_every_steps=every, run__compile=compiled,
    )  # fmt: skip
    taken = run_command(check, _TRAIN, *arguments, log=check.folder / "train.log")
    check.row(name, **_rates(out), whole_command_s=taken)


def _loading_alone(check: Check, *, seconds: float) -> None:
    """Clips a second that the loading processes give when nobody computes."""
    batch_size = 8 if check.tiny else 128
    with opened(check, clip_of(check), batch_size=batch_size, run__workers=12, run__compile=False) as session:
        batches = batches_of(session.job, TrainState())
        next(batches)
        begin, clips = time.monotonic(), 0
        while time.monotonic() - begin < seconds:
            clips += sum(chunk.num_rows for chunk in next(batches))
        rate = clips / (time.monotonic() - begin)
        batches.close()
    check.row("loading alone, 12 processes", clips_per_s=rate)


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


def _ending(check: Check, how: str, changes: dict[str, Any]) -> None:
    """Seconds from the signal, or from the line that tells the error, to the end of the command."""
    size = 8 if check.tiny else 64
    arguments, out = _train_arguments(
        check, how, batch_size=size, run__log_every_steps=1, run__compile=False, **changes
    )
    log, table = check.folder / f"{how}.log", out / "log.jsonl"
    with started(check, _TRAIN, *arguments, log=log) as process:
        while process.poll() is None:
            if how == "SIGTERM" and table.exists() and table.stat().st_size:
                process.send_signal(signal.SIGTERM)
                break
            if how != "SIGTERM" and "Error" in log.read_text(errors="replace"):
                break
            time.sleep(0.05)
        begin = time.monotonic()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_EXIT_WAIT)
        seconds, code = time.monotonic() - begin, process.poll()
    if code is None:
        check.row(f"end by {how}", verdict=f"WRONG: still there after {seconds:.0f} s")
    else:
        check.row(f"end by {how}", seconds_to_exit=seconds, exit_code=code, said=last_line(log))


def group(check: Check) -> None:
    """One process under torchrun, so with NCCL on a GPU: start, the joins of a step, saving, going on from there."""
    arguments, out = _train_arguments(
        check, "group", batch_size=8 if check.tiny else 128, run__compile=False, run__log_every_steps=1,
        run__save_every_steps=2, optim__steps=6,
    )  # fmt: skip
    launcher = [
        "--nproc-per-node",
        "1",
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        "localhost:0",
        "-m",
        _TRAIN,
    ]
    for name, stops_after in {"start, two steps, saved": 2, "resumed to the end": None}.items():
        begin = time.monotonic()
        log = check.folder / "group.log"
        with started(check, "torch.distributed.run", *launcher, *arguments, log=log) as process:
            while process.poll() is None:
                if stops_after and any((out / "checkpoints").glob("step-*")):
                    _signal_training(process.pid)
                    process.wait(timeout=_EXIT_WAIT)
                time.sleep(0.05)
        last = json.loads((out / "log.jsonl").read_text().splitlines()[-1])
        done = int(last["step"]) == 6 if stops_after is None else process.returncode != 0
        check.row(
            name,
            seconds=time.monotonic() - begin,
            exit_code=process.returncode,
            last_step=int(last["step"]),
            verdict="right" if done else f"WRONG: {last_line(log)}",
        )


def _signal_training(launcher: int) -> None:
    """SIGTERM to the processes that the launcher started, which then save; the launcher itself would kill them."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGTERM)


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
        check, "clipvip.pipeline.cli", "caption", "--shards", str(few), "--out", str(out), "--model", str(model),
        "--gpus", gpus, "--workers", "2" if check.tiny else "12", log=check.folder / "caption.log",
    )  # fmt: skip
    run = json.loads((out / "report.json").read_text())
    captions = run["counts"]["captions"]
    check.row("caption", captions=captions, captions_per_s=captions / seconds, whole_command_s=seconds)
    video_model = check.folder / "runs" / "compiled" / "model"
    if not video_model.is_dir():
        from clipvip.model import ClipVip

        ClipVip.from_clip(clip_of(check)).save_pretrained(video_model)
    out = check.folder / "retrieval"
    seconds = run_command(
        check, "clipvip.pipeline.evaluate", "retrieval", "--model", str(video_model), "--shards", str(few),
        "--out", str(out), "--device", check.device.type, log=check.folder / "retrieval.log",
    )  # fmt: skip
    clips = sum(1 for _ in few.glob("*.tar")) * (12 if check.tiny else 64)
    check.row("retrieval", clips_per_s=clips / seconds, whole_command_s=seconds)
