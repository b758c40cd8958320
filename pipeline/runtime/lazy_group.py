"""A program of several commands, each imported when it is called."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

from clipvip.pipeline.runtime.errors import StageGroup
from clipvip.pipeline.runtime.stage import Stage, stage_command


class LazyGroup(StageGroup):
    """Loads a subcommand's module on use, so that `--help` starts without torch.

    `modules`: name -> ("module:name" in `package`, one line for --help), where that is a stage or a command.
    `title` heads the list.
    """

    def __init__(
        self,
        *arguments: Any,
        package: str,
        modules: Mapping[str, tuple[str, str]],
        title: str = "Commands",
        **attributes: Any,
    ) -> None:
        super().__init__(*arguments, **attributes)
        self._package, self._modules, self._title = package, modules, title

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._modules)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self._modules:
            return None
        module, _, attribute = self._modules[name][0].partition(":")
        found = getattr(import_module(f"{self._package}.{module}"), attribute)
        return stage_command(found) if isinstance(found, Stage) else found

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        lines = {name: line for name, (_, line) in self._modules.items() if name.startswith(incomplete)}
        names = [CompletionItem(name, help=line) for name, line in lines.items()]
        return names + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section(self._title):
            formatter.write_dl([(name, line) for name, (_, line) in self._modules.items()])
