"""The command `clipvip-data transcribe`."""

from clipvip.pipeline.runtime.stage import stage_command
from clipvip.pipeline.transcribe.stage import transcribe

command = stage_command(
    transcribe,
    epilog="""\b
Examples:
  clipvip-data transcribe videos/ --out subtitles/ --model small
  clipvip-data transcribe videos/ --out subtitles/ --model large-v3 --language en --gpus 8
""",
)
