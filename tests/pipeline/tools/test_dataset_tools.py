"""What the tools for finished shards have in common: help with examples that are valid command lines."""

import random
import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from clipvip.pipeline.cli import main
from make_shards import make_shard_folder

TOOLS = ("inspect", "stats", "verify", "merge", "split", "subset")
PAGE = Path(__file__).resolve().parents[3] / "docs" / "dataset_tools.md"


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


def test_a_damaged_manifest_is_one_line_to_every_tool(tmp_path: Path) -> None:
    folder = make_shard_folder(tmp_path / "clips", num_shards=2, clips_per_shard=2, num_frames=1)
    path = folder / "manifest.json"
    intact = path.read_bytes()
    generator = random.Random(0)
    commands: list[list[object]] = [
        ["inspect", folder],
        ["stats", folder],
        ["merge", folder, "--dry-run"],
        ["split", folder, "--part", "a=0.5", "--part", "b=0.5", "--dry-run"],
        ["subset", folder, "--num", 1, "--dry-run"],
    ]
    for number in range(60):
        data = bytearray(intact)
        for _ in range(generator.choice([1, 1, 4])):
            data[generator.randrange(len(data))] = generator.choice(b'"{}[],:09azA \n\x00\xff')
        path.write_bytes(data)
        command = commands[number % len(commands)]
        if command[0] != "inspect":
            command = [*command, "--workers", 1]
        if command[0] in ("merge", "split", "subset"):
            command = [*command, "--out", tmp_path / "out"]
        result = CliRunner().invoke(main, [str(word) for word in command])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == 0 or result.stderr.splitlines()[-1].startswith("Error: ")
