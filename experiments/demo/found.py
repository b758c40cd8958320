"""What a model finds in the demo's test clips: which clips come first for each text, twins among them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipvip.experiments.demo.world import REVERSED, Scene
from clipvip.pipeline.evaluate.embeddings import ClipEncoder, embed_clips, embed_texts, load_clip_vip
from clipvip.pipeline.train.recipe import load_recipe
from clipvip.shards.tar.reader import Sample, list_shards


@dataclass(frozen=True)
class Found:
    """Keys and texts of the clips; `similarity` (texts, clips), text i being that of clip i."""

    keys: list[str]
    texts: list[str]
    similarity: np.ndarray

    def first(self, query: int, top: int) -> list[int]:
        """The clips that are nearest to a text, best first."""
        return np.argsort(-self.similarity[query], kind="stable")[:top].tolist()

    def is_found(self, query: int) -> bool:
        return self.first(query, 1) == [query]


def trained_frames() -> int:
    """Frames of a clip that the demo's models are trained on, and so all are scored on."""
    return load_recipe("demo").data.num_frames


def find(model_folder: Path, shards: Path) -> Found:
    """Embed the clips of `shards` and their texts. Raises as `load_clip_vip` and `embed_clips`."""
    import torch

    model = load_clip_vip(str(model_folder), device=torch.device("cpu"), num_frames=trained_frames())

    def about(sample: Sample) -> tuple[str, str]:
        return sample.key, sample.subtitle

    encoder = ClipEncoder(model, batch_size=16, shows_progress=False)
    clips = embed_clips(encoder, list_shards(shards), about)
    keys, texts = [key for key, _ in clips.about], [text for _, text in clips.about]
    return Found(keys, texts, embed_texts(encoder, texts, show_progress=False) @ clips.videos.T)


def twins_of(keys: list[str], truth: Mapping[str, Scene]) -> np.ndarray:
    """The number of each clip's reverse: int64 (clips,). KeyError where one has none."""
    numbers = {(truth[key].appearance, truth[key].motion): n for n, key in enumerate(keys)}
    scenes = [truth[key] for key in keys]
    return np.array([numbers[scene.appearance, REVERSED[scene.motion]] for scene in scenes], np.int64)


def told_apart(found: Found, twins: np.ndarray) -> np.ndarray:
    """Whether each text is nearer to its clip than to that clip's reverse: bool (clips,); a tie is not."""
    own = np.arange(len(twins))
    return np.asarray(found.similarity[own, own] > found.similarity[own, twins])


def queries_to_show(found: Found, twins: np.ndarray) -> list[int]:
    """The first clip that is found as its twin is, the twin, and the first that is not found."""
    right = [found.is_found(query) for query in range(len(twins))]
    both = next((query for query, twin in enumerate(twins) if right[query] and right[twin]), 0)
    missed = next((query for query, is_right in enumerate(right) if not is_right), len(right) - 1)
    return [both, int(twins[both]), missed]
