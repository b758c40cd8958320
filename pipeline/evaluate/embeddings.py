"""Embeddings of the clips of shards and of their texts, for stages that measure a model."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from typing import Generic, TypeVar

import numpy as np
import torch
from transformers.utils import logging as transformers_logging

from clipvip.media.errors import one_line
from clipvip.media.sampling import uniform_indices
from clipvip.model import ClipVip
from clipvip.model.errors import CheckpointError
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.progress import Progress
from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.files.stores import Location
from clipvip.shards.tar.reader import DEFAULT_MAX_PIXELS, Sample, read_samples

# libjpeg-turbo lets go of Python's lock, so threads decode side by side.
_DECODING_THREADS = 2
_TEXTS_AT_ONCE = 256

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
    """A model, and how it encodes clips: `batch_size` at once, of `total`, where that is known."""

    model: ClipVip
    batch_size: int
    total: int | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS
    shows_progress: bool = True


def load_clip_vip(
    name: str,
    *,
    device: torch.device,
    num_frames: int | None = None,
    max_text_tokens: int | None = None,
    needs_tokenizer: bool = True,
) -> ClipVip:
    """A CLIP-ViP model, ready to encode on `device`.

    `num_frames` and `max_text_tokens` are put into its configuration; None: as the model was trained.

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
        raise UserError(f"{name}: no CLIP-ViP model that loads ({one_line(error, most=200)})") from error
    if needs_tokenizer and model.tokenizer is None:
        raise UserError(f"{name}: has no tokenizer to read texts by; put that of its CLIP beside the weights")
    config = model.config
    most = config.text_config.max_position_embeddings
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
    captions: Location | None = None,
    all_captions: bool = False,
) -> PairEmbeddings:
    """Encode every clip that has a text: that in the folder `captions`, or else see `query_texts`.

    Raises:
        DatasetError: a shard, or its captions, cannot be read.
        UserError: a clip with several captions of which each would do.
    """
    text_rows: list[np.ndarray] = []
    by_key: dict[str, list[str]] = {}

    def with_captions() -> Iterator[Location]:
        """The shards; while one is read, `by_key` has its captions."""
        nonlocal by_key
        for path in shards:
            if captions is not None:
                # Parquet takes a while to import.
                from clipvip.shards.format.captions import captions_path, read_caption_file

                by_key = read_caption_file(captions_path(captions, path.stem)).all_captions()
            yield path

    def texts_of(sample: Sample) -> list[str] | Skip:
        if captions is None:
            found = query_texts(sample, all_captions=all_captions)
        else:
            found = _one_or_all(sample.key, by_key.get(sample.key, []), all_captions=all_captions)
        texts = [text for text in (" ".join(text.split()) for text in found) if text]
        return texts or Skip("empty_text" if captions is None else "missing_caption", sample.key)

    def encode_texts(batch: list[list[str]]) -> None:
        with torch.inference_mode():
            text_rows.append(_unit_rows(encoder.model.encode_text(list(chain.from_iterable(batch)))))

    clips = embed_clips(encoder, with_captions(), texts_of, on_batch=encode_texts)
    labels = np.array([row for row, some in enumerate(clips.about) for _ in some], np.int64)
    texts = list(chain.from_iterable(clips.about))
    return PairEmbeddings(_stacked(text_rows), clips.videos, labels, texts, clips.skips)


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
    model = encoder.model
    skips: list[Skip] = []
    about: list[T] = []
    rows: list[np.ndarray] = []
    with Progress("clips", total=encoder.total, unit="clips", hidden=not encoder.shows_progress) as progress:

        def chosen() -> Iterator[tuple[Sample, T]]:
            for path in shards:
                for sample in read_samples(path, max_pixels=encoder.max_pixels):
                    progress.add(1, skipped=len(skips))
                    found = sample if isinstance(sample, Skip) else choose(sample)
                    if isinstance(found, Skip):
                        skips.append(found)
                    elif found is not None:
                        assert not isinstance(sample, Skip)
                        yield sample, found

        clips = _decoded(chosen(), model.config.scored_frames, skips)
        while batch := list(islice(clips, encoder.batch_size)):
            with torch.inference_mode():
                rows.append(_unit_rows(model.encode_video([frames for frames, _ in batch])))
            about.extend(said for _, said in batch)
            on_batch([said for _, said in batch])
    return ClipEmbeddings(about, _stacked(rows), skips)


def embed_texts(model: ClipVip, texts: Sequence[str], *, show_progress: bool = True) -> np.ndarray:
    """Embeddings (texts, dim) of unit length, float32."""
    rows: list[np.ndarray] = []
    with Progress("texts", total=len(texts), unit="texts", hidden=not show_progress) as progress:
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            some = list(texts[start : start + _TEXTS_AT_ONCE])
            with torch.inference_mode():
                rows.append(_unit_rows(model.encode_text(some)))
            progress.add(len(some))
    return _stacked(rows)


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


def _unit_rows(embeds: torch.Tensor) -> np.ndarray:
    rows: np.ndarray = torch.nn.functional.normalize(embeds.float(), dim=-1).cpu().numpy()
    return rows


def _stacked(rows: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(rows) if rows else np.empty((0, 0), np.float32)


def _decoded(
    samples: Iterable[tuple[Sample, T]], num_frames: int, skips: list[Skip]
) -> Iterator[tuple[np.ndarray, T]]:
    """Frames, uint8 (frames, height, width, 3), decoded in threads, a little ahead and in order."""
    waiting: deque[tuple[Future[np.ndarray], Sample, T]] = deque()

    def next_one() -> Iterator[tuple[np.ndarray, T]]:
        frames, sample, about = waiting.popleft()
        try:
            yield frames.result(), about
        except DatasetError as error:
            skips.append(Skip("damaged_sample", sample.key, str(error)))

    with ThreadPoolExecutor(_DECODING_THREADS) as pool:
        for sample, about in samples:
            indices = uniform_indices(sample.num_frames, num_frames)
            waiting.append((pool.submit(sample.decode, indices), sample, about))
            if len(waiting) > 4 * _DECODING_THREADS:
                yield from next_one()
        while waiting:
            yield from next_one()
