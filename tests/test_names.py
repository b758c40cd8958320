"""The names that users import, where one looks for them."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

import clipvip
from clipvip.pipeline.cli import main as data
from clipvip.pipeline.evaluate.cli import main as evaluate

NAMES = """
from clipvip.analysis import domain_gap, retrieval_metrics
from clipvip.analysis.domain_gap import domain_gap as the_function
import clipvip.analysis.domain_gap
from clipvip.analysis import domain_gap as still_the_function
from clipvip.model import ClipVip, ClipVipConfig, omnisource_loss
from clipvip.model.losses import omnisource_loss as the_loss
from clipvip.shards.sampling import uniform_indices

import clipvip.analysis.domain_gap as by_its_path
from clipvip.analysis.domain_gap import DomainGap, draw_samples

assert domain_gap is the_function is still_the_function is by_its_path.domain_gap, domain_gap
assert by_its_path.draw_samples is draw_samples and by_its_path.DomainGap is DomainGap
assert omnisource_loss is the_loss and callable(retrieval_metrics)
assert uniform_indices(5, 3).tolist() == [0, 2, 4]
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_functions_and_classes_stand_where_one_looks() -> None:
    run(NAMES)


@pytest.mark.parametrize("heavy", ["torch", "transformers", "sklearn", "av", "click", "matplotlib"])
def test_the_packages_themselves_load_nothing_heavy(heavy: str) -> None:
    code = "import sys, clipvip, clipvip.analysis, clipvip.model, clipvip.shards, clipvip.media"
    assert run(f"{code}\nprint({heavy!r} in sys.modules)") == "False\n"


@pytest.mark.parametrize("package", ["clipvip", "clipvip.model", "clipvip.shards"])
def test_each_name_stands_alike_in_all_three_places(package: str) -> None:
    """For type checkers in imports and `__all__`, and where it is loaded on use."""
    module = importlib.import_module(package)
    tree = ast.parse(Path(str(module.__file__)).read_text())
    (checked,) = (one.body for one in tree.body if isinstance(one, ast.If) and not is_not(one.test))
    homes = {
        alias.asname or alias.name: (one.module, alias.name)
        for one in checked
        if isinstance(one, ast.ImportFrom)
        for alias in one.names
    }
    assert sorted(module.__all__) == sorted([*homes, *(["__version__"] if package == "clipvip" else [])])
    assert {*module.__all__} <= {*dir(module)}
    for name, (home, there) in homes.items():
        assert getattr(module, name) is getattr(importlib.import_module(home), there), name


def is_not(test: ast.expr) -> bool:
    return isinstance(test, ast.UnaryOp)


def test_every_command_of_the_data_and_its_scores_is_a_function() -> None:
    for program in (data, evaluate):
        for command in program.list_commands(click.Context(program)):
            assert callable(getattr(clipvip, command.replace("-", "_"))), command
    assert callable(clipvip.train)


def test_a_wrong_name_is_told_the_nearest() -> None:
    for name, near in (("captoin", "caption"), ("ClipVIP", "ClipVip"), ("nothing_like_this", "")):
        code = f"import clipvip\nclipvip.{name}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        last = done.stderr.splitlines()[-1]
        assert f"no attribute {name!r}" in last and (f"Did you mean: {near!r}" in last) == bool(near), last


USED = """
import clipvip
from clipvip import ClipVip, UserError, caption
from clipvip.analysis import DomainGap, domain_gap
from clipvip.model import omnisource_loss
from clipvip.shards import list_shards, read_shard

reveal_type(caption(shards="a", out="b", model="c"))
reveal_type(clipvip.analysis.retrieval_metrics)
clipvip.captoin
"""


@pytest.mark.slow
def test_a_type_checker_sees_the_names_and_no_others(tmp_path: Path) -> None:
    """As an installed package, of which mypy --strict takes only what is offered."""
    (tmp_path / "used.py").write_text(USED)
    command = ["-m", "mypy", "--strict", "--ignore-missing-imports", "--follow-imports=silent", "used.py"]
    environment = {**os.environ, "MYPYPATH": str(Path(clipvip.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert "report.StageReport" in done.stdout and "labels" in done.stdout, done.stdout + done.stderr
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert len(errors) == 1 and 'no attribute "captoin"' in errors[0], errors
