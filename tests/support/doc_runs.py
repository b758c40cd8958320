"""Run the blocks of code that the documentation shows."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from doc_blocks import Block, simple_commands


def outputs(blocks: Iterable[Block]) -> Iterable[str]:
    """The folders that commands are told to write to."""
    for block in blocks:
        for words in simple_commands(block.code) if block.language == "bash" else []:
            for option, value in itertools.pairwise(words):
                if option in {"--out", "--captions-out"}:
                    yield value.rstrip("/")
            if words[:2] == ["clipvip-demo", "run"]:  # without --out
                yield "demo-out"


def run_block(block: Block, folder: Path) -> str:
    """What it prints to standard output; fails where a command does."""
    scripts = Path(sys.executable).parent
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
    }
    shell = ["bash", "-euo", "pipefail", "-c"] if block.language == "bash" else [sys.executable, "-c"]
    done = subprocess.run(
        [*shell, block.to_run], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{block}:\n{block.to_run}\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}"
    return done.stdout
