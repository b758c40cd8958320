"""What worker processes of `clipvip-data import-captions` do: list a shard, match rows, write a file."""

from dataclasses import dataclass
from pathlib import Path

from clipvip.pipeline.import_captions.matching import KnownClip, clips_of_shard, match_rows
from clipvip.shards.errors import Skip
from clipvip.shards.files.claims import Options
from clipvip.shards.format.captions import captions_path, shard_source, write_captions
from clipvip.shards.sources.caption_rows import Columns, chained
from clipvip.shards.tar.reader import read_samples


@dataclass(frozen=True, slots=True)
class MatchTask:
    """All rows of the files, to be matched with the clips in the file `table`."""

    table: Path
    files: tuple[Path, ...]
    columns: Columns


@dataclass(frozen=True, slots=True)
class WriteTask:
    """Number `number` of the shards, whose captions are to be written. `sha256`: as a manifest says it."""

    number: int
    shard: Path
    sha256: str | None
    table: Path
    out: Path
    made_by: Options


def list_clips(task: tuple[int, Path]) -> list[KnownClip]:
    """The clips of a shard in its order; those that cannot be captioned as what is said of them.

    Raises DatasetError where the shard is damaged as a whole.
    """
    clips = []
    keys: set[str] = set()
    for sample in read_samples(task[1], with_pixels=False):
        if isinstance(sample, Skip):
            clips.append(KnownClip(skip=sample))
        elif sample.key in keys:
            twice = Skip("duplicate_key", sample.key, "another clip of this shard has the same")
            clips.append(KnownClip(skip=twice))
        else:
            keys.add(sample.key)
            clips.append(KnownClip(sample.key, sample.clip_id))
    return clips


def match_files(task: MatchTask) -> None:
    """Match the rows. Raises as `read_caption_rows`."""
    match_rows(task.table, chained(list(task.files), task.columns))


def write_file(task: WriteTask) -> tuple[int, int]:
    """Write the caption file of one shard; how many clips have captions there, and how many have none."""
    rows: list[tuple[str, str]] = []
    alternatives: dict[str, list[str]] = {}
    skips: list[Skip] = []
    for clip in clips_of_shard(task.table, task.number):
        if clip.skip is not None:
            skips.append(clip.skip)
        elif not clip.captions:
            skips.append(Skip("missing_caption", clip.key, "no row is of this clip"))
        else:
            rows.append((clip.key, clip.captions[0]))
            if len(clip.captions) > 1:
                alternatives[clip.key] = clip.captions
    write_captions(
        captions_path(task.out, task.shard.stem),
        rows,
        model=str(task.made_by["model"]),
        options={name: value for name, value in task.made_by.items() if name not in ("model", "revision")},
        skips=skips,
        source=shard_source(task.shard, task.sha256),
        alternatives=alternatives,
    )
    return len(rows), len(skips)
