"""What a run tells while it goes: log.jsonl, TensorBoard, W&B and the line on the terminal.

log.jsonl holds what the computation gave and nothing that depends on the clock, so that a resumed run leaves
the same file; rates go to the other three.
"""

import json
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import click
import torch

from clipvip.extras import missing
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.progress import Progress
from clipvip.pipeline.runtime.report import counted
from clipvip.pipeline.train.peaks import peak_of
from clipvip.pipeline.train.recipe import Recipe, recipe_tree
from clipvip.shards.files.atomic import write_jsonl

LOG_NAME = "log.jsonl"
_LARGEST_VALUE = 1e300


@dataclass
class Speed:
    """Rates since the last log line: samples of all processes together, the rest of this one."""

    device: torch.device
    samples: int = 0
    flops: float = 0.0
    wait_seconds: float = 0.0
    _start: float = field(default_factory=time.perf_counter)
    _has_remarked: bool = False

    def take(self, now: float | None = None) -> dict[str, float]:
        """The rates up to `now`, of `time.perf_counter`, by name; starts the next interval there."""
        now = time.perf_counter() if now is None else now
        seconds = max(now - self._start, 1e-9)
        rates = {
            "samples_per_second": self.samples / seconds,
            "data_wait_fraction": self.wait_seconds / seconds,
        }
        peak = peak_of(self.device)
        if peak is not None:
            rates["mfu"] = self.flops / seconds / peak.flops
            if peak.remark and not self._has_remarked:
                click.echo(peak.remark, err=True)
                self._has_remarked = True
        if self.device.type == "cuda":
            rates["gpu_memory_gib"] = torch.cuda.max_memory_allocated(self.device) / 2**30
        self.samples, self.flops, self.wait_seconds = 0, 0.0, 0.0
        self._start = now
        return rates


@dataclass
class Logs:
    """The open logs of a run."""

    file: IO[str]
    bar: Progress
    tensorboard: Any
    wandb: Any
    closing: ExitStack
    # Of the validation split by the baseline, and the writer of its line in TensorBoard's charts.
    baseline: dict[str, float] = field(default_factory=dict)
    _beside: Any = None

    def show_baseline(self, name: str, recalls: dict[str, float], *, step: int) -> None:
        """Tell what the baseline, called `name`, scores on the validation split.

        Validations after `step` are logged beside it: in TensorBoard as a line in the same charts.
        """
        self.baseline = recalls
        if self.tensorboard is not None:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            self._beside = SummaryWriter(str(Path(self.tensorboard.log_dir, "baseline")), purge_step=step + 1)
            self.closing.callback(self._beside.close)
        self.bar.note(f"baseline {name}: validation {_percent(recalls)}")

    def write(self, row: dict[str, float], rates: dict[str, float]) -> None:
        """Log the values of one step, `row["step"]`, and the rates since the last call."""
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()
        step = int(row["step"])
        values = {f"train/{name}": value for name, value in row.items() if name != "step"}
        self._send(values | {f"speed/{name}": value for name, value in rates.items()}, step)
        self.bar.note(
            f"step {step:,}: loss {row['loss']:.4f}, lr {row['learning_rate']:.2e}, "
            f"{rates['samples_per_second']:.1f} clips/s, {rates['data_wait_fraction']:.0%} waiting for data"
            + (f", MFU {rates['mfu']:.0%}" if "mfu" in rates else "")
        )

    def write_validation(self, row: dict[str, Any]) -> None:
        """Log the scores of the validation split after a step."""
        step = int(row["step"])
        recalls = {name: value for name, value in row.items() if isinstance(value, float)}
        self._send({f"validation/{name}": value for name, value in recalls.items()}, step)
        beside = ""
        if self.baseline:
            beside = f" (baseline {100 * self.baseline['mean_recall']:.1f})"
            for name in self.baseline if self._beside is not None else ():
                self._beside.add_scalar(f"validation/{name}", self.baseline[name], step)
            if self.wandb is not None:
                values = {f"validation/baseline_{name}": value for name, value in self.baseline.items()}
                self.wandb.log(values, step=step)
        self.bar.note(f"step {step:,}: validation {_percent(row)}{beside}")

    def _send(self, values: dict[str, float], step: int) -> None:
        if self.tensorboard is not None:
            for name, value in values.items():
                self.tensorboard.add_scalar(name, value, step)
        if self.wandb is not None:
            self.wandb.log(values, step=step)


def _percent(recalls: dict[str, Any]) -> str:
    shown = ", ".join(f"R@{k} {100 * recalls[f'r{k}']:.1f}" for k in (1, 5, 10))
    return f"{shown}, mean {100 * recalls['mean_recall']:.1f}"


@contextmanager
def open_logs(recipe: Recipe, out: Path, bar: Progress, *, step: int) -> Iterator[Logs]:
    """Open the logs of a run that resumes after `step` steps; rows of later steps are dropped."""
    write_jsonl(out / LOG_NAME, [row for row in read_log(out) if row["step"] <= step])
    tensorboard = wandb_run = None
    with ExitStack() as stack:
        if recipe.run.wandb_project is not None:
            import wandb

            wandb_run = wandb.init(
                project=recipe.run.wandb_project,
                config=recipe_tree(recipe),
                dir=str(out),
                name=out.name,
                # Runs of one name in one project are other runs; the same folder's goes on after a restart.
                id=f"{out.name}-{zlib.crc32(str(out.resolve()).encode()):08x}",
                resume="allow",
            )
            stack.callback(wandb_run.finish)
        if recipe.run.tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            tensorboard = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1)
            stack.callback(tensorboard.close)
        file = stack.enter_context((out / LOG_NAME).open("a", encoding="utf-8"))
        yield Logs(file, bar, tensorboard, wandb_run, stack)


def read_log(out: Path) -> list[dict[str, float]]:
    """The rows of log.jsonl.

    A last line cut short by a kill is left out. So are damaged lines: a line on stderr tells how many.
    """
    path = out / LOG_NAME
    if not path.exists():
        return []
    found = [_row_of(line) for line in path.read_bytes().split(b"\n")[:-1]]
    rows = [row for row in found if row is not None]
    if lost := len(found) - len(rows):
        lines = counted(lost, "damaged lines")
        click.echo(f"Warning: {path}: {lines} of {len(found):,} left out", err=True)
    return rows


def _row_of(line: bytes) -> dict[str, float] | None:
    """The row that a line holds: finite numbers by name, a step and a loss among them; else None."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or type(row.get("step")) is not int or "loss" not in row:
        return None
    is_number = (type(value) in (int, float) and abs(value) < _LARGEST_VALUE for value in row.values())
    return row if all(is_number) else None


def require_wandb() -> None:
    """UserError where the package wandb is missing."""
    try:
        import wandb  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"{missing('wandb', 'run.wandb_project')}, or give --set run.wandb_project=null"
        ) from error
