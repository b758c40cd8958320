"""The command `clipvip-data shard`."""

from clipvip.pipeline.runtime.stage import stage_command
from clipvip.pipeline.shard.stage import shard

command = stage_command(
    shard,
    epilog="""\b
Examples:
  clipvip-data shard --metadata clips.jsonl --videos videos/ --subtitles subtitles/ --out clips/
  clipvip-data shard --metadata clips.jsonl --videos s3://bucket/videos --out s3://bucket/clips
  clipvip-data shard --dataset msrvtt/1ka --annotations msrvtt/ --videos videos/ --out shards/msrvtt-1ka
""",
)
