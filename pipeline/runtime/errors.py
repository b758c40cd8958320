"""How a command fails: one line that says what is wrong and what to do, and an exit code.

Exit codes: 0 done, 1 the input or environment is at fault, 2 the command line is, 130 interrupted.
"""

from typing import Any

import click

from clipvip.model.errors import CheckpointError
from clipvip.shards.atomic import NO_ROOM
from clipvip.shards.errors import DatasetError


class UserError(click.ClickException):
    """What the user gave cannot be used; the message is one line and says what to do."""

    exit_code = 1


class StageCommand(click.Command):
    """A command whose expected failures are one line on the terminal instead of a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (DatasetError, CheckpointError) as error:
            raise UserError(" ".join(str(error).split())) from error
        except OSError as error:
            raise UserError(_describe(error)) from error
        except KeyboardInterrupt:
            click.echo("\nInterrupted. Finished work is kept: the same command goes on from here.", err=True)
            ctx.exit(130)


def _describe(error: OSError) -> str:
    if error.filename is None:
        return " ".join(str(error).split())
    hint = "; make room, then the same command goes on from here" if error.errno in NO_ROOM else ""
    return f"{error.filename}: {(error.strerror or type(error).__name__).lower()}{hint}"
