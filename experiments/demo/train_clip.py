"""Train the demo's tiny CLIP: single frames of the world against what labels say of them, by contrast.

It never sees two frames of one clip, nor a word about motion: what post-pretraining on video can add is left
to add. Written in Hugging Face layout, half precision, as package data.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel

from clipvip.experiments.demo.pictures import draw_pictures
from clipvip.experiments.demo.texts import alt_text
from clipvip.experiments.demo.tokenizers import clip_tokenizer
from clipvip.experiments.demo.world import Scene, World, chance_of
from clipvip.model.preprocess import preprocess_frames, tokenize
from clipvip.pipeline.runtime.progress import Progress

IMAGE_SIZE = 48
MAX_TOKENS = 40


def tiny_clip_config(tokenizer: Any) -> CLIPConfig:
    """A CLIP of about 0.7 million weights."""
    size = len(tokenizer)
    tower = {"hidden_size": 96, "intermediate_size": 384, "num_attention_heads": 3, "projection_dim": 64}
    text = tower | {
        "vocab_size": size,
        "num_hidden_layers": 2,
        "max_position_embeddings": MAX_TOKENS,
        "bos_token_id": size - 2,
        "eos_token_id": size - 1,
        "pad_token_id": size - 1,
    }
    vision = tower | {"num_hidden_layers": 3, "image_size": IMAGE_SIZE, "patch_size": 12}
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=64)


def train_clip(
    out: Path, *, world: World, steps: int, batch_size: int, num_pictures: int, learning_rate: float
) -> float:
    """Train and write to `out`; returns the share of held-out frames that find their label among 100."""
    torch.manual_seed(world.seed)
    tokenizer = clip_tokenizer(world, max_tokens=MAX_TOKENS)
    model = CLIPModel(tiny_clip_config(tokenizer))
    scenes, pixels = _pool(world, "clip", num_pictures)
    chance = chance_of(world, "clip labels")
    order = np.random.default_rng(world.seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, weight_decay=0.02, betas=(0.9, 0.98), eps=1e-6
    )

    def contrast() -> torch.Tensor:
        rows = order.choice(len(scenes), batch_size, replace=False)
        texts = [alt_text(scenes[row], chance) for row in rows]
        return _contrast(model, pixels[torch.from_numpy(rows)], tokens_of(tokenizer, texts))

    for step, loss, progress in training_steps("train-clip", model, optimizer, contrast, steps):
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        if step % 100 == 0:
            progress.note(f"step {step}: loss {loss:.3f}")
    model.eval().save_pretrained(out)
    tokenizer.save_pretrained(out)
    halve_weights(out)
    return _held_out_accuracy(model, tokenizer, world)


def training_steps(
    name: str,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    next_loss: Callable[[], torch.Tensor],
    steps: int,
) -> Iterator[tuple[int, float, Progress]]:
    """Train on one batch after another; yields the number of each step, its loss, and where to tell of it."""
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warm_cosine(step, steps))
    model.train()
    with Progress(name, total=steps, unit="steps") as progress:
        for step in range(1, steps + 1):
            loss = next_loss()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            progress.add(1)
            yield step, loss.item(), progress


def warm_cosine(step: int, steps: int) -> float:
    """The learning rate as a part of its highest: up over 5% of the steps, down along a cosine."""
    warmup = max(1, steps // 20)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def halve_weights(folder: Path) -> None:
    """Store the weights in `folder` in half precision; they load in single precision as before."""
    path = folder / "model.safetensors"
    tensors = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in load_file(path).items()
    }
    save_file(tensors, path, metadata={"format": "pt"})


def tokens_of(tokenizer: Any, texts: list[str]) -> dict[str, torch.Tensor]:
    """Token ids and mask, as long as the longest of `texts`."""
    longest = max(len(ids) for ids in tokenizer(texts, truncation=True, max_length=MAX_TOKENS)["input_ids"])
    return tokenize(tokenizer, texts, max_tokens=longest)


def _pool(world: World, name: str, count: int) -> tuple[list[Scene], torch.Tensor]:
    scenes: list[Scene] = []
    pixels = []
    with Progress("frames", total=count, unit="frames") as progress:
        for some, frames in draw_pictures(world, name, count=count, times=(0.05, 0.95)):
            scenes += some
            pixels.append(preprocess_frames(frames, IMAGE_SIZE))
            progress.add(len(some))
    return scenes, torch.cat(pixels)


def _contrast(model: CLIPModel, pixels: torch.Tensor, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
    output = model(pixel_values=pixels, **tokens)
    labels = torch.arange(len(pixels))
    logits = output.logits_per_image
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


@torch.inference_mode()
def _held_out_accuracy(model: CLIPModel, tokenizer: Any, world: World) -> float:
    scenes, pixels = _pool(world, "clip held out", 500)
    chance = chance_of(world, "clip held out labels")
    right = 0
    for start in range(0, len(scenes), 100):
        texts = [alt_text(scene, chance) for scene in scenes[start : start + 100]]
        output = model(pixel_values=pixels[start : start + 100], **tokens_of(tokenizer, texts))
        right += int((output.logits_per_image.argmax(1) == torch.arange(len(texts))).sum())
    return right / len(scenes)
