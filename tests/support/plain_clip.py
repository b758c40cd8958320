"""A plain CLIP as a baseline, by hand: transformers' own model on each frame, then the mean."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer

from clipvip.media.sampling import uniform_indices
from clipvip.model.preprocess import preprocess_frames
from clipvip.shards.tar.reader import list_shards, read_shard


def videos_by_hand(folder: Path, pixels: Tensor) -> Tensor:
    """(videos, frames, 3, size, size) -> (videos, dim): the mean of unit vectors, of unit length."""
    plain = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        frames = [
            [plain.get_image_features(frame[None]).pooler_output[0] for frame in video] for video in pixels
        ]
    unit = normalize(torch.stack([torch.stack(video) for video in frames]), dim=-1)
    return normalize(unit.mean(dim=1), dim=-1)


def texts_by_hand(folder: Path, texts: Sequence[str]) -> Tensor:
    """(texts, dim), with the folder's own tokenizer and all of the model's positions."""
    plain, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    most = plain.config.text_config.max_position_embeddings
    rows = []
    for text in texts:
        tokens = tokenizer(text, padding="max_length", truncation=True, max_length=most, return_tensors="pt")
        with torch.no_grad():  # without a mask: SigLIP sees padding, CLIP's texts end before it
            rows.append(plain.get_text_features(tokens["input_ids"]).pooler_output)
    return normalize(torch.cat(rows), dim=-1)


def shards_by_hand(folder: Path, shards: Path, *, num_frames: int) -> tuple[list[str], list[str], np.ndarray]:
    """Keys and subtitles of the clips, and their embeddings (clips, dim)."""
    samples = [sample for path in list_shards(shards) for sample in read_shard(path)]
    size = AutoModel.from_pretrained(folder).config.vision_config.image_size
    pixels = [
        preprocess_frames(sample.decode(uniform_indices(sample.num_frames, num_frames)), size)
        for sample in samples
    ]
    videos = videos_by_hand(folder, torch.stack(pixels)).numpy()
    return [sample.key for sample in samples], [sample.subtitle for sample in samples], videos
