"""How a command ends early: one line that says what is wrong and what to do, and an exit code.

Exit codes: 0 done, 1 the input or environment is at fault, 2 the command line is, 130 stopped by Ctrl-C, 143 by
SIGTERM.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from clipvip.model.errors import CheckpointError
from clipvip.pipeline.runtime.stopping import Stopping, exit_code
from clipvip.shards.errors import DatasetError
from clipvip.shards.object_store import NO_ROOM


class UserError(click.ClickException):
    """What the user gave cannot be used; the message is one line and says what to do."""

    exit_code = 1


_GOES_ON = "Stopped. What is finished is kept: the same command goes on from here."
_STARTS_OVER = "Stopped. Nothing of this run is kept: the same command starts over."


class StageCommand(click.Command):
    """A command whose expected failures are one line on the terminal instead of a traceback.

    `resumable` says whether the same command goes on where an earlier run was stopped.
    """

    def __init__(self, *arguments: Any, resumable: bool = True, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self._resumable = resumable

    def invoke(self, ctx: click.Context) -> Any:
        goes_on = self._resumable and not ctx.params.get("dry_run")
        with _ending_in_one_line(ctx, _GOES_ON if goes_on else _STARTS_OVER):
            return super().invoke(ctx)


class StageGroup(click.Group):
    """A program of several commands, which may be stopped while the one that is asked for is imported."""

    def invoke(self, ctx: click.Context) -> Any:
        if os.environ.get("NO_COLOR"):  # no-color.org; off a terminal Click leaves colours out by itself
            ctx.color = False
        with _ending_in_one_line(ctx, _STARTS_OVER):
            return super().invoke(ctx)


@contextmanager
def _ending_in_one_line(ctx: click.Context, when_stopped: str) -> Iterator[None]:
    with Stopping():
        try:
            yield
        except (DatasetError, CheckpointError) as error:
            raise UserError(" ".join(str(error).split())) from error
        except BrokenPipeError:
            raise  # whoever reads the output has enough, which Click ends quietly
        except OSError as error:
            raise UserError(_describe(error)) from error
        except KeyboardInterrupt as error:
            if (
                os.environ.get("RANK", "0") == "0"
            ):  # of processes that train together the first speaks for all
                click.echo(when_stopped, err=True)
            ctx.exit(exit_code(error))


def _describe(error: OSError) -> str:
    if error.filename is None:
        return " ".join(str(error).split())
    hint = "; make room, then the same command goes on from here" if error.errno in NO_ROOM else ""
    return f"{error.filename}: {(error.strerror or type(error).__name__).lower()}{hint}"
