"""Corpora of texts: count, draw, and encode no more than is drawn.

A corpus costs two passes over its text and at most samples x repeats encodings, which the output folder
keeps.
"""

import hashlib
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clipvip.analysis.domain_gap import Side, draw_samples
from clipvip.pipeline.domain_gap.encoder import TextEncoder, in_batches
from clipvip.pipeline.domain_gap.work import TextTask, encode_texts, load_features, write_features
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.progress import Progress
from clipvip.pipeline.runtime.ray_units import RayCluster
from clipvip.pipeline.runtime.report import counted
from clipvip.pipeline.runtime.workers import run_units
from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.files.places import make_folder, remove_folder
from clipvip.shards.files.stores import Location
from clipvip.shards.sources.texts import read_texts

if TYPE_CHECKING:
    from clipvip.pipeline.domain_gap.stage import DomainGapOptions

FEATURES_FOLDER = "features"
_BATCHES_PER_UNIT = 8


@dataclass(frozen=True)
class Corpus:
    """A named set of texts on one side of the comparison, and what was counted in it."""

    name: str
    path: Location
    side: Side
    num_texts: int
    num_empty: int
    skips: tuple[Skip, ...] = ()

    def as_dict(self) -> dict[str, str | int]:
        return {"name": self.name, "texts": self.num_texts, "empty": self.num_empty}


@dataclass(frozen=True)
class DrawnFeatures:
    """Features (n, dim) of the texts that any draw holds, and where each draw's are: (repeats, samples)."""

    corpus: Corpus
    features: np.ndarray
    positions: np.ndarray
    num_encoded_now: int


def count_texts(name: str, path: Location, side: Side, *, samples: int) -> Corpus:
    """Read through a corpus once; UserError where it has fewer texts than are to be drawn."""
    num_empty = num_texts = 0
    skips: list[Skip] = []
    for text in read_texts(path):
        if isinstance(text, Skip):
            skips.append(text)
        elif text:
            num_texts += 1
        else:
            num_empty += 1
    if num_texts < samples:
        raise UserError(
            f"--{side} {name}: {path} has {counted(num_texts, 'texts')} with words, --samples asks for "
            f"{samples:,}; give more texts or a smaller --samples"
        )
    return Corpus(name, path, side, num_texts, num_empty, tuple(skips))


def encode_drawn(
    corpus: Corpus, encoder: TextEncoder, options: "DomainGapOptions", ray: RayCluster | None
) -> DrawnFeatures:
    """Features of the texts of `corpus` that the draws of `draw_samples` hold, computed here or on a cluster.

    Those that an earlier run left in the output folder, of the same texts by the same model, are used.

    Raises:
        UserError: the model gives features that are not finite, or a worker died of a unit.
        DatasetError: the corpus changed since it was counted.
    """
    draws = draw_samples(
        corpus.num_texts,
        samples=options.samples,
        repeats=options.repeats,
        seed=options.seed,
        side=corpus.side,
    )
    wanted, positions = np.unique(draws, return_inverse=True)
    texts = _pick(corpus, wanted)
    # Named by what goes in, so that a file can never be another corpus' or another model's.
    content = json.dumps([encoder.fingerprint, texts], ensure_ascii=False).encode()
    folder = options.out / FEATURES_FOLDER
    make_folder(folder)
    path = folder / f"{hashlib.sha256(content).hexdigest()[:32]}.npy"
    features = load_features(path, num_texts=len(texts))
    num_encoded = 0
    if features is None:
        with Progress(corpus.name, total=len(texts), unit="texts") as progress:
            if ray is None:
                features = encoder.encode(texts, batch_size=options.batch_size, on_done=progress.add)
            else:
                parts = path.with_suffix(".parts")
                features = _encode_on(ray, texts, encoder.fingerprint, parts, options, progress)
        if not np.isfinite(features).all():
            raise UserError(f"{corpus.name}: the model's features hold NaN or infinity; check --model")
        write_features(path, features)
        remove_folder(path.with_suffix(".parts"))
        num_encoded = len(texts)
    return DrawnFeatures(corpus, features, positions.reshape(draws.shape), num_encoded)


def _encode_on(
    ray: RayCluster,
    texts: Sequence[str],
    fingerprint: str,
    parts: Location,
    options: "DomainGapOptions",
    progress: Progress,
) -> np.ndarray:
    """What `TextEncoder.encode` gives, in the same batches on a cluster; `parts` keeps what is done."""
    make_folder(parts)
    batches, places = in_batches(texts, options.batch_size)
    device = "cuda" if ray.gpus_per_worker else "cpu"
    tasks = []
    for first in range(0, len(batches), _BATCHES_PER_UNIT):
        path = parts / f"{options.batch_size}-{first * options.batch_size:09d}.npy"
        some = tuple(batches[first : first + _BATCHES_PER_UNIT])
        tasks.append(TextTask(some, path, options.model, fingerprint, device))
    missing = [task for task in tasks if task.features() is None]
    progress.add(len(texts) - sum(task.num_texts for task in missing))
    for outcome in run_units(encode_texts, missing, workers=1, ray=ray):
        if outcome.failure is not None:
            raise UserError(f"--ray: {outcome.failure.detail}; what is done is kept, run it again")
        progress.add(outcome.unit.num_texts)
    return np.concatenate([features for task in tasks if (features := task.features()) is not None])[places]


def _pick(corpus: Corpus, wanted: np.ndarray) -> list[str]:
    """The texts of `corpus` at the ascending positions `wanted`, empty ones not counted."""
    picked: list[str] = []
    left = deque(wanted.tolist())
    texts = (text for text in read_texts(corpus.path) if isinstance(text, str) and text)
    for position, text in enumerate(texts):
        if position == left[0]:
            picked.append(text)
            left.popleft()
            if not left:
                return picked
    raise DatasetError(f"{corpus.path}: became shorter while it was read; run again")
