"""The command `clipvip-data clips`."""

from clipvip.pipeline.clips.stage import clips
from clipvip.pipeline.runtime.stage import stage_command

command = stage_command(
    clips,
    epilog="""\b
Examples:
  clipvip-data clips videos/ --out clips.jsonl
  clipvip-data clips videos/ --out clips.jsonl --by shots --seconds 12
  clipvip-data clips videos/ --out clips.jsonl --by subtitles --subtitles subtitles/
""",
)
