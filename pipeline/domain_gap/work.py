"""What a worker process of `clipvip-data nmi --ray` does: features of some batches of texts, as a file."""

import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from clipvip.pipeline.domain_gap.encoder import TextEncoder, load_text_encoder
from clipvip.pipeline.runtime.device import torch_device
from clipvip.pipeline.runtime.errors import UserError
from clipvip.shards.files.atomic import atomic_write_bytes
from clipvip.shards.files.places import read_whole
from clipvip.shards.files.stores import Location


@dataclass(frozen=True, slots=True)
class TextTask:
    """Batches of texts whose features go into `path`, one after another; by a model of that fingerprint."""

    batches: tuple[tuple[str, ...], ...]
    path: Location
    model: str
    fingerprint: str
    device: str

    @property
    def num_texts(self) -> int:
        return sum(map(len, self.batches))

    def features(self) -> np.ndarray | None:
        """What is in `path`; None where the task is not done."""
        return load_features(self.path, num_texts=self.num_texts)


def encode_texts(task: TextTask) -> int:
    """Write the features of `task`, (texts, dim) float32; returns how many texts there are."""
    encoder = _encoder(task.model, task.device)
    if encoder.fingerprint != task.fingerprint:
        raise UserError(
            f"{task.model}: is another model on another machine of the cluster; give a shared folder"
        )
    features = np.concatenate([encoder.encode_batch(batch) for batch in task.batches])
    write_features(task.path, features)
    return len(features)


@lru_cache(maxsize=1)
def _encoder(model: str, device: str) -> TextEncoder:
    return load_text_encoder(model, device=torch_device(device))


def write_features(path: Location, features: np.ndarray) -> None:
    """Write `features`, all or nothing."""
    buffer = io.BytesIO()
    np.save(buffer, features, allow_pickle=False)
    atomic_write_bytes(path, buffer.getvalue())


def load_features(path: Location, *, num_texts: int) -> np.ndarray | None:
    """The features of so many texts in `path`; None where there are none, or others."""
    try:
        features: np.ndarray = np.load(io.BytesIO(read_whole(path)), allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):
        return None  # or damaged by someone else: made again
    return features if features.ndim == 2 and len(features) == num_texts else None
