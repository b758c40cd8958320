"""Run our commands: in this process, or in one of their own that can be killed and leaves nothing behind."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner, Result

from clipvip.pipeline.cli import main as data
from left_over import MARK, processes_of, wait_until

# As a plain `clipvip-data` on a terminal: Ctrl-C counts, also where the tests run in a shell's background.
PREAMBLE = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"

SECONDS_TO_END = 10


def run(*words: object, program: click.Command = data) -> Result:
    """`clipvip-data WORDS`, or another program, in this process.

    Whatever its input, it ends in no traceback.
    """
    result = CliRunner().invoke(program, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def run_well(*words: object, program: click.Command = data) -> Result:
    """As `run`, with success."""
    result = run(*words, program=program)
    assert result.exit_code == 0, result.output
    return result


def printed_by(program: click.Command, *words: object) -> dict[str, Any]:
    """The JSON object that a command prints with --json."""
    content: dict[str, Any] = json.loads(run_well(*words, "--json", program=program).stdout)
    return content


def error_of(result: Result) -> str:
    """The one line that says why a command failed."""
    assert result.exit_code == 1, result.output
    (line,) = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    return line


def start(
    *words: object, before: str = "", program: str = "clipvip.pipeline.cli", **options: Any
) -> "subprocess.Popen[str]":
    """`clipvip-data WORDS`, or another program, by its module, in a process group of its own.

    The Python statements `before` come first in its process, not in its workers.
    """
    code = f"{PREAMBLE}{before}\nfrom {program} import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run_to_end(*words: object, seconds: float = 280, **options: Any) -> tuple[int, str]:
    """As `start`, to the end, with which all must end that it started.

    Exit code, and the last line that it says.
    """
    mark = uuid.uuid4().hex
    environment = {**options.pop("env", os.environ), MARK: mark}
    process = start(*words, env=environment, **options)
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
