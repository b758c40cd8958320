"""Puts the commands' help texts into Markdown, with examples and epilogues; mkdocs calls it when it builds.

mkdocs-click writes the pages of the reference; by itself it leaves out epilogues and joins examples.
"""

import inspect
import itertools
import pkgutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import clipvip


def on_config(config: Any) -> Any:
    """Say under each page which version it is of."""
    config.copyright = f"clipvip {clipvip.__version__}, {config.copyright}"
    return config


def on_startup(command: str, dirty: bool) -> None:
    """Change the help of every command in place; mkdocs calls this once, before all else."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    for target in project["scripts"].values():
        for stage in with_subcommands(pkgutil.resolve_name(target)):
            stage.help = "\n\n".join(help_as_markdown(text) for text in (stage.help, stage.epilog) if text)


def with_subcommands(command: click.Command) -> Iterator[click.Command]:
    yield command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            subcommand = command.get_command(context, name)
            assert subcommand is not None
            subcommand.name = name  # all are called `command` where they are defined
            yield from with_subcommands(subcommand)


def help_as_markdown(text: str) -> str:
    """Click's paragraphs as they are; in those that it must not wrap (after \\b), indented lines as code.

    >>> help_as_markdown("Cut.\\n\\n\\b\\nExample:\\n  shard --out clips/")
    'Cut.\\n\\nExample:\\n\\n```bash\\nshard --out clips/\\n```'
    """
    paragraphs = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        lines = paragraph.splitlines()
        if lines[0].strip() != "\b":
            paragraphs.append(paragraph)
            continue
        for is_code, group in itertools.groupby(lines[1:], key=lambda line: line.startswith("  ")):
            part = inspect.cleandoc("\n".join(group))
            paragraphs.append(f"```bash\n{part}\n```" if is_code else part)
    return "\n\n".join(paragraphs)
