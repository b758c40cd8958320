"""Read shards: samples in tar order, and the frames of a sample that are asked for."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import simplejpeg

from clipvip.media.errors import MediaError, one_line
from clipvip.media.images import decode_image, holds_pixels
from clipvip.media.sampling import uniform_indices
from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.files.places import location_of
from clipvip.shards.files.stores import Location
from clipvip.shards.format.clip import FRAMES_EXTENSION, is_safe_key
from clipvip.shards.format.record import ClipRecord, SentencesAre, parse_record
from clipvip.shards.tar.foreign import ForeignClip
from clipvip.shards.tar.index import IMAGE_EXTENSIONS, PIXEL_EXTENSIONS, SampleSpan, ShardFile
from clipvip.shards.tar.listing import list_shards as list_shards  # noqa: PLC0414 (here, too)
from clipvip.shards.tar.members import read_foreign, read_text_member, record_of

if TYPE_CHECKING:
    from clipvip.shards.format.clip_captions import ClipCaption

# A picture of 8192 x 8192 takes 200 MB, and twice to four times that while it is resized.
DEFAULT_MAX_PIXELS = 1 << 26
_CLIP_EXTENSIONS = ("json", "txt", *PIXEL_EXTENSIONS, *IMAGE_EXTENSIONS)
EMPTY_SHARD = "empty_shard"  # the one reason of a skip that names a shard and not a sample
_new = partial(np.empty, dtype=np.uint8)


@dataclass(frozen=True)
class Sample:
    """One clip read from a shard: its record and its still encoded pixels.

    `parsed` is the record, or the Skip that says why a damaged sample has none; of a sample of others that
    was read without its pixels, what is known then. A frame of more than `max_pixels` pixels is taken for
    damage, before memory is taken for it. `captions` are those of folders that were asked for.
    """

    key: str
    parsed: ClipRecord | ForeignClip | Skip
    extension: str
    pixels: bytes = field(repr=False)
    max_pixels: int = DEFAULT_MAX_PIXELS
    captions: "tuple[ClipCaption, ...]" = ()

    @property
    def record(self) -> ClipRecord:
        """What KEY.json says; DatasetError where the sample is damaged."""
        if isinstance(self.parsed, Skip):
            raise DatasetError(f"sample {self.key}: {self.problem}")
        if isinstance(self.parsed, ForeignClip):
            raise DatasetError(
                f"sample {self.key}: its times and sizes stand in its pixels, which were not read"
            )
        return self.parsed

    @property
    def problem(self) -> str:
        """What is wrong with a damaged sample; empty for others."""
        return self.parsed.detail if isinstance(self.parsed, Skip) else ""

    @property
    def clip_id(self) -> str:
        """The clip's id as its list has it; DatasetError where the sample is damaged."""
        return self.parsed.clip_id if isinstance(self.parsed, ForeignClip) else self.record.clip_id

    @property
    def video_id(self) -> str:
        """The id of the clip's video; DatasetError where the sample is damaged."""
        return self.parsed.video_id if isinstance(self.parsed, ForeignClip) else self.record.video_id

    @property
    def subtitle(self) -> str:
        return "" if isinstance(self.parsed, Skip) else self.parsed.subtitle

    @property
    def sentences(self) -> list[str]:
        """The captions that a video set's annotations have for the clip; none for other clips."""
        return [] if isinstance(self.parsed, Skip) else self.parsed.sentences or []

    @property
    def sentences_are(self) -> SentencesAre | None:
        """`alternatives`, `paragraph`, or None for clips without sentences."""
        return None if isinstance(self.parsed, Skip) else self.parsed.sentences_are

    @property
    def num_frames(self) -> int:
        """How many frames are stored; DatasetError where the sample is damaged."""
        return len(self.record.frame_seconds)

    @cached_property
    def _offsets(self) -> list[int]:
        offsets = [0, *itertools.accumulate(self.record.frame_bytes)]
        if len(offsets) != self.num_frames + 1 or offsets[-1] != len(self.pixels):
            raise DatasetError(f"sample {self.key}: its frames are not where its metadata says")
        return offsets

    def jpeg(self, index: int) -> bytes:
        """The JPEG file of frame `index` (only of shards made with `--store frames`)."""
        if self.extension != FRAMES_EXTENSION:
            raise DatasetError(f"sample {self.key} holds a video, not JPEG frames; use decode()")
        return self.pixels[self._offsets[index] : self._offsets[index + 1]]

    def decode(
        self, indices: Sequence[int] | np.ndarray, *, allocate: Callable[[tuple[int, ...]], np.ndarray] = _new
    ) -> np.ndarray:
        """Decode the frames at `indices` (any order, repeats allowed) and no others.

        Args:
            allocate: gives the array of uint8 that they are decoded into.

        Returns:
            uint8 array (len(indices), height, width, 3), RGB.

        Raises:
            DatasetError: the pixels are damaged, or not of the size that the metadata has.
        """
        wanted = [int(index) for index in indices]
        if self.extension == FRAMES_EXTENSION:
            self.checked_jpeg(wanted[0])  # before memory is taken for what the record says
            frames = allocate((len(wanted), self.record.height, self.record.width, 3))
            # A short clip asks for the same frame several times: decode each once.
            rows: dict[int, int] = {}
            for row, index in enumerate(wanted):
                if rows.setdefault(index, row) == row:
                    self._decode_jpeg(index, frames[row])
                else:
                    frames[row] = frames[rows[index]]
            return frames
        if self.extension in IMAGE_EXTENSIONS:
            picture = self._decode_image()
            frames = allocate((len(wanted), *picture.shape))
            frames[:] = picture
            return frames
        # FFmpeg takes a while to import, and only `--store video` needs it.
        from clipvip.media.mp4 import decode_mp4

        try:
            found = decode_mp4(self.pixels, wanted, max_pixels=self.max_pixels)
        except MediaError as error:
            raise DatasetError(f"sample {self.key}: its video does not decode ({error})") from error
        self._require_size(wanted[0], *found.shape[1:3])
        if allocate is _new:
            return found
        frames = allocate(found.shape)
        frames[:] = found
        return frames

    def _decode_image(self) -> np.ndarray:
        try:
            picture = decode_image(self.pixels, self.max_pixels)
        except MediaError as error:
            raise DatasetError(f"sample {self.key}: its picture does not decode ({error})") from error
        self._require_size(0, *picture.shape[:2])
        return picture

    def _decode_jpeg(self, index: int, into: np.ndarray) -> None:
        data = self.checked_jpeg(index)
        try:
            simplejpeg.decode_jpeg(data, colorspace="RGB", buffer=into)
        except ValueError as error:
            raise DatasetError(
                f"sample {self.key}: frame {index} is not a readable JPEG ({error})"
            ) from error

    def checked_jpeg(self, index: int) -> bytes:
        """As `jpeg`, but DatasetError where decoding it would take more memory than its record says."""
        data = self.jpeg(index)
        try:
            height, width, *_ = simplejpeg.decode_jpeg_header(data)
        except ValueError as error:
            raise DatasetError(
                f"sample {self.key}: frame {index} is not a readable JPEG ({error})"
            ) from error
        self._require_size(index, height, width)
        if not holds_pixels(data, height * width):
            raise DatasetError(
                f"sample {self.key}: frame {index} claims {width}x{height} in {len(data):,} bytes"
            )
        return data

    def _require_size(self, index: int, height: int, width: int) -> None:
        record, problem = self.record, ""
        if (height, width) != (record.height, record.width):
            problem = f"its record says {record.width}x{record.height}"
        elif height * width > self.max_pixels:
            problem = f"more than {self.max_pixels:,} pixels"
        if problem:
            raise DatasetError(f"sample {self.key}: frame {index} is {width}x{height}, {problem}")

    def frames(self, num_frames: int | None = None) -> np.ndarray:
        """`num_frames` evenly spread frames, as `ClipVip.encode_video` takes them of a file; None: all.

        Returns:
            uint8 array (frames, height, width, 3), RGB.

        Raises:
            DatasetError: as `decode`.
        """
        total = self.num_frames
        return self.decode(uniform_indices(total, total if num_frames is None else num_frames))

    def middle_frame(self) -> np.ndarray:
        """The frame that stands for the clip, index N//2 as in the reference: uint8 (height, width, 3)."""
        return self.decode([self.num_frames // 2])[0]


def read_shard(
    path: Location | str, *, with_pixels: bool = True, captions: Sequence[Location | str] = ()
) -> Iterator[Sample]:
    """Yield the samples of the tar file `path` in their order, with b"" for pixels if not `with_pixels`.

    Members that are not part of a sample are ignored. A damaged sample is yielded, so that it can be
    counted: it has a `problem`, and asking it for frames raises DatasetError.

    Args:
        captions: folders that `clipvip-data caption` wrote. A sample's `captions` are those of all of them,
            each with the model that made it and the frame that it is of.

    Raises:
        DatasetError: not a tar file, or damaged; samples before the damage have been yielded. No folder has
            captions of the shard.

    Examples:
        >>> from clipvip.shards import read_shard
        >>> [sample.key for sample in read_shard("clips/000000.tar")][:2]
        ['video0_00000', 'video0_00001']
    """
    samples = _with_damaged(read_samples(path, with_pixels=with_pixels))
    if captions:
        # Parquet takes a while to import.
        from clipvip.shards.tar.captioned import with_captions

        samples = with_captions(samples, location_of(path), list(map(str, captions)))
    yield from samples


def _with_damaged(samples: Iterable[Sample | Skip]) -> Iterator[Sample]:
    for sample in samples:
        if isinstance(sample, Sample):
            yield sample
        elif is_safe_key(sample.what):
            yield Sample(sample.what, sample, FRAMES_EXTENSION, b"")


def read_samples(
    path: Location | str, *, with_pixels: bool = True, max_pixels: int = DEFAULT_MAX_PIXELS
) -> Iterator[Sample | Skip]:
    """As `read_shard`, but a damaged sample is yielded as the Skip that says why.

    So are clips under names that no clip has, and a shard without a clip (`empty_shard`).
    """
    is_empty = True
    with ShardFile(path) as shard:
        for span in shard.spans():
            if is_clip(span):
                is_empty = False
                yield read_sample(shard, span, with_pixels=with_pixels, max_pixels=max_pixels)
    if is_empty:
        yield empty_shard(path)


def empty_shard(path: Location | str) -> Skip:
    """What is said of a shard without a single sample: whoever gave it expects some."""
    return Skip(EMPTY_SHARD, location_of(path).name, "holds no samples")


def is_clip(span: SampleSpan) -> bool:
    """Whether these members are a clip, of ours or others, or what is left of one."""
    return span.first_of(_CLIP_EXTENSIONS) is not None


def read_sample(
    shard: ShardFile, span: SampleSpan, *, with_pixels: bool = True, max_pixels: int = DEFAULT_MAX_PIXELS
) -> Sample | Skip:
    """One clip of a shard; a Skip (`wrong_members`, `damaged_sample`) where its record cannot be trusted.

    A sample of others has the record that follows from its members.
    """
    try:
        foreign = read_foreign(shard, span)
        if foreign is not None and not with_pixels:
            return Sample(span.key, foreign, foreign.extension, b"", max_pixels)
        if foreign is not None:
            pixels = shard.read(span, foreign.extension)
            record = record_of(foreign, pixels, max_pixels=max_pixels)
            return Sample(span.key, record, foreign.extension, pixels, max_pixels)
    except DatasetError as error:
        return Skip("damaged_sample", span.shown_key, one_line(error))
    extension = span.first_of(PIXEL_EXTENSIONS)
    problem = span.problem
    if not is_safe_key(span.key):
        problem = "its name is not that of a clip"
    elif extension is None or "json" not in span.members:
        problem = problem or f"its members are {', '.join(span.members)[:200]}"
    if problem or extension is None:
        return Skip("wrong_members", span.shown_key, problem)
    try:
        data = read_text_member(shard, span, "json")
        sample = parse_sample(span.key, data, extension, b"", max_pixels=max_pixels)
        return replace(sample, pixels=shard.read(span, extension)) if with_pixels else sample
    except DatasetError as error:
        return Skip("damaged_sample", span.key, one_line(error))


class WrongMembers(DatasetError):
    """A sample is not whole: not as clipvip writes it, and not one of others."""


class WholeSample(NamedTuple):
    """What a sample says: the extension of its pixels, its record, and whether others made it."""

    extension: str
    record: ClipRecord
    is_foreign: bool


def read_record(shard: ShardFile, span: SampleSpan, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> WholeSample:
    """The record of a sample, which must be whole; of one of others it is made of its pixels.

    One of ours must have its members as they are written. Raises WrongMembers, or else DatasetError where
    the record is damaged, or the pixels that that of others is made of.
    """
    foreign = read_foreign(shard, span)
    if foreign is not None:
        pixels = shard.read(span, foreign.extension)
        record = record_of(foreign, pixels, max_pixels=max_pixels)
        return WholeSample(foreign.extension, record, is_foreign=True)
    if span.extension is None or not is_safe_key(span.key):
        raise WrongMembers(span.problem or f"its members are {', '.join(span.members)[:200]!r}")
    record = parse_record(read_text_member(shard, span, "json"))
    return WholeSample(span.extension, record, is_foreign=False)


def parse_sample(key: str, data: bytes, extension: str, pixels: bytes, *, max_pixels: int) -> Sample:
    """A clip from the bytes of its members; DatasetError: the record is damaged, or another clip's."""
    record = parse_record(data)
    if record.key != key or not is_safe_key(key):
        raise DatasetError(f"key: {record.key[:100]!r} under another name")
    return Sample(key, record, extension, pixels, max_pixels)
