"""Folders of shards for `merge`, `split` and `subset`, and these commands."""

from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from clipvip.pipeline.cli import main
from clipvip.shards.format.manifest import write_manifest
from clipvip.shards.tar.reader import Sample, list_shards, read_shard
from clipvip.shards.tar.writer import write_shard
from make_shards import stored_clip

CUT = {"fps": 3.0, "size": 32, "store": "frames", "quality": 95, "max_frames": 0}
NUM_VIDEOS, CLIPS_PER_VIDEO = 10, 4


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def must(*arguments: object) -> str:
    result = run(*arguments, "--workers", 1)
    assert result.exit_code == 0, result.output
    return result.output


def samples(folder: Path) -> dict[str, Sample]:
    found = [sample for path in list_shards(folder) for sample in read_shard(path)]
    assert len({sample.key for sample in found}) == len(found)
    return {sample.key: sample for sample in found}


def content(out: Path) -> dict[str, bytes]:
    files = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    return {name: data for name, data in files.items() if not name.endswith("report.json")}


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
