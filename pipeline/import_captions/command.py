"""The command `clipvip-data import-captions`."""

from clipvip.pipeline.import_captions.stage import import_captions
from clipvip.pipeline.runtime.stage import stage_command

command = stage_command(
    import_captions,
    epilog="""\b
Examples:
  clipvip-data import-captions --shards clips/ --from captions.jsonl --out captions/
  clipvip-data import-captions --shards clips/ --from hdvila_ofa_captions_db/ --out captions/
""",
)
