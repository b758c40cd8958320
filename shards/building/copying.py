"""Copy samples from shards into a new one, byte for byte, and their captions along."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from clipvip.shards.building.marks import ShardMark, shard_path
from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.files.atomic import atomic_path
from clipvip.shards.files.places import size_of
from clipvip.shards.files.stores import Location
from clipvip.shards.files.text import parse_object
from clipvip.shards.format.captions import (
    FRAME_SKIP,
    Caption,
    Origin,
    SeenFrame,
    is_made_of,
    read_caption_file,
    shard_source,
    write_captions,
)
from clipvip.shards.format.manifest import ShardRecord
from clipvip.shards.tar.headers import TAR_BLOCK_BYTES
from clipvip.shards.tar.index import SampleSpan, ShardFile
from clipvip.shards.tar.reader import read_record

_TAR_RECORD_BYTES = 20 * TAR_BLOCK_BYTES


@dataclass(frozen=True, slots=True)
class Piece:
    """Samples of one shard: those at `places`, ascending, in it. `captions` are the shard's caption files."""

    path: Location
    places: tuple[int, ...]
    captions: tuple[Location, ...] = ()


def copy_samples(
    out: Location, shard: int, pieces: Sequence[Piece], *, sha256: str | None = None
) -> ShardMark:
    """Write the samples of `pieces` in their order as that shard of `out`, all or nothing; its mark.

    All samples of one shard give the same bytes again. Raises DatasetError where a shard is damaged, ends
    before a sample, or where the checksum is not `sha256`.
    """
    path, mark, digest = shard_path(out, shard), ShardMark(shard), hashlib.sha256()
    with atomic_path(path) as temporary:
        with temporary.open("wb") as file:
            for data in _content(pieces, mark):
                file.write(data)
                digest.update(data)
            num_bytes = file.tell()
        if sha256 not in (None, digest.hexdigest()):
            raise DatasetError(
                f"{pieces[0].path}: is not what its manifest says; find out more by 'clipvip-data verify'"
            )
    num_samples = sum(len(piece.places) for piece in pieces)
    mark.record = ShardRecord(path.name, num_samples, num_bytes, digest.hexdigest())
    return mark


def _content(pieces: Sequence[Piece], mark: ShardMark) -> Iterator[bytes]:
    """A shard of such samples, piece by piece; frames and what has no text are counted in `mark`."""
    num_bytes = 0
    for piece in pieces:
        with ShardFile(piece.path) as shard:
            for span in _chosen(shard, piece.places):
                yield shard.read_span(span)
                num_bytes += span.end - span.start
                try:
                    record = read_record(shard, span).record
                except DatasetError:  # copied all the same, as a clip without frames and text
                    mark.num_without_subtitle += 1
                else:
                    mark.num_frames += len(record.frame_seconds)
                    mark.num_without_subtitle += not record.has_text
    # As `tar` and Python write it: two blocks of zeros, then more up to a multiple of 20 blocks: samples of
    # 9,728 bytes and these 1,024 make 10,752, which 9,728 more bring to 20,480.
    end = num_bytes + 2 * TAR_BLOCK_BYTES
    yield bytes(end - num_bytes + -end % _TAR_RECORD_BYTES)


def _chosen(shard: ShardFile, places: Sequence[int]) -> Iterator[SampleSpan]:
    wanted = set(places)
    for number, span in enumerate(shard.spans()):
        if number in wanted:
            wanted.remove(number)
            yield span
    if wanted:
        raise DatasetError(f"{shard.path}: has no sample {min(wanted)} any more; it was changed meanwhile")


def copy_captions(
    target: Location, pieces: Sequence[Piece], *, which: int = 0, shard: Location, sha256: str
) -> None:
    """Write the captions, and what was left out, of the samples of `pieces` for their new shard.

    Of each piece's caption files those of number `which`.

    The file is the one that captioning the new shard by the same model would give. Raises DatasetError where
    a caption file is missing or damaged, or they are of several models or options.
    """
    origins: set[Origin] = set()
    rows: list[Caption] = []
    alternatives: dict[str, list[str]] = {}
    frames: dict[str, list[SeenFrame]] = {}
    skips: list[Skip] = []
    for piece in pieces:
        path = piece.captions[which]
        content = read_caption_file(path, with_origins=True)
        if not is_made_of(content.source, num_bytes=size_of(piece.path), sha256=None):
            raise DatasetError(f"{path}: made of another shard than {piece.path}; caption it again")
        captions = dict(content.rows)
        skipped = {skip.what: skip for skip in content.skips if skip.reason != FRAME_SKIP}
        of_frames = [skip for skip in content.skips if skip.reason == FRAME_SKIP]
        origins |= content.origins
        with ShardFile(piece.path) as source:
            for span in _chosen(source, piece.places):
                if span.key in captions:
                    rows.append(Caption(span.key, captions[span.key]))
                    if span.key in content.alternatives:
                        alternatives[span.key] = content.alternatives[span.key]
                    if span.key in content.frames:
                        frames[span.key] = content.frames[span.key]
                    skips += [skip for skip in of_frames if skip.what == span.key]
                elif span.key in skipped:
                    skips.append(skipped[span.key])
    if len(origins) > 1:
        raise DatasetError(
            f"{pieces[0].captions[which]}: made by another model or other options than its neighbours; "
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
        frames=frames,
    )
