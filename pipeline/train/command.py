"""The command `clipvip-train`."""

import click

from clipvip import __version__
from clipvip.pipeline.runtime.stage import stage_command
from clipvip.pipeline.train.stage import train

_EPILOG = """Exit codes: 0 training is complete, 1 what was given cannot be used, 2 wrong options, 130 stopped
by Ctrl-C, 143 by SIGTERM; after the last two a checkpoint of the step just done is in the folder.

\b
Examples:
  clipvip-train pretrain_vip_b32 --shards clips/ --captions captions/ --init openai/clip-vit-base-patch32 \\
      --out runs/b32 --gpus 8
  clipvip-train finetune_didemo_b32 --shards didemo-train/ --validation didemo-val/ --test didemo-test/ \\
      --init runs/b32/model --select best --out runs/didemo
  clipvip-train demo --shards clips/ --captions captions/ --init clip/ --out run --dry-run
"""

main = click.version_option(__version__, package_name="clipvip")(
    stage_command(train, name="main", epilog=_EPILOG)
)
