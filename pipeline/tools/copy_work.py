"""What worker processes of merge, split and subset do: list the keys of a shard, and write a new one."""

from dataclasses import dataclass

import numpy as np

from clipvip.shards.building.copying import Piece, copy_captions, copy_samples
from clipvip.shards.building.marks import ShardMark, shard_path, write_mark
from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.files.hashes import key_hashes, sha256_of_file
from clipvip.shards.files.places import size_of
from clipvip.shards.files.stores import Location
from clipvip.shards.format.captions import captions_path
from clipvip.shards.format.clip import is_safe_key, video_of_key
from clipvip.shards.format.manifest import ShardRecord
from clipvip.shards.tar.foreign import is_foreign_key
from clipvip.shards.tar.index import ShardFile
from clipvip.shards.tar.reader import empty_shard


@dataclass(frozen=True, slots=True)
class SurveyTask:
    """One shard whose keys are wanted: number `number` of all inputs.

    Hashes are of keys, or with `by_video` of the part of the key that stands for the video. With `check` the
    whole shard is compared with its `record`'s checksum, else only its length.
    """

    number: int
    path: Location
    record: ShardRecord | None
    seed: int
    by_video: bool
    check: bool


@dataclass(frozen=True, slots=True)
class SurveyedShard:
    """The places in a shard of what can be copied, a hash for each, and what cannot be copied."""

    places: np.ndarray
    hashes: np.ndarray
    skips: list[Skip]


@dataclass(frozen=True, slots=True)
class CopyTask:
    """One new shard of `out`, and its file in each of `captions_out`. `sha256`: what must come of it."""

    number: int
    out: Location
    pieces: tuple[Piece, ...]
    captions_out: tuple[Location, ...]
    sha256: str | None

    @property
    def num_samples(self) -> int:
        return sum(len(piece.places) for piece in self.pieces)


def survey_shard(task: SurveyTask) -> SurveyedShard:
    """List a shard by its headers; a DatasetError where it is damaged, or not what its record says."""
    if task.record is not None:
        same = size_of(task.path) == task.record.num_bytes
        if not same or (task.check and sha256_of_file(task.path) != task.record.sha256):
            raise DatasetError(
                f"{task.path}: is not what its manifest says; find out more by 'clipvip-data verify'"
            )
    places, texts, skips = [], [], []
    with ShardFile(task.path) as shard:
        for place, span in enumerate(shard.spans()):
            is_ours = span.extension is not None and is_safe_key(span.key)
            if not is_ours and (span.foreign_extension is None or not is_foreign_key(span.key)):
                skips.append(Skip("wrong_members", span.key[:100], f"{task.path.name}: not a whole sample"))
                continue
            places.append(place)
            texts.append(video_of_key(span.key) if task.by_video else span.key)
    if not (places or skips):
        skips.append(empty_shard(task.path))
    return SurveyedShard(np.array(places, np.uint32), key_hashes(texts, seed=task.seed), skips)


def copy_unit(task: CopyTask) -> ShardMark:
    """Write a new shard, then its captions, then the mark that both are done."""
    mark = copy_samples(task.out, task.number, task.pieces, sha256=task.sha256)
    path = shard_path(task.out, task.number)
    for which, folder in enumerate(task.captions_out):
        assert mark.record is not None
        target = captions_path(folder, path.stem)
        copy_captions(target, task.pieces, which=which, shard=path, sha256=mark.record.sha256)
    write_mark(task.out, mark)
    return mark
