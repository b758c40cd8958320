"""The command `clipvip-data download`."""

from clipvip.pipeline.download.stage import download
from clipvip.pipeline.runtime.stage import stage_command

command = stage_command(
    download,
    epilog="""\b
Examples:
  clipvip-data download --metadata clips.jsonl --out videos/
  clipvip-data download --metadata ids.txt --out videos/ --subtitle-languages en,de --rate-limit 20M
""",
)
