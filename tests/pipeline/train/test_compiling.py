"""Where torch.compile has nothing to compile with, a line says so: slower by default, else refused."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from clipvip.pipeline.train.distributed import Place
from clipvip.pipeline.train.recipe import load_recipe
from clipvip.pipeline.train.start import chosen_compile
from train_runs import arguments

GPU = Place(0, 1, torch.device("cuda"))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs and Python packages, beside which there are no programs."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def make_program(path: Path) -> None:
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)


def add_triton(machine: Path) -> None:
    (machine / "triton").mkdir()
    (machine / "triton" / "__init__.py").touch()


def compiles(world: Path, *settings: str, place: Place = GPU) -> bool:
    return chosen_compile(load_recipe(str(world / "recipe.yaml"), settings), place)


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_a_gpu_compiles_where_it_can(
    world: Path, machine: Path, capsys: pytest.CaptureFixture[str], compiler: str
) -> None:
    add_triton(machine)
    make_program(machine / compiler)
    assert compiles(world)
    assert not compiles(world, "run.compile=false")
    assert not compiles(world, place=Place(0, 1, torch.device("cpu")))
    assert capsys.readouterr().err == ""


def test_a_gpu_without_a_compiler_says_so_and_does_without(
    world: Path, machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add_triton(machine)
    assert not compiles(world, place=Place(1, 2, torch.device("cuda")))
    assert capsys.readouterr().err == ""  # the first process speaks for all
    assert not compiles(world)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "no C compiler (gcc or clang)" in said and "run.compile=false" in said
    make_program(machine / "gcc")
    monkeypatch.setenv("CC", "elsewhere")
    assert not compiles(world)
    assert "no C compiler (elsewhere)" in capsys.readouterr().err
    assert compiles(world, "run.compile=true")  # who asks for it learns why it fails


@pytest.mark.slow
def test_a_failed_compilation_is_one_line(
    world: Path, machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own: this one may have compiled the same before."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    given = arguments(world, tmp_path / "out", "--set", "optim.steps=1", "--set", "run.compile=true")
    code = "from clipvip.pipeline.train.command import main; main()"
    result = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, text=True, check=False)
    assert result.returncode == 1, result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Error: torch.compile failed (") and "run.compile=false" in last
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out" / "checkpoints").exists()
