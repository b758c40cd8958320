"""Start `clipvip-data` in a process group of its own, find its workers, and compare what it leaves."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

from left_over import MARK, processes_of, wait_until

# As a plain `clipvip-data` on a terminal: Ctrl-C counts, also where the tests run in a shell's background.
PREAMBLE = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"

SECONDS_TO_END = 10


def start(
    *arguments: object, before: str = "", program: str = "clipvip.pipeline.cli", **options: Any
) -> "subprocess.Popen[str]":
    """`clipvip-data ARGUMENTS`, or another program, by its module.

    The Python statements `before` come first in its process, not in its workers.
    """
    code = f"{PREAMBLE}{before}\nfrom {program} import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run(*arguments: object, seconds: float = 280, **options: Any) -> tuple[int, str]:
    """As `start`, to the end, with which all must end that it started: exit code, and the last line of what it says."""
    mark = uuid.uuid4().hex
    environment = {**options.pop("env", os.environ), MARK: mark}
    process = start(*arguments, env=environment, **options)
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert "Traceback" not in errors, errors
    assert wait_until(lambda: not processes_of(mark), SECONDS_TO_END), processes_of(mark)
    return process.returncode, (errors if process.returncode else output).strip().splitlines()[-1]


def workers_of(process: "subprocess.Popen[str]") -> list[int]:
    """The process ids of a stage's workers."""
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return [int(c) for c in children if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def content(out: Path) -> dict[str, Any]:
    """Every file of an output, and the report without its part on the run itself, which alone may differ."""
    files = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    report = json.loads(files.pop("report.json"))
    del report["this_run"]
    return {**files, "report.json": report}
