"""The command `clipvip-train`."""

import click

from clipvip import __version__
from clipvip.pipeline.runtime.stage import stage_command
from clipvip.pipeline.train.stage import train

main = click.version_option(__version__, package_name="clipvip")(stage_command(train))
