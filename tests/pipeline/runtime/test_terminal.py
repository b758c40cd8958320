"""Starting quickly, completing names in a shell, and colours."""

import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from clipvip.pipeline.cli import main
from clipvip.pipeline.runtime.errors import StageGroup

_PROGRAM = """
import sys
from {module} import main
try:
    main(sys.argv[1:], prog_name="clipvip-data")
finally:
    slow = {{"torch", "transformers", "numpy", "av", "sklearn", "matplotlib", {slow}}} & set(sys.modules)
    assert not slow, slow
"""


def run(*arguments: str, module: str = "clipvip.pipeline.cli", slow: str = "", **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(module=module, slow=slow), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr
    return done.stdout


def test_help_and_version_import_nothing_slow() -> None:
    """A list of commands needs less than their own help: no stores, no checks of rows."""
    more = '"fsspec", "pydantic"'
    assert "Fetch videos" in run("--help", slow=more)
    assert "version" in run("--version", slow=more)
    assert "Rank all clips for each text" in run("--help", module="clipvip.pipeline.evaluate.cli", slow=more)
    assert "Table 8" in run("--help", module="clipvip.experiments.study.cli", slow=more)


def test_shells_complete_names_at_once() -> None:
    script = run(_CLIPVIP_DATA_COMPLETE="bash_source")
    assert "complete -o nosort -F _clipvip_data_completion clipvip-data" in script
    answer = run(_CLIPVIP_DATA_COMPLETE="bash_complete", COMP_WORDS="clipvip-data ", COMP_CWORD="1")
    names = main.list_commands(click.Context(main))  # type: ignore[attr-defined]
    assert answer.split() == [f"plain,{name}" for name in names]
    answer = run(_CLIPVIP_DATA_COMPLETE="bash_complete", COMP_WORDS="clipvip-data convert", COMP_CWORD="1")
    assert answer.split() == [f"plain,convert-{name}" for name in ("released", "openclip", "ofa")]


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.group(cls=StageGroup)
    def program() -> None:
        pass

    @program.command()
    def shine() -> None:
        click.secho("bright", fg="cyan")

    assert CliRunner().invoke(program, ["shine"]).output == "bright\n"
    assert "\x1b[" in CliRunner().invoke(program, ["shine"], color=True).output
    monkeypatch.setenv("NO_COLOR", "1")
    assert CliRunner().invoke(program, ["shine"], color=True).output == "bright\n"
