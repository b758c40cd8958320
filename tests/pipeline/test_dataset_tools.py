"""What the tools for finished shards have in common: help with examples that are valid command lines."""

import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from clipvip.pipeline.cli import main

TOOLS = ("inspect", "stats", "verify", "merge", "split", "subset")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "dataset_tools.md"


def examples(text: str) -> list[list[str]]:
    return [shlex.split(line)[1:] for line in re.findall(r"^\s*(clipvip-data .*)$", text, re.MULTILINE)]


def command_of(name: str) -> click.Command:
    command = main.get_command(click.Context(main), name)  # type: ignore[attr-defined]
    assert isinstance(command, click.Command)
    return command


@pytest.mark.parametrize("name", TOOLS)
def test_help_shows_an_example_that_is_understood(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0, result.output
    shown = examples(result.output)
    assert shown
    for words in shown:
        assert words[0] == name
        command_of(name).make_context(name, words[1:])


def test_every_tool_is_explained_with_commands_that_are_understood() -> None:
    shown = examples(PAGE.read_text())
    assert {words[0] for words in shown} == set(TOOLS)
    for words in shown:
        command_of(words[0]).make_context(words[0], words[1:])
