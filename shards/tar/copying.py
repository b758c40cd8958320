"""Copy samples from shards into a new one, byte for byte, and their captions along."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.files.atomic import atomic_path
from clipvip.shards.files.text import parse_object
from clipvip.shards.format.captions import (
    Caption,
    Origin,
    is_made_of,
    read_caption_file,
    shard_source,
    write_captions,
)
from clipvip.shards.format.manifest import ShardRecord
from clipvip.shards.format.record import parse_record
from clipvip.shards.tar.headers import TAR_BLOCK_BYTES
from clipvip.shards.tar.index import SampleSpan, ShardFile
from clipvip.shards.tar.reader import read_text_member

# As `tar` and Python write it: two blocks of zeros, and then zeros up to a multiple of this.
_TAR_RECORD_BYTES = 20 * TAR_BLOCK_BYTES


@dataclass(frozen=True, slots=True)
class Piece:
    """Samples of one shard: those at `places`, ascending, in it. `captions` is the shard's caption file."""

    path: Path
    places: tuple[int, ...]
    captions: Path | None = None


@dataclass
class CopiedShard:
    """What a new shard holds."""

    record: ShardRecord
    num_frames: int
    num_without_subtitle: int


@dataclass
class _Target:
    """An open new shard and what has gone into it."""

    file: IO[bytes]
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    num_bytes: int = 0
    num_samples: int = 0
    num_frames: int = 0
    num_without_subtitle: int = 0

    def write(self, data: bytes) -> None:
        self.file.write(data)
        self.digest.update(data)
        self.num_bytes += len(data)


def copy_samples(target: Path, pieces: Sequence[Piece], *, sha256: str | None = None) -> CopiedShard:
    """Write the samples of `pieces` in their order to the shard `target`, all or nothing.

    All samples of one shard give the same bytes again. Raises DatasetError where a shard is damaged, ends
    before a sample, or where the checksum is not `sha256`.
    """
    with atomic_path(target) as temporary:
        with temporary.open("wb") as file:
            out = _Target(file)
            for piece in pieces:
                _copy_piece(out, piece)
            end = out.num_bytes + 2 * TAR_BLOCK_BYTES
            out.write(bytes(-(-end // _TAR_RECORD_BYTES) * _TAR_RECORD_BYTES - out.num_bytes))
        digest = out.digest.hexdigest()
        if sha256 is not None and digest != sha256:
            raise DatasetError(
                f"{pieces[0].path}: is not what its manifest says; find out more by 'clipvip-data verify'"
            )
    record = ShardRecord(target.name, out.num_samples, out.num_bytes, digest)
    return CopiedShard(record, out.num_frames, out.num_without_subtitle)


def _copy_piece(out: _Target, piece: Piece) -> None:
    with ShardFile(piece.path) as shard:
        for span in _chosen(shard, piece.places):
            out.write(shard.read_span(span))
            out.num_samples += 1
            try:
                record = parse_record(read_text_member(shard, span, "json"))
            except DatasetError:  # copied all the same, as a clip without frames and text
                out.num_without_subtitle += 1
            else:
                out.num_frames += len(record.frame_seconds)
                out.num_without_subtitle += not record.has_text


def _chosen(shard: ShardFile, places: Sequence[int]) -> Iterator[SampleSpan]:
    wanted = set(places)
    for number, span in enumerate(shard.spans()):
        if number in wanted:
            wanted.remove(number)
            yield span
    if wanted:
        raise DatasetError(f"{shard.path}: has no sample {min(wanted)} any more; it was changed meanwhile")


def copy_captions(target: Path, pieces: Sequence[Piece], *, shard: Path, sha256: str) -> None:
    """Write the captions, and what was left out, of the samples of `pieces` for their new shard.

    The file is the one that captioning the new shard by the same model would give. Raises DatasetError where
    a caption file is missing or damaged, or they are of several models or options.
    """
    origins: set[Origin] = set()
    rows: list[Caption] = []
    alternatives: dict[str, list[str]] = {}
    skips: list[Skip] = []
    for piece in pieces:
        assert piece.captions is not None
        content = read_caption_file(piece.captions, with_origins=True)
        if not is_made_of(content.source, num_bytes=piece.path.stat().st_size, sha256=None):
            raise DatasetError(f"{piece.captions}: made of another shard than {piece.path}; caption it again")
        captions = dict(content.rows)
        skipped = {skip.what: skip for skip in content.skips}
        origins |= content.origins
        with ShardFile(piece.path) as source:
            for span in _chosen(source, piece.places):
                if span.key in captions:
                    rows.append(Caption(span.key, captions[span.key]))
                    if span.key in content.alternatives:
                        alternatives[span.key] = content.alternatives[span.key]
                elif span.key in skipped:
                    skips.append(skipped[span.key])
    if len(origins) > 1:
        raise DatasetError(
            f"{pieces[0].captions}: made by another model or other options than its neighbours; "
            "caption all by one, or leave --captions out"
        )
    model, revision, options = next(iter(origins), Origin())
    made_of, values = shard_source(shard, sha256), parse_object(options)
    write_captions(
        target,
        rows,
        model=model,
        revision=revision,
        options=values,
        skips=skips,
        source=made_of,
        alternatives=alternatives,
    )
