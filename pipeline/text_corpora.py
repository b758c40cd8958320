"""Corpora of texts for a stage that compares them: count, draw, and encode no more than is drawn.

A corpus of millions of texts costs two passes over its text and at most samples x repeats encodings, which are
kept in the output folder under a name made of their content.
"""

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipvip.analysis.domain_gap import Side, draw_samples
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.progress import Progress
from clipvip.pipeline.text_encoder import TextEncoder
from clipvip.shards.atomic import atomic_write_bytes
from clipvip.shards.errors import DatasetError
from clipvip.shards.texts import read_texts

FEATURES_FOLDER = "features"


@dataclass(frozen=True)
class Corpus:
    """A named set of texts on one side of the comparison, and what was counted in it."""

    name: str
    path: Path
    side: Side
    num_texts: int
    num_empty: int

    def as_dict(self) -> dict[str, str | int]:
        return {"name": self.name, "texts": self.num_texts, "empty": self.num_empty}


@dataclass(frozen=True)
class DrawnFeatures:
    """Features (n, dim) of the texts that any draw holds, and where each draw's are: (repeats, samples)."""

    features: np.ndarray
    positions: np.ndarray
    num_encoded_now: int

    def draw(self, repeat: int) -> np.ndarray:
        return self.features[self.positions[repeat]]


def count_texts(name: str, path: Path, side: Side, *, samples: int) -> Corpus:
    """Read through a corpus once.

    Raises:
        UserError: it has fewer texts than are to be drawn.
        DatasetError: it cannot be read.
    """
    num_empty = num_texts = 0
    for text in read_texts(path):
        if text:
            num_texts += 1
        else:
            num_empty += 1
    if num_texts < samples:
        raise UserError(
            f"--{side} {name}: {path} has {num_texts} texts that are not empty, --samples asks for {samples}; "
            "give more texts or a smaller --samples"
        )
    return Corpus(name, path, side, num_texts, num_empty)


def encode_drawn(
    corpus: Corpus,
    encoder: TextEncoder,
    *,
    out: Path,
    samples: int,
    repeats: int,
    seed: int,
    batch_size: int,
) -> DrawnFeatures:
    """Features of the texts of `corpus` that the draws of `draw_samples` hold.

    They are taken from `out` where an earlier run left those of the same texts by the same model.

    Raises:
        UserError: the model gives features that are not finite.
        DatasetError: the corpus changed since it was counted.
    """
    draws = draw_samples(corpus.num_texts, samples=samples, repeats=repeats, seed=seed, side=corpus.side)
    wanted, positions = np.unique(draws, return_inverse=True)
    texts = _pick(corpus, wanted)
    # Named by what goes in, so that a file can never be another corpus' or another model's.
    content = json.dumps([encoder.fingerprint, texts], ensure_ascii=False).encode()
    (out / FEATURES_FOLDER).mkdir(parents=True, exist_ok=True)
    path = out / FEATURES_FOLDER / f"{hashlib.sha256(content).hexdigest()[:32]}.npy"
    features = _load_features(path, num_texts=len(texts))
    num_encoded = 0
    if features is None:
        with Progress(corpus.name, total=len(texts), unit="texts") as progress:
            features = encoder.encode(texts, batch_size=batch_size, on_done=progress.add)
        if not np.isfinite(features).all():
            raise UserError(f"{corpus.name}: the model gives features that are not numbers; check --model")
        buffer = io.BytesIO()
        np.save(buffer, features, allow_pickle=False)
        atomic_write_bytes(path, buffer.getvalue())
        num_encoded = len(texts)
    return DrawnFeatures(features, positions.reshape(draws.shape), num_encoded)


def _pick(corpus: Corpus, wanted: np.ndarray) -> list[str]:
    """The texts of `corpus` at the ascending positions `wanted`, empty ones not counted."""
    picked: list[str] = []
    remaining = iter(wanted.tolist())
    following = next(remaining, None)
    texts = (text for text in read_texts(corpus.path) if text)
    for position, text in enumerate(texts):
        if position == following:
            picked.append(text)
            following = next(remaining, None)
            if following is None:
                return picked
    raise DatasetError(f"{corpus.path}: became shorter while it was read; run again")


def _load_features(path: Path, *, num_texts: int) -> np.ndarray | None:
    try:
        features: np.ndarray = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        return None
    except (ValueError, EOFError):
        return None  # damaged by someone else: made again
    return features if features.ndim == 2 and len(features) == num_texts else None
