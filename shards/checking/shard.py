"""What is wrong with a shard or a caption file: their bytes, their structure, and whether pixels decode."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from clipvip.media.errors import MediaError, one_line
from clipvip.shards.checking.findings import Findings, Problem
from clipvip.shards.errors import DatasetError
from clipvip.shards.files.claims import Options
from clipvip.shards.files.hashes import sha256_of_file
from clipvip.shards.files.places import at_hand, is_file, size_of
from clipvip.shards.files.stores import Location
from clipvip.shards.format.captions import CaptionFile, Origin, is_made_of, read_caption_file
from clipvip.shards.format.clip import FRAMES_EXTENSION, make_key
from clipvip.shards.format.manifest import ShardRecord
from clipvip.shards.format.record import ClipRecord
from clipvip.shards.tar.index import SampleSpan, ShardFile
from clipvip.shards.tar.members import read_text_member
from clipvip.shards.tar.reader import (
    DEFAULT_MAX_PIXELS,
    EMPTY_SHARD,
    Sample,
    WrongMembers,
    read_record,
)

# Of a long clip that is stored as video, so many pictures are in memory at a time.
_PICTURES_AT_ONCE = 32
# Frames may be a millisecond before their clip (see `cutting`), and times are rounded.
_SPAN_TOLERANCE_SECONDS = 0.0011


@dataclass
class ShardCheck:
    """What a shard holds and what is wrong with it. `keys` are those of all its samples, also of bad ones."""

    name: str
    keys: list[str] = field(default_factory=list)
    num_frames: int = 0
    num_without_subtitle: int = 0
    num_decoded: int = 0
    findings: Findings = field(default_factory=Findings)

    def note(self, kind: str, key: str, detail: str) -> None:
        self.findings.add(Problem(kind, self.name, key, detail))


def check_shard(
    path: Location,
    *,
    record: ShardRecord | None,
    places: Callable[[int], Sequence[int]],
    decode: Callable[[Sample], None],
    max_pixels: int = DEFAULT_MAX_PIXELS,
    heartbeat: Callable[[], None] = lambda: None,
) -> ShardCheck:
    """Compare a shard with its `record`, check the record of every sample, and decode some.

    `places(n)` says which of `n` samples to hand to `decode`, which raises DatasetError for a bad one.
    Kinds of problems: `missing`, `size_differs`, `checksum_differs`, `samples_differ` (from the record),
    `damaged_tar`, `duplicate_key`, `wrong_members`, `wrong_record`, `undecodable`,
    `empty_shard` (of one that no manifest lists).
    """
    found = ShardCheck(path.name)
    if not is_file(path):
        found.note("missing", "", "no such file")
        return found
    if record is not None:
        _check_bytes(found, path, record, heartbeat)
    with at_hand(path, heartbeat=heartbeat), ShardFile(path) as shard:
        spans, damage = shard.index()
        if damage:
            found.note("damaged_tar", "", _without_path(damage, path))
        found.keys = [span.key for span in spans]
        if not spans and record is None and not found.findings.counts:
            found.note(EMPTY_SHARD, "", "holds no samples")
        if record is not None and len(spans) != record.num_samples:
            found.note("samples_differ", "", f"holds {len(spans)} samples, {record.num_samples} listed")
        for key, count in Counter(found.keys).items():
            if count > 1:
                found.note("duplicate_key", key, f"{count} times in one shard")
        wanted = set(places(len(spans)))
        for place, span in enumerate(spans):
            heartbeat()
            _check_sample(found, shard, span, decode if place in wanted else None, max_pixels)
    return found


def _check_bytes(
    found: ShardCheck, path: Location, record: ShardRecord, heartbeat: Callable[[], None]
) -> None:
    size = size_of(path)
    if size != record.num_bytes:
        found.note("size_differs", "", f"{size} bytes, {record.num_bytes} listed")
        return
    digest = sha256_of_file(path, heartbeat=heartbeat)
    if digest != record.sha256:
        found.note("checksum_differs", "", f"sha256 {digest[:12]}…, {record.sha256[:12]}… listed")


def _check_sample(
    found: ShardCheck,
    shard: ShardFile,
    span: SampleSpan,
    decode: Callable[[Sample], None] | None,
    max_pixels: int,
) -> None:
    try:
        extension, record, is_foreign = read_record(shard, span, max_pixels=max_pixels)
        text = b"" if is_foreign else read_text_member(shard, span, "txt")
        for detail in () if is_foreign else _disagreements(record, span, text):
            raise DatasetError(detail)
    except WrongMembers as error:
        found.note("wrong_members", span.shown_key, str(error))
        return
    except DatasetError as error:
        kind = "undecodable" if isinstance(error.__cause__, MediaError) else "wrong_record"
        found.note(kind, span.shown_key, _without_path(one_line(error), shard.path))
        return
    found.num_frames += len(record.frame_seconds)
    found.num_without_subtitle += not record.has_text
    if decode is None:
        return
    found.num_decoded += 1
    try:
        decode(Sample(span.key, record, extension, shard.read(span, extension), max_pixels))
    except DatasetError as error:
        found.note("undecodable", span.key, _without_path(one_line(error), shard.path))


def _disagreements(record: ClipRecord, span: SampleSpan, text: bytes) -> Iterator[str]:
    """What KEY.json says otherwise than its neighbours, its key or itself."""
    extension = span.extension
    assert extension is not None
    number = record.key.rpartition("_")[2]
    if record.key != span.key:
        yield f"key: {record.key[:100]!r} under another name"
    elif not number.isdecimal() or make_key(record.video_id, int(number)) != record.key:
        yield f"key: not that of a clip of video {record.video_id[:80]!r}"
    if text != record.subtitle.encode("utf-8", "surrogatepass"):
        yield "subtitle: not the text of KEY.txt"
    if (record.sentences is None) != (record.sentences_are is None):
        yield "sentences: only one of sentences and sentences_are is there"
    start, end = record.span_seconds
    if not (start < end or (start == end and len(record.frame_seconds) == 1)):  # a picture takes no time
        yield f"span_seconds: [{start}, {end}) is empty"
    seconds = record.frame_seconds
    if any(a >= b for a, b in pairwise(seconds)):
        yield "frame_seconds: not in order"
    if not start - _SPAN_TOLERANCE_SECONDS <= seconds[0] <= seconds[-1] <= end + _SPAN_TOLERANCE_SECONDS:
        yield f"frame_seconds: {seconds[0]} to {seconds[-1]} lie outside of [{start}, {end})"
    lengths, size = record.frame_bytes, span.members[extension][1]
    if extension == FRAMES_EXTENSION and (len(lengths) != len(seconds) or sum(lengths) != size):
        found = f"{sum(lengths)} bytes in {len(lengths)} frames"
        yield f"frame_bytes: {found} of {size} bytes, {len(seconds)} times"
    if extension != FRAMES_EXTENSION and lengths:
        yield "frame_bytes: stands in a clip that is stored as video"


def decode_all(sample: Sample) -> None:
    """Decode every frame of a sample; DatasetError: one does not, or its size is not the record's."""
    at_once = 1 if sample.extension == FRAMES_EXTENSION else _PICTURES_AT_ONCE
    for first in range(0, sample.num_frames, at_once):
        sample.decode(range(first, min(first + at_once, sample.num_frames)))


