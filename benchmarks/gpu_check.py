"""Measure everything that runs on a GPU, in one command: docs/gpu_check.md says how, also without a network.

    python benchmarks/gpu_check.py --out DIR [--sections step,captioner] [--budget 480]
    python benchmarks/gpu_check.py --out DIR --device cpu --tiny

Sections follow each other in one process, which this one watches: a section that fails, hangs or breaks the
GPU's context is told in a row, and the others go on in a new process. Rows are printed at once, and kept in
DIR as rows.jsonl; at the end DIR has gpu_check.md and gpu_check.json.
"""

import json
import os
import platform
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

_HERE = Path(__file__).resolve().parent
# A section that does not end at its budget by itself is killed so much later.
_GRACE_SECONDS = 60.0
# With less there is no point in beginning a section.
_LEAST_SECONDS = 5.0


@dataclass(frozen=True)
class Section:
    """A part of the check: `function` of `module`, and the seconds that it may take."""

    module: str
    function: str
    seconds: float


SECTIONS = {
    "data": Section("session", "data", 30),
    "ceilings": Section("ceilings", "ceilings", 15),
    "correctness": Section("correctness", "correctness", 75),
    "tests": Section("tests", "tests", 90),
    "step": Section("training", "step", 110),
    "split": Section("training", "split", 40),
    "ways": Section("ways", "ways", 150),
    "profile": Section("training", "profile", 30),
    "captioner": Section("captioning", "captioner", 60),
    "memory": Section("training", "memory", 30),
    "neighbours": Section("neighbours", "neighbours", 30),
    "loop": Section("commands", "loop", 150),
    "group": Section("commands", "group", 70),
    "evaluation": Section("commands", "evaluation", 60),
    "end_to_end": Section("commands", "end_to_end", 110),
}


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder for what was found.",
)
@click.option("--sections", help=f"Some of {','.join(SECTIONS)}, in this order; step:80 gives one 80 s.")
@click.option(
    "--budget",
    type=click.FloatRange(min=1),
    default=480.0,
    show_default=True,
    help="Seconds for all sections together.",
)
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option("--tiny", is_flag=True, help="Small sizes, for a processor: shows that all runs, not how fast.")
@click.option("--fail", help="Let this section fail, to see that it is told and the others run.")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="For shards and weights made here; default: temporary."
)
@click.option("--child", hidden=True, help="Sections to run in this process, as JSON.")
def main(out: Path, sections: str | None, budget: float, device: str, tiny: bool, fail: str | None,
         folder: Path | None, child: str | None) -> None:  # fmt: skip
    """Run the sections, and write a table of what they measured."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(f"--out {out}: {error.strerror}") from error
    if child is not None:
        run_sections(
            **json.loads(child), device=device, tiny=tiny, folder=Path(str(folder)), out=out, fail=fail
        )
        return
    plan = plan_of(sections)
    if fail is not None and fail not in SECTIONS:
        raise click.UsageError(f"--fail {fail}: no such section; there are {', '.join(SECTIONS)}")
    options = [
        "--out",
        str(out),
        "--device",
        device,
        *(["--tiny"] if tiny else []),
        *(["--fail", fail] if fail else []),
    ]
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as temporary:
        began = time.monotonic()
        log = Log(out, device=device, tiny=tiny)
        options += ["--folder", str(folder or temporary)]
        watch(plan, options, log, ends=began + budget)
        log.finish(time.monotonic() - began)
    found = [row["values"] for row in log.rows]
    if any("failed" in values or str(values.get("verdict", "")).startswith("WRONG") for values in found):
        raise click.ClickException("some rows failed or are wrong; see above")
    if all("left_out" in values for values in found):
        raise click.ClickException("nothing was measured; give a larger --budget")


def plan_of(sections: str | None) -> dict[str, float]:
    """The sections to run, in the order asked for, and the seconds that each may take."""
    if sections is None:
        return {name: section.seconds for name, section in SECTIONS.items()}
    asked: dict[str, float] = {}
    for text in sections.split(","):
        name, _, seconds = text.strip().partition(":")
        if name not in SECTIONS or (seconds and not seconds.isdigit()):
            raise click.UsageError(f"--sections {text}: no such section; there are {', '.join(SECTIONS)}")
        asked[name] = float(seconds) if seconds else SECTIONS[name].seconds
    return asked


def run_sections(
    plan: dict[str, float], *, ends: float, device: str, tiny: bool, folder: Path, out: Path, fail: str | None
) -> None:
    """In the process that measures: run the sections of `plan`, and tell their rows.

    `ends` is the time, by a clock that the processes share, at which all of them have to be done.
    """
    sys.path.insert(0, str(_HERE))
    import torch
    from gpu_sections.rows import Check, time_budget
    from transformers.utils.logging import disable_progress_bar

    if device == "cuda" and not torch.cuda.is_available():
        print(json.dumps({"reason": "torch sees no GPU here; --device cpu --tiny shows that the check runs"}))
        return
    folder.mkdir(parents=True, exist_ok=True)
    disable_progress_bar()
    if tiny:
        torch.set_num_threads(1)
    check = Check(torch.device(device), tiny, folder, out)
    print(json.dumps({"device": describe_device(torch.device(device))}), flush=True)
    for name, wanted in plan.items():
        seconds = min(wanted, ends - time.monotonic())
        check.section, check.deadline = name, time.monotonic() + seconds
        print(json.dumps({"begin": name, "seconds": seconds}), flush=True)
        if seconds < _LEAST_SECONDS:
            check.row("(the section)", left_out="the budget is used up")
            print(json.dumps({"end": name}), flush=True)
            continue
        try:
            with time_budget(seconds):
                section = SECTIONS[name]
                if name == fail:
                    raise RuntimeError("made to fail by --fail")
                getattr(import_module(f"gpu_sections.{section.module}"), section.function)(check)
        except Exception as error:  # noqa: BLE001 (told in a row)
            if check.seconds_left() <= 0:  # whatever the call made of it that was cut off
                check.row("(the rest of the section)", left_out=f"its {seconds:.0f} s are used up")
            else:
                traceback.print_exc()
                check.row(
                    "(the section)", failed=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                )
            broken = device == "cuda" and "CUDA error" in str(error)
        else:
            broken = False
        print(json.dumps({"end": name}), flush=True)
        if broken:  # every later call would fail as well: a new process goes on
            os._exit(1)
        check.free()


def describe_device(device: Any) -> dict[str, str]:
    """What the figures were measured on."""
    import torch

    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(
            (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), processor
        )
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor
    return {
        "device": name,
        "cores": str(len(os.sched_getaffinity(0))),
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "transformers": version("transformers"),
        "python": platform.python_version(),
    }


class Log:
    """Prints rows as they come, keeps them, and writes the table at the end."""

    def __init__(self, out: Path, *, device: str, tiny: bool) -> None:
        self.rows: list[dict[str, Any]] = []
        self.device: dict[str, str] = {}
        self._out = out
        self._lines = (out / "rows.jsonl").open("w", encoding="utf-8")
        self._mark = " (a processor: only shows that it runs)" if device == "cpu" else ""
        self._tiny = tiny

    def add(self, section: str, name: str, values: dict[str, Any]) -> None:
        row = {"section": section, "name": name, "values": values}
        self.rows.append(row)
        self._lines.write(json.dumps(row) + "\n")
        self._lines.flush()
        click.echo(f"{section:12s} {name}: {in_words(values)}{self._mark}")

    def finish(self, seconds: float) -> None:
        what = ", ".join(f"{key} {value}" for key, value in self.device.items())
        head = f"{what}; {' '.join(['gpu_check.py', *sys.argv[1:]])}; {seconds:.0f} s"
        lines = [head + self._mark, "", "| section | what | figures |", "|---|---|---|"]
        for row in self.rows:
            name = row["name"].replace("|", "\\|")
            lines.append(f"| {row['section']} | {name} | {in_words(row['values'])} |")
        text = "\n".join(lines) + "\n"
        (self._out / "gpu_check.md").write_text(text, encoding="utf-8")
        content = {"device": self.device, "tiny": self._tiny, "seconds": seconds, "rows": self.rows}
        (self._out / "gpu_check.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        self._lines.close()
        click.echo(f"\n{text}")


def in_words(values: dict[str, Any]) -> str:
    """`{"ms": 12.345, "clips_per_s": 1036.9, "mfu_percent": 41}` as `12.3 ms, 1,037 clips/s, mfu 41 %`."""
    return ", ".join(_figure(name, value) for name, value in values.items() if value is not None)


def _figure(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value if name == "verdict" else f"{name.replace('_', ' ')}: {value}"
    shown = f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.3g}"
    if name.endswith("_per_s"):
        what = name.removesuffix("_per_s")
        return f"{shown} {'TFLOP' if what == 'tflop' else 'GB' if what == 'gb' else what}/s"
    *words, unit = name.split("_")
    units = {"ms": "ms", "s": "s", "percent": "%", "gb": "GB", "gib": "GiB"}
    return (
        f"{' '.join(words)} {shown} {units[unit]}".strip()
        if unit in units
        else f"{' '.join([*words, unit])} {shown}"
    )


def watch(plan: dict[str, float], options: list[str], log: Log, *, ends: float) -> None:
    """Run sections in processes until all are told; one that hangs or dies costs itself alone."""
    while plan:
        plan = _one_process(plan, options, log, ends=ends)


def _one_process(plan: dict[str, float], options: list[str], log: Log, *, ends: float) -> dict[str, float]:
    """Run the sections in one process as far as it comes; those that are still to be run."""
    command = [
        sys.executable,
        str(Path(__file__).resolve()),
        *options,
        "--child",
        json.dumps({"plan": plan, "ends": ends}),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read_lines, args=(process, lines), daemon=True).start()
    current: str | None = None
    done: set[str] = set()
    began = time.monotonic()
    deadline = began + 120.0  # the imports and the GPU's start
    reason = ""
    try:
        while True:
            try:
                line = lines.get(timeout=max(deadline - time.monotonic(), 0.01))
            except queue.Empty:
                reason = f"was ended after {time.monotonic() - began:.0f} s"
                break
            if line is None:
                reason = f"its process ended with {process.wait()}"
                break
            message = _message(line)
            if message is None:
                click.echo(line, err=True)
            elif "reason" in message:
                reason = message["reason"]
                break
            elif "device" in message:
                log.device = message["device"]
            elif "begin" in message:
                current = message["begin"]
                deadline = time.monotonic() + message["seconds"] + _GRACE_SECONDS
            elif "end" in message:
                done.add(message["end"])
                current, deadline = None, time.monotonic() + 120.0
            else:
                log.add(message["section"], message["name"], message["values"])
    finally:
        _kill(process)
    remaining = {name: seconds for name, seconds in plan.items() if name not in done and name != current}
    if current is not None:
        log.add(current, "(the section)", {"failed": reason})
    elif remaining and not done:
        for name in remaining:  # it cannot even start
            log.add(name, "(the section)", {"failed": reason})
        return {}
    return remaining


def _read_lines(process: "subprocess.Popen[str]", lines: "queue.Queue[str | None]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line.rstrip("\n"))
    lines.put(None)


def _message(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _kill(process: "subprocess.Popen[str]") -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        process.wait()


if __name__ == "__main__":
    main()
