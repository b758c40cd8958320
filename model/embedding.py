"""What `ClipVip.encode_video` and `encode_text` do: whatever is given, in batches, through the model."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clipvip.media.errors import one_line
from clipvip.model.config import FEWEST_TEXT_TOKENS
from clipvip.model.preprocess import tokenize
from clipvip.model.videos import PixelFormat, Video, iterate_videos, to_pixels

if TYPE_CHECKING:
    from clipvip.model.clip_vip import ClipVip


@dataclass(frozen=True)
class VideoFailure:
    """A video that could not be embedded: its place among those given, from 0, and why in one line."""

    index: int
    reason: str


def embed_videos(
    model: "ClipVip",
    videos: Video | Iterable[Video],
    *,
    num_frames: int | None,
    batch_size: int,
    raises: bool,
) -> tuple[Tensor, list[VideoFailure]]:
    """What `encode_video` does: embeddings (videos, dim), NaN for those that fail; with `raises` none may."""
    wanted = model.config.scored_frames if num_frames is None else num_frames
    if wanted < 1 or batch_size < 1:
        raise ValueError(f"{num_frames = } and {batch_size = }: give 1 or more")
    form = PixelFormat(model.config.vision_config.image_size, model.config.normalization)
    failures: list[VideoFailure] = []
    batches = []
    remaining = enumerate(iterate_videos(videos))
    while some := list(itertools.islice(remaining, batch_size)):
        rows = torch.full((len(some), model.config.projection_dim), torch.nan)
        by_length: dict[int, list[tuple[int, Tensor]]] = {}
        for row, (index, video) in enumerate(some):
            try:
                pixels = to_pixels(video, pixels=form, num_frames=wanted)
                model.check_length(len(pixels))
            except ValueError as error:
                if raises:
                    raise
                failures.append(VideoFailure(index, one_line(error)))
            else:
                by_length.setdefault(len(pixels), []).append((row, pixels.to(model.device)))
        for alike in by_length.values():
            features = model.get_video_features(torch.stack([pixels for _, pixels in alike]))
            rows[[row for row, _ in alike]] = features.float().cpu()
        batches.append(rows)
    return torch.cat(batches) if batches else torch.empty(0, model.config.projection_dim), failures


def text_features(
    model: "ClipVip", texts: str | Iterable[str], *, max_tokens: int | None = None, batch_size: int = 256
) -> Iterator[Tensor]:
    """Embeddings (some texts, dim) where the model is, as it computes them; ValueError as `encode_text`."""
    if model.tokenizer is None:
        raise ValueError(
            "this model came without a tokenizer: name one, as in "
            "from_pretrained(..., tokenizer='openai/clip-vit-base-patch32')"
        )
    texts = [texts] if isinstance(texts, str) else list(texts)
    if others := {type(text).__name__ for text in texts if not isinstance(text, str)}:
        raise ValueError(f"among the texts are {', '.join(sorted(others))}: give strings alone")
    most = model.config.text_config.max_position_embeddings
    limit = model.config.scored_text_tokens if max_tokens is None else max_tokens
    if not FEWEST_TEXT_TOKENS <= limit <= most or batch_size < 1:
        raise ValueError(
            f"{max_tokens = } and {batch_size = }: give {FEWEST_TEXT_TOKENS} to {most} tokens, "
            "and 1 text or more"
        )
    for start in range(0, len(texts), batch_size):
        tokens = tokenize(model.tokenizer, texts[start : start + batch_size], max_tokens=limit)
        # Padded at the end, where no token of the text sees it: no mask is needed.
        yield model.get_text_features(tokens["input_ids"].to(model.device))


def embed_texts(
    model: "ClipVip", texts: str | Iterable[str], *, max_tokens: int | None, batch_size: int
) -> Tensor:
    """What `encode_text` does: embeddings (texts, dim)."""
    found = text_features(model, texts, max_tokens=max_tokens, batch_size=batch_size)
    rows = [features.float().cpu() for features in found]
    return torch.cat(rows) if rows else torch.empty(0, model.config.projection_dim)
