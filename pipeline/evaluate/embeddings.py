"""Embeddings of the clips of shards and of their texts, for stages that measure a model."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Generic, TypeVar

import numpy as np
import torch
from transformers.utils import logging as transformers_logging

from clipvip.media.errors import one_line
from clipvip.model import ClipVip
from clipvip.model.embedding import text_features
from clipvip.model.errors import CheckpointError
from clipvip.model.precision import choose_precision, has_native_bf16
from clipvip.model.variants import Precision
from clipvip.pipeline.evaluate.reading import ClipsRead, Reading, read_clips
from clipvip.pipeline.loading.processes import Advice
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.progress import Progress
from clipvip.shards.errors import Skip
from clipvip.shards.files.stores import Location
from clipvip.shards.tar.reader import DEFAULT_MAX_PIXELS, Sample

_TEXTS_AT_ONCE = 256
# Batches that a GPU may have before it, while the one before them is waited for.
_LATE_BATCHES = 2

T = TypeVar("T")


@dataclass(frozen=True)
class PairEmbeddings:
    """`texts` (queries, dim) and `videos` (clips, dim), float32 of unit length; what was passed over.

    `labels` (queries,) is the clip of each text, `sentences` are the texts. Equal sentences have equal rows,
    so that they tie: the batch in which a text is encoded moves its embedding in the last digits.
    """

    texts: np.ndarray
    videos: np.ndarray
    labels: np.ndarray
    sentences: list[str]
    skips: list[Skip]

    def __post_init__(self) -> None:
        first: dict[str, int] = {}
        for row, sentence in enumerate(self.sentences):
            if (earlier := first.setdefault(sentence, row)) != row:
                self.texts[row] = self.texts[earlier]


@dataclass(frozen=True)
class ClipEmbeddings(Generic[T]):
    """`videos` (clips, dim), float32 of unit length, what was noted `about` each, what was passed over."""

    about: list[T]
    videos: np.ndarray
    skips: list[Skip]


@dataclass(frozen=True)
class ClipEncoder:
    """A model, and how it encodes clips: `batch_size` at once, of `total`, where that is known.

    `workers` processes read and decode them where there are many; `advice` is for the user where one dies. On
    a GPU it computes in `precision`, None: as training does by itself; on a CPU in float32.
    """

    model: ClipVip
    batch_size: int
    total: int | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS
    shows_progress: bool = True
    workers: int = 0
    precision: Precision | None = None
    advice: Advice = Reading.advice

    def reading(self) -> Reading:
        """How clips are read for the model."""
        config = self.model.config
        return Reading(
            num_frames=config.scored_frames,
            image_size=config.vision_config.image_size,
            device=self.model.device,
            max_pixels=self.max_pixels,
            workers=self.workers,
            total=self.total,
            advice=self.advice,
            normalization=config.normalization,
        )

    @contextmanager
    def computing(self) -> Iterator[None]:
        """The number format of the model in the block, where nothing is kept for gradients."""
        kind, precision = self.model.device.type, self.precision
        if kind == "cpu":
            precision = "fp32"
        elif precision is None:
            precision, _ = choose_precision("auto", on_gpu=kind == "cuda", has_bf16=has_native_bf16())
        dtype = torch.float16 if precision == "fp16" else torch.bfloat16
        with torch.inference_mode(), torch.autocast(kind, dtype, enabled=precision != "fp32"):
            yield

    def videos(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embeddings (clips, ..., dim) of frames as the model takes them."""
        return self.model.get_video_features(pixels)

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Embeddings (texts, ..., dim), of one text or more."""
        return torch.cat(list(text_features(self.model, texts)))


class _Rows:
    """Embeddings on their way from the device. The newest stay there, lest a GPU idles."""

    def __init__(self) -> None:
        self._late: deque[torch.Tensor] = deque()
        self._rows: list[np.ndarray] = []

    def add(self, embeds: torch.Tensor) -> None:
        """Take (rows, ..., dim), which are made of unit length."""
        self._late.append(torch.nn.functional.normalize(embeds.float(), dim=-1))
        if embeds.is_cpu or len(self._late) > _LATE_BATCHES:
            self._rows.append(self._late.popleft().cpu().numpy())

    def stacked(self) -> np.ndarray:
        """All (rows, ..., dim), float32."""
        rows = [*self._rows, *(embeds.cpu().numpy() for embeds in self._late)]
        return np.concatenate(rows) if rows else np.empty((0, 0), np.float32)


def load_clip_vip(
    name: str,
    *,
    device: torch.device,
    num_frames: int | None = None,
    max_text_tokens: int | None = None,
    like: ClipVip | None = None,
    needs_tokenizer: bool = True,
) -> ClipVip:
    """A CLIP-ViP model, or a plain CLIP whose frames are averaged, ready to encode on `device`.

    `num_frames` and `max_text_tokens` are put into its configuration; None: as the model was trained. With
    `like` it sees as many frames as that model, and as much of each text, or as much as it takes.

    Raises:
        UserError: there is none at `name`, it lacks a tokenizer, or it takes fewer frames or tokens.
        CheckpointError: its files are damaged or do not fit each other.
    """
    transformers_logging.disable_progress_bar()
    try:
        model: ClipVip = ClipVip.from_pretrained(name)
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise UserError(f"{name}: does not load as a CLIP-ViP model ({one_line(error, most=200)})") from error
    if needs_tokenizer and model.tokenizer is None:
        raise UserError(f"{name}: has no tokenizer to read texts by; put that of its CLIP beside the weights")
    config = model.config
    most = config.text_config.max_position_embeddings
    if like is not None:
        num_frames, max_text_tokens = like.config.scored_frames, min(like.config.scored_text_tokens, most)
    if max_text_tokens is not None:
        if max_text_tokens > most:
            raise UserError(f"--max-text-tokens {max_text_tokens}: {name} takes {most} at most")
        config.max_text_tokens = max_text_tokens
    config.num_frames = config.num_frames if num_frames is None else num_frames
    try:
        model.check_length(config.scored_frames)
    except ValueError as error:
        raise UserError(f"{name}: {error}; give fewer by --num-frames") from error
    return model.float().eval().to(device)


def settings_of(model: ClipVip) -> dict[str, int]:
    """How a model scores clips and texts, for reports and results."""
    return {"num_frames": model.config.scored_frames, "max_text_tokens": model.config.scored_text_tokens}


def embed_pairs(
    encoder: ClipEncoder,
    shards: Iterable[Location],
    *,
    captions: Sequence[Location] = (),
    all_captions: bool = False,
) -> PairEmbeddings:
    """Encode every clip that has a text: those in the folders `captions`, or else see `query_texts`.

    Raises:
        DatasetError: a shard, or its captions, cannot be read.
        UserError: a clip with several captions of which each would do.
    """
    text_rows = _Rows()
    by_key: dict[str, list[str]] = {}

    def with_captions() -> Iterator[Location]:
        """The shards; while one is read, `by_key` has its captions."""
        nonlocal by_key
        for path in shards:
            by_key = {}
            for folder in captions:
                # Parquet takes a while to import.
                from clipvip.shards.format.captions import captions_path, read_caption_file

                found = read_caption_file(captions_path(folder, path.stem)).all_captions()
                for key, texts in found.items():
                    by_key.setdefault(key, []).extend(texts)
            yield path

    def texts_of(sample: Sample) -> list[str] | Skip:
        if not captions:
            found = query_texts(sample, all_captions=all_captions)
        else:
            found = _one_or_all(sample.key, by_key.get(sample.key, []), all_captions=all_captions)
        texts = [text for text in (" ".join(text.split()) for text in found) if text]
        return texts or Skip("missing_caption" if captions else "empty_text", sample.key)

    def encode_texts(batch: list[list[str]]) -> None:
        text_rows.add(encoder.texts(list(chain.from_iterable(batch))))

    clips = embed_clips(encoder, with_captions(), texts_of, on_batch=encode_texts)
    labels = np.array([row for row, some in enumerate(clips.about) for _ in some], np.int64)
    texts = list(chain.from_iterable(clips.about))
    return PairEmbeddings(text_rows.stacked(), clips.videos, labels, texts, clips.skips)


def embed_clips(
    encoder: ClipEncoder,
    shards: Iterable[Location],
    choose: Callable[[Sample], T | Skip | None],
    *,
    on_batch: Callable[[list[T]], None] = lambda _: None,
) -> ClipEmbeddings[T]:
    """Encode the clips of which `choose` says something; those that it gives None for are not decoded.

    `on_batch` is told what `choose` said of each batch. A DatasetError where a shard cannot be read.
    """
    with ExitStack() as stack:
        reads = stack.enter_context(closing(read_clips(shards, choose, encoder.reading())))
        progress = Progress("clips", total=encoder.total, unit="clips", hidden=not encoder.shows_progress)
        return _embedded(encoder, reads, stack.enter_context(progress), on_batch)


def embed_by_shard(
    encoder: ClipEncoder,
    shards: Sequence[Location],
    choose: Callable[[Sample], T | Skip | None],
    *,
    before: Callable[[Location], object],
) -> Generator[tuple[Location, ClipEmbeddings[T]], None, None]:
    """As `embed_clips` for one shard after another, while the clips of the next are read.

    `before` is called before anything of a shard is read.
    """

    def opened() -> Iterator[Location]:
        for path in shards:
            before(path)
            yield path

    with closing(read_clips(opened(), choose, encoder.reading())) as reads:
        hidden = Progress("", total=None, unit="", hidden=True)
        for path in shards:
            yield path, _embedded(encoder, _to_end_of_shard(reads), hidden)


def _to_end_of_shard(reads: Iterator[ClipsRead[T]]) -> Iterator[ClipsRead[T]]:
    for read in reads:
        yield read
        if read.ends_shard:
            return


def _embedded(
    encoder: ClipEncoder,
    reads: Iterable[ClipsRead[T]],
    progress: Progress,
    on_batch: Callable[[list[T]], None] = lambda _: None,
) -> ClipEmbeddings[T]:
    """The clips that are read, in batches as large as they may be but the last."""
    skips: list[Skip] = []
    about: list[T] = []
    rows = _Rows()
    pixels = torch.empty(0)
    num_encoded = num_filled = 0

    def encode() -> None:
        nonlocal num_encoded, num_filled
        batch = about[num_encoded : num_encoded + num_filled]
        with encoder.computing():
            rows.add(encoder.videos(pixels[:num_filled]))
            on_batch(batch)
        num_encoded, num_filled = num_encoded + num_filled, 0

    for read in reads:
        skips += read.skips
        about += read.about
        progress.add(read.num_samples, skipped=len(skips))
        if read.rows is None:
            continue
        if not len(pixels):
            pixels = read.rows.new_empty(encoder.batch_size, *read.rows.shape[1:])
        start = 0
        while start < len(read.rows):
            stop = min(start + encoder.batch_size - num_filled, len(read.rows))
            pixels[num_filled : num_filled + stop - start] = read.rows[start:stop]
            num_filled, start = num_filled + stop - start, stop
            if num_filled == encoder.batch_size:
                encode()
    if num_filled:
        encode()
    return ClipEmbeddings(about, rows.stacked(), skips)


def embed_texts(encoder: ClipEncoder, texts: Sequence[str], *, show_progress: bool = True) -> np.ndarray:
    """Embeddings (texts, dim) of unit length, float32."""
    rows = _Rows()
    with Progress("texts", total=len(texts), unit="texts", hidden=not show_progress) as progress:
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            some = list(texts[start : start + _TEXTS_AT_ONCE])
            with encoder.computing():
                rows.add(encoder.texts(some))
            progress.add(len(some))
    return rows.stacked()


def query_texts(sample: Sample, *, all_captions: bool) -> list[str]:
    """The texts that a clip is searched by; with `all_captions` each of its captions.

    Else its subtitle, which is also the paragraph or the only caption of a video set's annotations. A
    UserError where it has several captions of which each would do.
    """
    alternatives = sample.sentences if sample.sentences_are == "alternatives" else []
    texts = _one_or_all(sample.key, alternatives, all_captions=all_captions)
    return texts if len(texts) > 1 else [sample.subtitle]


def _one_or_all(key: str, texts: list[str], *, all_captions: bool) -> list[str]:
    """A clip's texts, of which each would do, where it may have several; else a UserError."""
    if len(texts) > 1 and not all_captions:
        raise UserError(
            f"clip {key} has {len(texts)} captions: a test set has one for each clip "
            "(MSR-VTT's is --dataset msrvtt/1ka; ActivityNet's and DiDeMo's sentences are joined by "
            "activitynet/val1 and didemo/test); or give --all-captions to search by each of them"
        )
    return texts
