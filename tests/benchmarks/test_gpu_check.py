"""The check for GPUs runs whole on a processor, also where only torch and transformers are installed."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from gpu_check import SECTIONS, in_words
from gpu_sections.made_data import make_ofa

from bare_python import bare_python
from clipvip.model.image_captioner import REPLACEMENT
from clipvip.model.ofa.tokenizer import OfaTokenizer

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
# What a machine for deep learning has, besides torch and transformers.
ON_THE_MACHINE = [
    "torch",
    "transformers",
    "scikit-learn",
    "pyarrow",
    "tensorboard",
    "pillow",
    "click",
    "fsspec",
    "matplotlib",
]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "gpu_check.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_figures_are_told_with_their_units() -> None:
    values = {"ms": 12.345, "clips_per_s": 1036.9, "mfu_percent": 41.02, "peak_gib": None, "verdict": "right"}
    assert in_words(values) == "12.3 ms, 1,037 clips/s, mfu 41 %, right"


@pytest.mark.slow
def test_a_failing_section_is_told_and_the_others_run(tmp_path: Path) -> None:
    done = _run("--device", "cpu", "--tiny", "--out", str(tmp_path), "--sections", "data,ceilings,nonsense")
    assert done.returncode == 2 and "no such section" in done.stderr
    done = _run(
        "--device", "cpu", "--tiny", "--out", str(tmp_path), "--sections", "data,ceilings", "--fail", "data"
    )
    assert done.returncode == 1
    rows = json.loads((tmp_path / "gpu_check.json").read_text())["rows"]
    assert rows[0]["section"] == "data" and "made to fail" in rows[0]["values"]["failed"]
    assert [row["section"] for row in rows[1:]] == ["ceilings"] * 4
    assert all(row["values"] for row in rows[1:])
    assert (
        "| data | (the section) | failed: RuntimeError: made to fail by --fail |"
        in (tmp_path / "gpu_check.md").read_text()
    )


def test_a_section_beyond_its_time_is_left_out(tmp_path: Path) -> None:
    done = _run(
        "--device", "cpu", "--tiny", "--out", str(tmp_path), "--sections", "captioner", "--budget", "1"
    )
    assert done.returncode == 1 and "nothing was measured" in done.stderr
    rows = json.loads((tmp_path / "gpu_check.json").read_text())["rows"]
    assert [row["values"] for row in rows] == [{"left_out": "the budget is used up"}]


def test_whatever_random_weights_say_is_a_caption(tmp_path: Path) -> None:
    tokenizer = OfaTokenizer.from_pretrained(make_ofa(tmp_path / "ofa", tiny=True))
    said = [tokenizer.decode([number]) for number in range(len(tokenizer))]
    assert said and not any(REPLACEMENT in text for text in said)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_packed_it_runs_where_only_torch_and_transformers_are(tmp_path: Path) -> None:
    archive = tmp_path / "gpu-check.tar.gz"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    pack = [sys.executable, str(BENCHMARKS / "pack_gpu_check.py"), "--out", str(archive), "--python", version]
    packed = subprocess.run(pack, capture_output=True, text=True, check=False)
    assert packed.returncode == 0, packed.stderr
    assert archive.stat().st_size < 64 * 2**20
    empty = tmp_path / "empty"
    empty.mkdir()
    with tarfile.open(archive) as packed_files:
        packed_files.extractall(empty, filter="tar")
    bare = bare_python(tmp_path / "bare", ON_THE_MACHINE)
    for name in ("av", "decord", "faiss", "ray"):
        missing = subprocess.run(
            ["python3", "-c", f"import {name}"], env=bare, capture_output=True, check=False
        )
        assert missing.returncode != 0, f"{name} is on the path: the test shows nothing"

    command = [
        "bash",
        str(empty / "gpu-check" / "run.sh"),
        "--device",
        "cpu",
        "--tiny",
        "--out",
        str(tmp_path / "out"),
    ]
    environment = {**bare, "HOME": str(tmp_path), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}
    done = subprocess.run(command, env=environment, cwd=empty, capture_output=True, text=True, check=False)
    rows = json.loads((tmp_path / "out" / "gpu_check.json").read_text())["rows"]
    failed = [row for row in rows if "failed" in row["values"] or "WRONG" in str(row["values"])]
    assert done.returncode == 0 and not failed, (failed, done.stdout[-3000:], done.stderr[-3000:])
    assert {row["section"] for row in rows} == set(SECTIONS)
