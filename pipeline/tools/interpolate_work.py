"""What `interpolate` computes: the line between two models, and embeddings at each of its points."""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, fields, replace

import numpy as np
import torch

from clipvip.model.interpolation import Interpolation, load_start
from clipvip.pipeline.evaluate.embeddings import ClipEncoder, PairEmbeddings, load_clip_vip
from clipvip.pipeline.runtime.models import model_at_hand


def load_line(start: str, end: str, *, seed: int, device: torch.device) -> Interpolation:
    """The line between two models, by their names. Raises as `load_clip_vip` and `load_start`."""
    with model_at_hand(end) as name:
        model = load_clip_vip(name, device=device, needs_tokenizer=False)
    with model_at_hand(start) as name:
        first = load_start(name, model.config, name=start, end=end, seed=seed)
    if model.tokenizer is None:  # as of released files
        model.tokenizer = first.tokenizer
    return Interpolation(first, model)


@dataclass(frozen=True)
class LineEncoder(ClipEncoder):
    """Encodes clips and texts at some points of a line: embeddings are (rows, points, dim).

    Each batch goes through the model once for each point. That clips are read once for all of them costs the
    making of weights for each batch, which is less than a hundredth of their use.
    """

    _: KW_ONLY
    line: Interpolation
    alphas: tuple[float, ...]

    @classmethod
    def of(cls, encoder: ClipEncoder, line: Interpolation, alphas: Sequence[float]) -> "LineEncoder":
        """One that encodes as `encoder` does."""
        settings = {one.name: getattr(encoder, one.name) for one in fields(encoder)}
        return cls(**settings, line=line, alphas=tuple(alphas))

    def videos(self, pixels: torch.Tensor) -> torch.Tensor:
        return self._along(lambda: ClipEncoder.videos(self, pixels))

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        return self._along(lambda: ClipEncoder.texts(self, texts))

    def _along(self, encode: Callable[[], torch.Tensor]) -> torch.Tensor:
        embeds = []
        for alpha in self.alphas:
            self.line.put(alpha)
            embeds.append(encode())
        return torch.stack(embeds, dim=1)


def at_point(pairs: PairEmbeddings, number: int) -> PairEmbeddings:
    """Of what a `LineEncoder` embedded, the embeddings at one of its points."""
    texts, videos = (np.ascontiguousarray(rows[:, number]) for rows in (pairs.texts, pairs.videos))
    return replace(pairs, texts=texts, videos=videos)
