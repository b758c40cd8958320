"""One sample: from its bytes in a shard to the frames and texts that the model is given.

What cannot be used is a Skip here and nowhere else; what takes its place is decided in batches.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import lru_cache, partial

import numpy as np
import simplejpeg
import torch

from clipvip.media.errors import MediaError, one_line
from clipvip.media.images import decode_image
from clipvip.media.sampling import jittered_indices, middle_index, random_subsets, uniform_indices
from clipvip.model.seen import EVERYTHING, Seen, num_kept
from clipvip.pipeline.loading.pixels import PixelsWriter
from clipvip.pipeline.train.shard_set import ShardReader, ShardSet
from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.format.clip import FRAMES_EXTENSION
from clipvip.shards.format.clip_captions import ShardCaptions, captions_of_shard
from clipvip.shards.tar.index import IMAGE_EXTENSIONS, SampleSpan, ShardFile
from clipvip.shards.tar.members import read_text_member
from clipvip.shards.tar.reader import DEFAULT_MAX_PIXELS, Sample, read_sample
from clipvip.shards.tar.streaming import resize

_CAPTION_FILES_KEPT = 64


@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """What is wanted of a sample."""

    num_frames: int
    jitter: bool
    fast_decode: bool
    needs_subtitle: bool
    needs_caption: bool
    needs_frame: bool
    captions: tuple[str, ...] = ()
    num_captions: int = 1  # the most of a sample that are encoded
    first_counts: bool = False  # of the folders of captions: see `captions_of_shard`
    max_pixels: int = DEFAULT_MAX_PIXELS
    # The fractions of the frames, and of the patches of each frame, that are left out at random.
    drop_frames: float = 0.0
    drop_patches: float = 0.0

    @property
    def kept_frames(self) -> int:
        """Frames of a sample that are decoded and seen."""
        return num_kept(self.num_frames, self.drop_frames)

    @property
    def frames_of_row(self) -> int:
        """Of a sample, the middle frame counted again where it is wanted."""
        return self.kept_frames + self.needs_frame

    def kept_patches(self, num_patches: int) -> int:
        """Of that many in a frame, those that are seen."""
        return num_kept(num_patches, self.drop_patches)

    @property
    def texts_of_row(self) -> int:
        """The most texts of a sample: its subtitle and its captions."""
        return self.needs_subtitle + self.needs_caption * self.num_captions


@dataclass(frozen=True)
class Example:
    """What a sample is besides its frames. `text` is the subtitle, or an image's own text.

    Where some are dropped, `frames` (kept frames,) are the places of those that are kept, and `patches`
    (frames of the row, kept patches) what is kept of each, the middle frame's last.
    """

    key: str
    text: str
    captions: tuple[str, ...] = ()
    frames: np.ndarray | None = None
    patches: np.ndarray | None = None


def seen_of(examples: Sequence[Example], settings: SampleSettings) -> tuple[Seen, Seen]:
    """What is seen of the samples' videos, and of their middle frames."""
    frames = [example.frames for example in examples if example.frames is not None]
    patches = [example.patches for example in examples if example.patches is not None]
    of_frames = torch.from_numpy(np.stack(frames)) if frames else None
    video = Seen(of_frames, settings.num_frames if frames else 0)
    if not patches:
        return video, EVERYTHING
    of_video, of_middle = torch.from_numpy(np.stack(patches)).split(
        [settings.kept_frames, int(settings.needs_frame)], dim=1
    )
    middle = Seen(patches=of_middle.contiguous()) if settings.needs_frame else EVERYTHING
    return replace(video, patches=of_video.contiguous()), middle


