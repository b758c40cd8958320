"""A program of several commands, each imported when it is called."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

from clipvip.pipeline.runtime.errors import StageGroup


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
        self._package, self._modules, self.commands_title = package, modules, title

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._modules)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self._modules:
            return None
        module, _, attribute = self._modules[name][0].partition(":")
        found = getattr(import_module(f"{self._package}.{module}"), attribute)
        if isinstance(found, click.Command):
            return found
        from clipvip.pipeline.runtime.stage import stage_command  # 0.1 s that the list of commands saves

        return stage_command(found)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        lines = {name: line for name, (_, line) in self._modules.items() if name.startswith(incomplete)}
        names = [CompletionItem(name, help=line) for name, line in lines.items()]
        return names + click.Command.shell_complete(self, ctx, incomplete)

    def line_of(self, ctx: click.Context, name: str) -> str:
        return self._modules[name][1]
