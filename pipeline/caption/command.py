"""The command `clipvip-data caption`."""

from clipvip.pipeline.caption.stage import caption
from clipvip.pipeline.runtime.stage import stage_command

command = stage_command(
    caption,
    epilog="""\b
Examples:
  clipvip-data caption --shards clips/ --out captions/ --model OFA-Sys/ofa-base
  clipvip-data caption --shards clips/ --out captions/ --model ofa/ --gpus 0 --workers 4
  clipvip-data caption --shards s3://bucket/clips --out s3://bucket/captions --model OFA-Sys/ofa-base
""",
)
