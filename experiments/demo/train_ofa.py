"""Train the demo's tiny OFA captioner: single frames of the world and what is to be seen in them.

Teacher forcing from random weights. Written in Hugging Face layout, half precision, as package data; loaded
and run by the same code as a published OFA.
"""

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clipvip.experiments.demo.pictures import draw_pictures
from clipvip.experiments.demo.texts import caption
from clipvip.experiments.demo.tokenizers import OFA_PROMPT, write_ofa_vocabulary
from clipvip.experiments.demo.train_clip import halve_weights, training_steps
from clipvip.experiments.demo.world import World
from clipvip.model.ofa import OfaConfig, OfaForConditionalGeneration, OfaTokenizer, preprocess_images
from clipvip.pipeline.runtime.progress import Progress
from clipvip.shards.files.atomic import atomic_write_bytes

IMAGE_SIZE = 96
# Stages caption the middle frame; it is not exactly in the middle.
_TIMES = (0.35, 0.65)


def tiny_ofa_config(vocab_size: int) -> OfaConfig:
    """An OFA of about 1.4 million weights."""
    return OfaConfig(
        vocab_size=vocab_size,
        max_position_embeddings=64,
        d_model=96,
        encoder_layers=2,
        encoder_ffn_dim=192,
        encoder_attention_heads=3,
        decoder_layers=2,
        decoder_ffn_dim=192,
        decoder_attention_heads=3,
        dropout=0.0,
        resnet_blocks=(1, 2, 2),
        resnet_width=24,
        token_bucket_size=32,
        image_bucket_size=8,
        image_size=IMAGE_SIZE,
    )


def train_ofa(
    out: Path,
    *,
    world: World,
    steps: int,
    batch_size: int,
    num_pictures: int,
    learning_rate: float,
    init: Path | None = None,
) -> None:
    """Train and write the model and its vocabulary to `out`, from random weights or from those in `init`."""
    torch.manual_seed(world.seed)
    if init is None:
        write_ofa_vocabulary(world, out)
        tokenizer = OfaTokenizer.from_pretrained(str(out))
        model = OfaForConditionalGeneration(tiny_ofa_config(len(tokenizer)))
    else:
        out.mkdir(parents=True, exist_ok=True)
        for name in ("vocab.json", "merges.txt"):
            atomic_write_bytes(out / name, (init / name).read_bytes())
        tokenizer = OfaTokenizer.from_pretrained(str(out))
        model = OfaForConditionalGeneration.from_pretrained(str(init), dtype=torch.float32)
    pixels, labels = _pool(world, tokenizer, num_pictures)
    prompt = tokenizer([OFA_PROMPT], return_tensors="pt").input_ids
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, weight_decay=0.01, betas=(0.9, 0.98), eps=1e-8
    )
    order = np.random.default_rng(world.seed)
    chance = random.Random(world.seed)
    prompts = prompt.expand(batch_size, -1)

    def next_loss() -> torch.Tensor:
        rows = torch.from_numpy(order.choice(len(pixels), batch_size, replace=False))
        images = _shifted(pixels[rows], chance)
        return model(input_ids=prompts, patch_images=images, labels=labels[rows]).loss

    for step, loss, progress in training_steps("train-ofa", model, optimizer, next_loss, steps):
        if step % 50 == 0:
            progress.note(f"step {step}: loss {loss:.4f}")
    model.eval().save_pretrained(out)
    halve_weights(out)


def _pool(world: World, tokenizer: Any, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels (count, 3, size, size) in [-1, 1], half precision, and labels (count, longest)."""
    pixels: list[torch.Tensor] = []
    texts: list[str] = []
    with Progress("frames", total=count, unit="frames") as progress:
        for scenes, frames in draw_pictures(world, "ofa", count=count, times=_TIMES):
            texts += [f" {caption(scene)}" for scene in scenes]
            pixels.append(preprocess_images(list(frames), IMAGE_SIZE).half())
            progress.add(len(scenes))
    # The start token is not predicted.
    ids = tokenizer(texts, padding=True, return_tensors="pt").input_ids[:, 1:]
    return torch.cat(pixels), ids


def _shifted(pixels: torch.Tensor, chance: random.Random) -> torch.Tensor:
    """The batch moved by a few pixels, and a little lighter or darker."""
    shift = (chance.randint(-6, 6), chance.randint(-6, 6))
    moved = torch.roll(pixels.float(), shifts=shift, dims=(2, 3))
    return (moved * chance.uniform(0.93, 1.07) + chance.uniform(-0.05, 0.05)).clamp(-1, 1)
