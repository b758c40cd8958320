"""Folders of shards for `merge`, `split` and `subset`, and these commands."""

from pathlib import Path
from typing import Any

from clipvip.shards.format.manifest import write_manifest
from clipvip.shards.tar.writer import write_shard
from commands import run_well
from make_shards import stored_clip

CUT = {"fps": 3.0, "size": 32, "store": "frames", "quality": 95, "max_frames": 0}
NUM_VIDEOS, CLIPS_PER_VIDEO = 10, 4


def must(*words: object) -> str:
    """The output of `clipvip-data WORDS --workers 1`, which succeeds."""
    return run_well(*words, "--workers", 1).output


def make_folder(folder: Path, first_video: int, num_videos: int, **options: Any) -> Path:
    """Shards of `CLIPS_PER_VIDEO` clips of each of some videos, three videos to two shards."""
    folder.mkdir()
    clips = [
        stored_clip(f"video{first_video + v}", n, num_frames=2)
        for v in range(num_videos)
        for n in range(CLIPS_PER_VIDEO)
    ]
    records = [
        write_shard(folder / f"{shard:06d}.tar", clips[6 * shard : 6 * shard + 6])
        for shard in range(-(-len(clips) // 6))
    ]
    write_manifest(folder, stage="shard", options={**CUT, "shard_size": 6, **options}, shards=records)
    return folder
