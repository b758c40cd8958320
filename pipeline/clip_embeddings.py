"""Embeddings of the clips of shards and of their texts, row by row the same clip, for stages that measure a model."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers.utils import logging as transformers_logging

from clipvip.model import ClipVip
from clipvip.model.errors import CheckpointError
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.progress import Progress
from clipvip.shards.errors import DatasetError
from clipvip.shards.reader import Sample, read_shard
from clipvip.shards.sampling import uniform_indices
from clipvip.shards.skips import Skip

# libjpeg-turbo lets go of Python's lock, so threads decode side by side.
_DECODING_THREADS = 2


@dataclass(frozen=True)
class PairEmbeddings:
    """`texts` and `videos`, float32 (n, dim) of unit length, row i of both from clip i; what was passed over."""

    texts: np.ndarray
    videos: np.ndarray
    num_distinct_texts: int
    skips: list[Skip]


@dataclass(frozen=True)
class _Pair:
    """A clip to encode: frames uint8 (frames, height, width, 3), and its text."""

    frames: np.ndarray
    text: str


def load_clip_vip(name: str, *, device: torch.device) -> ClipVip:
    """A CLIP-ViP model, ready to encode on `device`.

    Raises:
        UserError: there is none at `name`.
    """
    transformers_logging.disable_progress_bar()
    try:
        model: ClipVip = ClipVip.from_pretrained(name)
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, CheckpointError):
            raise
        first_line = " ".join(str(error).split())[:200]
        raise UserError(f"{name}: no CLIP-ViP model that loads ({first_line})") from error
    return model.float().eval().to(device)


def embed_pairs(
    model: ClipVip, shards: Iterable[Path], *, captions: Path | None, num_frames: int, batch_size: int
) -> PairEmbeddings:
    """Encode every clip that has a text: its subtitle, or its caption where `captions` is a folder of them.

    Raises:
        DatasetError: a shard, or its captions, cannot be read.
    """
    skips: list[Skip] = []
    texts: list[str] = []
    text_rows: list[np.ndarray] = []
    video_rows: list[np.ndarray] = []
    with Progress("clips", total=None, unit="clips") as progress:
        for batch in _batches(_decoded(_samples(shards, captions, skips), num_frames, skips), batch_size):
            with torch.inference_mode():
                videos = model.encode_video([pair.frames for pair in batch])
                queries = model.encode_text([pair.text for pair in batch])
            video_rows.append(_unit_rows(videos))
            text_rows.append(_unit_rows(queries))
            texts.extend(pair.text for pair in batch)
            progress.add(len(batch), skipped=len(skips))
    return PairEmbeddings(
        np.concatenate(text_rows) if text_rows else np.empty((0, 0), np.float32),
        np.concatenate(video_rows) if video_rows else np.empty((0, 0), np.float32),
        len(set(texts)),
        skips,
    )


def _unit_rows(embeds: torch.Tensor) -> np.ndarray:
    rows: np.ndarray = torch.nn.functional.normalize(embeds.float(), dim=-1).cpu().numpy()
    return rows


def _samples(
    shards: Iterable[Path], captions: Path | None, skips: list[Skip]
) -> Iterator[tuple[Sample, str]]:
    """Samples with their text; those without one are noted in `skips`."""
    for path in shards:
        by_key = None if captions is None else _captions_of(captions, path.stem)
        for sample in read_shard(path):
            text = sample.subtitle if by_key is None else by_key.get(sample.key, "")
            text = " ".join(text.split())
            if text:
                yield sample, text
            else:
                skips.append(Skip("empty_text" if captions is None else "missing_caption", sample.key))


def _captions_of(folder: Path, stem: str) -> dict[str, str]:
    from clipvip.shards.captions import read_captions  # Parquet takes a while to import

    return read_captions(folder, stem)


def _decoded(samples: Iterable[tuple[Sample, str]], num_frames: int, skips: list[Skip]) -> Iterator[_Pair]:
    """Decode in threads, a little ahead of what is asked for and in order."""
    waiting: deque[tuple[Future[np.ndarray], Sample, str]] = deque()
    with ThreadPoolExecutor(_DECODING_THREADS) as pool:
        for sample, text in samples:
            waiting.append((pool.submit(_frames, sample, num_frames), sample, text))
            if len(waiting) > 4 * _DECODING_THREADS:
                yield from _finished(*waiting.popleft(), skips)
        while waiting:
            yield from _finished(*waiting.popleft(), skips)


def _frames(sample: Sample, num_frames: int) -> np.ndarray:
    return sample.decode(uniform_indices(sample.num_frames, num_frames))


def _finished(frames: Future[np.ndarray], sample: Sample, text: str, skips: list[Skip]) -> Iterator[_Pair]:
    try:
        yield _Pair(frames.result(), text)
    except DatasetError as error:
        skips.append(Skip("damaged_sample", sample.key, str(error)))


def _batches(pairs: Iterable[_Pair], batch_size: int) -> Iterator[list[_Pair]]:
    batch: list[_Pair] = []
    for pair in pairs:
        batch.append(pair)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch
