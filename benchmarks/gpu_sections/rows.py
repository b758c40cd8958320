"""What a section of the GPU check tells, and the time it has. Sections are in the files beside this one."""

import contextlib
import gc
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

Value = float | int | str | None


class OutOfTime(Exception):
    """A section's own time budget is used up."""


@dataclass
class Check:
    """The surroundings of a section: where it computes and writes, and how it tells a row.

    `tiny` asks for sizes that a CPU does in seconds: they show that the check runs, and say nothing of speed.
    """

    device: torch.device
    tiny: bool
    folder: Path
    out: Path
    section: str = ""
    deadline: float = field(default_factory=lambda: time.monotonic() + 3600)

    def row(self, name: str, **values: Value) -> None:
        """Tell one row: what was measured, and figures whose names hold their units."""
        print(json.dumps({"section": self.section, "name": name, "values": values}), flush=True)

    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    def has_time_for(self, name: str, seconds: float) -> bool:
        """Whether so many seconds are left; where not, a row says that `name` was left out."""
        if self.tiny or self.seconds_left() >= seconds:
            return True
        self.row(name, left_out=f"needs about {seconds:.0f} s, {self.seconds_left():.0f} s left")
        return False

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def wait(self) -> None:
        """Until the device has done all that it was given."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def free(self) -> None:
        """Give memory back to the device, and count its peak anew."""
        gc.collect()
        torch._dynamo.reset()
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_gib(self) -> float | None:
        return torch.cuda.max_memory_allocated(self.device) / 2**30 if self.on_gpu else None

    def seconds(self, function: Callable[[], Any], *, times: int = 5, warm_up: int = 2) -> float:
        """The median time of a call, by the clock, each waited for."""
        taken = []
        for number in range(warm_up + times):
            self.wait()
            begin = time.perf_counter()
            function()
            self.wait()
            if number >= warm_up:
                taken.append(time.perf_counter() - begin)
        return statistics.median(taken)


@contextlib.contextmanager
def time_budget(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in the block once it has taken so long."""

    def end(signum: int, frame: object) -> None:
        raise OutOfTime(f"its {seconds:.0f} s are used up")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.01))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def started(check: Check, module: str, *arguments: str, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A command of the product as a process of its own; it and all that it started is ended with the block.

    Args:
        module: has the command as `main`.
        log: where its output goes.
    """
    call = f"import sys; from {module} import main; sys.argv[0] = {module!r}; main()"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", call, *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run_command(check: Check, module: str, *arguments: str, log: Path) -> float:
    """Run a command of the product to its end; the seconds that it took.

    Raises:
        RuntimeError: it failed; with the last lines that it printed.
    """
    begin = time.perf_counter()
    with started(check, module, *arguments, log=log) as process:
        code = process.wait(timeout=max(check.seconds_left(), 1))
    if code:
        raise RuntimeError(f"{module} {' '.join(arguments[:1])} ended with {code}: {last_line(log)}")
    return time.perf_counter() - begin


def last_line(log: Path) -> str:
    lines = [
        line for line in log.read_text(errors="replace").replace("\r", "\n").splitlines() if line.strip()
    ]
    return lines[-1].strip()[:300] if lines else "it printed nothing"
