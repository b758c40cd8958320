"""How a command ends early: one line that says what is wrong and what to do, and an exit code.

Exit codes: 0 done, 1 the input or environment is at fault, 2 the command line is, 130 stopped by Ctrl-C, 143
by SIGTERM.
"""

import difflib
import inspect
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from clipvip.extras import MissingPackage
from clipvip.media.errors import one_line
from clipvip.model.errors import CheckpointError
from clipvip.pipeline.runtime.memory import is_out_of_memory, out_of_memory_line
from clipvip.pipeline.runtime.stopping import Stopped, Stopping, exit_code, leave
from clipvip.plugins import PluginError
from clipvip.shards.errors import NO_ROOM, DatasetError, TextEncodingWarning


class UserError(click.ClickException):
    """What the user gave cannot be used; the message is one line and says what to do."""

    exit_code = 1


class WrongOptions(click.UsageError, UserError):
    """Options that do not go together; a command also says how it is used, and ends in 2."""


_URL = re.compile(r"(?:[^=/]*=)?[A-Za-z][A-Za-z0-9+.-]*://")  # also NAME=URL
_GOES_ON = "Stopped. What is finished is kept: the same command goes on from here."
_MAY_BE_EMPTY = {"prompt", "captions"}  # of a recipe with captions an empty one takes them away
_LEAVING_SECONDS = 60.0  # for what libraries put away, such as a cluster of Ray
_STARTS_OVER = "Stopped. Nothing of this run is kept: the same command starts over."


class Program(click.Command):
    """A command that, run as a program, ends its process by `leave`."""

    def main(self, args: Sequence[str] | None = None, *more: Any, **attributes: Any) -> Any:
        if args is not None or not attributes.get("standalone_mode", True):  # called from Python
            return super().main(args, *more, **attributes)
        try:
            super().main(args, *more, **attributes)
            code: object = 0
        except SystemExit as end:
            code = end.code
        except OSError as error:  # of --help on a full disk, before there is anything to do
            click.echo(f"Error: {_describe(error)}", err=True)
            code = UserError.exit_code
        leave(code if isinstance(code, int) else int(code is not None), within=_LEAVING_SECONDS)


class StageCommand(Program):
    """A command whose expected failures are one line on the terminal instead of a traceback.

    `resumable` says whether the same command goes on where an earlier run was stopped.
    """

    def __init__(self, *arguments: Any, resumable: bool = True, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self._resumable = resumable

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
            for parameter in self.params:
                value = given.get(parameter.name)
                for text in value if isinstance(value, list | tuple) else (value,):
                    _check_word(ctx, parameter, text)
        rest = super().parse_args(ctx, args)
        require_working_folder(ctx)
        return rest

    def invoke(self, ctx: click.Context) -> Any:
        goes_on = self._resumable and not ctx.params.get("dry_run")
        with _ending_in_one_line(ctx, _GOES_ON if goes_on else _STARTS_OVER):
            return super().invoke(ctx)


class StageGroup(Program, click.Group):
    """A program of several commands, which may be stopped while the one that is asked for is imported."""

    commands_title = "Commands"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, args)
        require_working_folder(ctx)
        return rest

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not (ctx.resilient_parsing or name.startswith("-") or self.get_command(ctx, name)):
            known = self.list_commands(ctx)
            hint = nearest(name, known) or f"; give one of {', '.join(known)}"
            raise click.UsageError(f"no such command '{name}'{hint}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        if os.environ.get("NO_COLOR"):  # no-color.org; off a terminal Click leaves colours out by itself
            ctx.color = False
        with _ending_in_one_line(ctx, _STARTS_OVER):
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with what each does: a whole sentence, where Click's list cuts it off."""
        with formatter.section(self.commands_title):
            formatter.write_dl([(name, self.line_of(ctx, name)) for name in self.list_commands(ctx)])

    def line_of(self, ctx: click.Context, name: str) -> str:
        """What --help of the program says of a command: the first sentence of the command's own."""
        command = self.get_command(ctx, name)
        assert command is not None
        paragraph = inspect.cleandoc(command.help or "").partition("\n\n")[0]
        return re.split(r"(?<=\.)\s+(?=[A-Z])", paragraph, maxsplit=1)[0].replace("\n", " ")


def nearest(word: str, known: Iterable[str]) -> str:
    """What to add to "no such thing" where some of the `known` are near to `word`; else nothing."""
    plain = {one.lower().replace("_", "-"): one for one in known}
    given = word.lower().replace("_", "-")
    close = [given] if given in plain else difflib.get_close_matches(given, plain, n=3, cutoff=0.6)
    close = close or [one for one in plain if len(given) > 2 and given in one][:3]
    return f"; did you mean {' or '.join(repr(plain[one]) for one in close)}?" if close else ""


def _check_word(ctx: click.Context, parameter: click.Parameter, text: object) -> None:
    """Refuse nothing for something, and a URL for a path, before it is looked for on the disk, or made there.

    An empty word is mostly a variable of the shell that is not set. As a path it would be the working
    directory, to be read from or written to.
    """
    if text == "" and parameter.name not in _MAY_BE_EMPTY:
        raise click.BadParameter("is empty; give a value, or leave it out", ctx=ctx, param=parameter)
    kind = parameter.type
    if isinstance(kind, click.Path) or getattr(kind, "func", None) is Path:
        require_local(parameter.opts[0], text)


def require_local(name: str, value: object) -> None:
    """Refuse a URL where only a path is of use.

    Raises:
        UserError: `value` is a URL; `name` is the option or setting that has it.
    """
    if isinstance(value, str) and _URL.match(value):
        shown = f"{name} " if name.startswith("-") or "." in name else ""
        raise UserError(f"{shown}{value}: a URL cannot be used here; give a path on this machine's disk")


def require_working_folder(ctx: click.Context) -> None:
    """Refuse, with a `UserError`, to work in a folder that is gone, where no relative path means anything."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        if not ctx.resilient_parsing:
            raise UserError("the working directory has been removed; change to another one") from error


@contextmanager
def _ending_in_one_line(ctx: click.Context, when_stopped: str) -> Iterator[None]:
    with Stopping(), warnings.catch_warnings():
        warnings.showwarning = _in_one_line(warnings.showwarning)
        try:
            yield
        except (DatasetError, CheckpointError, PluginError, MissingPackage) as error:
            raise UserError(one_line(error)) from error
        except BrokenPipeError:
            raise  # whoever reads the output has enough, which Click ends quietly
        except EOFError as error:
            # Click takes it for the end of an answer at a prompt, and says no more than "Aborted!".
            raise RuntimeError("data ended too early") from error
        except (MemoryError, OSError, ImportError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise UserError(out_of_memory_line(error)) from error
            if isinstance(error, OSError):
                raise UserError(_describe(error)) from error
            raise
        except KeyboardInterrupt as error:
            said = error.message if isinstance(error, Stopped) else when_stopped
            # Of processes that train together the first speaks for all.
            if said and os.environ.get("RANK", "0") == "0":
                click.echo(said, err=True)
            ctx.exit(exit_code(error))


def _in_one_line(show: Callable[..., None]) -> Callable[..., None]:
    """What shows warnings: one about a file that the user gave without a place in our code."""

    def shown(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, TextEncodingWarning):
            click.echo(str(message), err=True)
        else:
            show(message, category, *place, **more)

    return shown


def _describe(error: OSError) -> str:
    if error.filename is None:
        return (error.strerror or "").lower() or one_line(error)
    hint = "; make room, then the same command goes on from here" if error.errno in NO_ROOM else ""
    return f"{error.filename}: {(error.strerror or type(error).__name__).lower()}{hint}"
