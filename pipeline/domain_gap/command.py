"""The command `clipvip-data nmi`."""

from clipvip.pipeline.domain_gap.stage import nmi
from clipvip.pipeline.runtime.stage import stage_command

command = stage_command(
    nmi,
    epilog="""\b
Examples:
  clipvip-data nmi --source subtitles=clips/ --source captions=captions/ --target mine=queries.txt \\
      --model openai/clip-vit-base-patch32 --out nmi/
""",
)