def check_captions(
    path: Location,
    *,
    keys: Sequence[str],
    shard: Location,
    options: Options | None,
    record: ShardRecord | None,
    shard_sha256: str | None = None,
) -> Findings:
    """What is wrong with the caption file of the file `shard` that holds `keys`.

    `options` are those that its folder's manifest gives, `record` what it says of this file.
    Kinds of problems: `captions_missing`, `captions_unreadable`, `captions_checksum_differs`,
    `captions_of_another_shard` (missing or foreign keys among them), `captions_options_differ`.
    """
    found = Findings()

    def note(kind: str, detail: str, key: str = "") -> None:
        found.add(Problem(kind, path.name, key, detail))

    if not is_file(path):
        note("captions_missing", "no such file")
        return found
    if record is not None and sha256_of_file(path) != record.sha256:
        note("captions_checksum_differs", "the content is not what the manifest lists")
    try:
        content = read_caption_file(path, with_origins=True)
    except DatasetError as error:
        note("captions_unreadable", _without_path(one_line(error), path))
        return found
    num_bytes = size_of(shard)
    if not is_made_of(content.source, num_bytes=num_bytes, sha256=shard_sha256):
        here = f"{num_bytes} bytes" + (f", sha256 {shard_sha256}" if shard_sha256 else "")
        note("captions_of_another_shard", f"made of a shard of {content.source}, this has {here}")
    for key, detail in _key_differences(content, keys):
        note("captions_of_another_shard", detail, key)
    if options is not None and content.origins - {_origin_of(options)}:
        note("captions_options_differ", "made by another model or other options than the manifest says")
    return found


def _key_differences(content: CaptionFile, keys: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each key that the file has too much or too little."""
    captioned = [row.key for row in content.rows]
    answered = set(captioned) | {skip.what for skip in content.skips if skip.reason != EMPTY_SHARD}
    for key in sorted(answered - set(keys)):
        yield key, "not in the shard"
    for key in keys:
        if key not in answered:
            yield key, "neither captioned nor skipped"
    places = {key: place for place, key in enumerate(keys)}
    order = [places[key] for key in captioned if key in places]
    if np.any(np.diff(order) <= 0):
        yield "", "its rows are not in the shard's order"


def _origin_of(options: Options) -> Origin:
    """What the rows say whose folder's manifest has `options`."""
    rest = {n: v for n, v in options.items() if n not in ("model", "revision", "model_sha256")}
    text = json.dumps(rest, sort_keys=True, ensure_ascii=False)
    return Origin(str(options.get("model", "")), str(options.get("revision", "")), text)


def _without_path(message: str, path: Location) -> str:
    text = message.removeprefix(f"{path}: ")
    return text.removesuffix("; make this shard again").removesuffix("; make it again")