@dataclass(eq=False, repr=False)
class SampleLoader:
    """Reads and decodes the samples of one source, for a model that takes `image_size` pixels a side.

    Frames come in that size, or with `resizes=False` in the size in which they are stored.
    """

    shards: ShardSet
    settings: SampleSettings
    _: KW_ONLY
    image_size: int
    resizes: bool = True
    num_patches: int = 0  # of a frame; 0: none is drawn of them

    def __post_init__(self) -> None:
        self.reader = ShardReader(self.shards)
        # Of a shard by its number; samples that are not among them are counted as without caption.
        self.captions = lru_cache(maxsize=_CAPTION_FILES_KEPT)(self._read_captions)
        self._notes: list[Skip] = []
        # What `fast_decode` changes: cheaper chroma, and a half or less of the size where that is enough.
        size = self.image_size
        fast: dict[str, float | bool] = {"min_height": size, "min_width": size, "min_factor": 2}
        self._decoder_options = fast | {"fastupsample": True} if self.settings.fast_decode else {}

    def load(
        self,
        shard: int,
        index: int,
        rng: np.random.Generator,
        *,
        video: PixelsWriter,
        frame: PixelsWriter,
        keeps: bool = True,
    ) -> Example | Skip:
        """Sample `index` of a shard, or why it cannot be used; `rng` draws which frames are taken.

        Its frames, one for an image, are the next row of `video`; where the middle frame is wanted, that is
        the next row of `frame`, as a video of one frame. Unless it `keeps` them, the next are put over them.
        """
        found = self.reader.entry(shard, index)
        if isinstance(found, Skip):
            return found
        span, file = found
        captions = self.draw_captions(shard, span.key, rng)
        read = self.read(span, file, captions)
        if isinstance(read, Skip):
            return read
        if isinstance(read, Sample):
            example = self._load_clip(read, captions, rng, video, frame)
        else:
            example = self._load_image(span, *read, video)
        if isinstance(example, Example) and self.settings.drop_patches and self.num_patches:
            kept, num = self.settings.kept_patches(self.num_patches), self.settings.frames_of_row
            example = replace(example, patches=random_subsets(self.num_patches, kept, num, rng))
        if keeps and isinstance(example, Example):
            video.keep()
            if self.settings.needs_frame:
                frame.keep()
        return example

    def draw_captions(self, shard: int, key: str, rng: np.random.Generator) -> tuple[str, ...]:
        """The captions that a sample is given, none of which is empty; no more than are asked for."""
        wanted = self.settings
        if not wanted.needs_caption:
            return ()
        return tuple(filter(None, self.captions(shard).draw(key, rng, most=wanted.num_captions)))

    def take_notes(self) -> list[Skip]:
        """What was met since the last call that costs no sample: caption files that cannot be used."""
        notes, self._notes = self._notes, []
        return notes

    def read(
        self, span: SampleSpan, file: ShardFile, captions: tuple[str, ...], *, with_pixels: bool = True
    ) -> Sample | tuple[str, bytes] | Skip:
        """A clip, or the text and the file of an image; or why it cannot be used, as far as that shows here.

        Pictures are not decoded, and not even read unless `with_pixels`.
        """
        if self.shards.kind == "images":
            return _read_image(file, span, with_pixels=with_pixels)
        wanted = self.settings
        if wanted.needs_caption and not wanted.needs_subtitle and not captions:
            return Skip("missing_caption", span.shown_key)
        try:
            sample = read_sample(file, span, with_pixels=with_pixels, max_pixels=wanted.max_pixels)
        except OSError as error:
            return Skip("unreadable_shard", span.shown_key, str(error))
        if isinstance(sample, Skip) or not wanted.needs_subtitle:
            return sample
        has_text = any(text.strip() for text in (sample.subtitle, *sample.sentences))
        return sample if has_text else Skip("empty_subtitle", sample.key)

    def _load_clip(
        self,
        sample: Sample,
        captions: tuple[str, ...],
        rng: np.random.Generator,
        video: PixelsWriter,
        frame: PixelsWriter,
    ) -> Example | Skip:
        wanted = self.settings
        try:
            if wanted.jitter:
                drawn = jittered_indices(sample.num_frames, wanted.num_frames, rng)
            else:
                drawn = uniform_indices(sample.num_frames, wanted.num_frames)
            choices = [(drawn.tolist(), video)]
            text = sample.subtitle
            # Of a video set's captions, where the clip has several, another on each pass.
            if sample.sentences_are == "alternatives" and len(sample.sentences) > 1:
                text = sample.sentences[int(rng.integers(len(sample.sentences)))]
            if wanted.needs_subtitle and not text.strip():
                return Skip("empty_subtitle", sample.key)
            frames = None
            if wanted.kept_frames < wanted.num_frames:
                (frames,) = random_subsets(wanted.num_frames, wanted.kept_frames, 1, rng)
                choices = [(drawn[frames].tolist(), video)]
            if wanted.needs_frame:
                choices.append(([middle_index(sample.num_frames)], frame))
            self._write_frames(sample, choices)
        except (DatasetError, ValueError) as error:
            return Skip("damaged_sample", sample.key, one_line(error))
        return Example(sample.key, text, captions, frames)

    def _load_image(self, span: SampleSpan, text: str, data: bytes, video: PixelsWriter) -> Example | Skip:
        try:
            picture = decode_image(data, self.settings.max_pixels, **self._decoder_options)[None]
        except MediaError as error:
            return Skip("damaged_image", span.shown_key, one_line(error))
        if self.resizes:
            picture = resize(torch.from_numpy(picture), self.image_size).numpy()
        video.space(picture.shape)[:] = picture
        return Example(span.key, text)

    def _write_frames(self, sample: Sample, choices: list[tuple[list[int], PixelsWriter]]) -> None:
        """Write the frames of each choice of indices; each distinct frame is decoded and resized once."""
        if sample.extension == FRAMES_EXTENSION and not self.resizes:
            done: dict[int, np.ndarray] = {}
            for indices, writer in choices:
                self._decode_jpegs(sample, indices, writer.space, done)
            return
        distinct = list(dict.fromkeys(index for indices, _ in choices for index in indices))
        if sample.extension == FRAMES_EXTENSION:
            # Needed for a moment only: the allocator gives the same memory again.
            frames = self._decode_jpegs(sample, distinct, partial(np.empty, dtype=np.uint8), {})
        else:
            frames = sample.decode(distinct)
        if self.resizes:
            frames = resize(torch.from_numpy(frames), self.image_size).numpy()
        row = {index: number for number, index in enumerate(distinct)}
        for indices, writer in choices:
            space = writer.space((len(indices), *frames.shape[1:]))
            for into, index in zip(space, indices, strict=True):
                into[:] = frames[row[index]]

    def _decode_jpegs(
        self,
        sample: Sample,
        indices: list[int],
        allocate: Callable[[tuple[int, ...]], np.ndarray],
        done: dict[int, np.ndarray],
    ) -> np.ndarray:
        """Decode frames into one array that `allocate` gives, or copy them where they are `done` already."""
        options = self._decoder_options
        if indices[0] not in done:
            done[indices[0]] = simplejpeg.decode_jpeg(sample.checked_jpeg(indices[0]), **options)
        shape = done[indices[0]].shape
        frames = allocate((len(indices), *shape))
        for row, index in zip(frames, indices, strict=True):
            if index in done:
                row[:] = done[index]
                continue
            decoded = simplejpeg.decode_jpeg(sample.checked_jpeg(index), buffer=row, **options)
            if decoded.shape != shape:
                raise DatasetError(f"frames of different sizes, {shape[:2]} and {decoded.shape[:2]}")
            done[index] = row
        return frames

    def _read_captions(self, number: int) -> ShardCaptions:
        """The captions in the folders that are set; none, without a word, where the shard cannot be read."""
        shard = self.shards.shards[number]
        num_bytes, keys = self.reader.size_and_keys(number)
        if not keys:
            return ShardCaptions({}, [])
        sha256 = None if shard.record is None else shard.record.sha256
        found = captions_of_shard(
            self.settings.captions,
            shard.stem,
            num_bytes=num_bytes,
            sha256=sha256,
            keys=keys,
            first_counts=self.settings.first_counts,
        )
        self._notes += found.skips
        return found


def _read_image(file: ShardFile, span: SampleSpan, *, with_pixels: bool) -> tuple[str, bytes] | Skip:
    """An image's text and the bytes of its file."""
    extension = span.first_of(IMAGE_EXTENSIONS)
    assert extension is not None
    if span.problem:
        return Skip("wrong_members", span.shown_key, span.problem)
    try:
        text = read_text_member(file, span, "txt").decode("utf-8").strip()
        data = file.read(span, extension) if with_pixels else b""
    except OSError as error:
        return Skip("unreadable_shard", span.shown_key, str(error))
    except (DatasetError, UnicodeDecodeError) as error:
        return Skip("damaged_text", span.shown_key, one_line(error))
    return (text, data) if text else Skip("empty_text", span.shown_key)
