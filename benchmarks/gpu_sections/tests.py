"""The tests marked `gpu`, on the machine itself."""

import os
import re
import subprocess
import sys
from pathlib import Path

from gpu_sections.rows import Check

_TREE = Path(__file__).resolve().parents[2]
_MARKED = re.compile(r"mark\.gpu\b|\bDEVICES\b")


def tests(check: Check) -> None:
    """`pytest -m gpu`: what passed; on a processor all of it is skipped."""
    # Other files import what such a machine may lack.
    files = [
        str(path) for path in sorted((_TREE / "tests").rglob("test_*.py")) if _MARKED.search(path.read_text())
    ]
    required = {"CLIPVIP_TESTS_REQUIRE": "gpu"} if check.on_gpu else {}
    log = check.folder / "tests.log"
    with log.open("w") as output:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "-rf", *files],
            cwd=_TREE, env={**os.environ, **required}, stdout=output, stderr=subprocess.STDOUT,
            timeout=max(check.seconds_left(), 1), check=False,
        )  # fmt: skip
    lines = [line for line in log.read_text().splitlines() if line.strip()]
    for line in lines:
        if line.startswith("FAILED "):
            check.row(line.removeprefix("FAILED ").split(" - ")[0][:100], verdict=f"WRONG: {line[-200:]}")
    found = {what: int(n) for n, what in re.findall(r"(\d+) (passed|failed|skipped|errors?)\b", lines[-1])}
    right = done.returncode == 0 and (bool(found.get("passed")) or not check.on_gpu)
    check.row("pytest -m gpu", **found, verdict="right" if right else f"WRONG: {lines[-1][:200]}")
