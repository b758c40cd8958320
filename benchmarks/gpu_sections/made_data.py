"""Shards, captions and models with random weights at real sizes, made on the machine.

The check brings no data along.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from captioner_vs_reference import SIZES
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

import clipvip.experiments.demo
from clipvip.model.ofa import OfaConfig, OfaForConditionalGeneration
from clipvip.shards.format.captions import captions_path, shard_source, write_captions
from clipvip.shards.format.clip import Clip, StoredClip, make_key
from clipvip.shards.format.manifest import write_manifest
from clipvip.shards.tar.writer import write_shard

DEMO_WEIGHTS = Path(clipvip.experiments.demo.__file__).parent / "weights"
_WORDS = [
    "a",
    "the",
    "red",
    "big",
    "dog",
    "runs",
    "over",
    "two",
    "men",
    "talk",
    "about",
    "how",
    "to",
    "make",
    "this",
]
_STORED_FPS = 3


@dataclass(frozen=True)
class Sizes:
    """How much is made: real sizes, or ones for a processor."""

    num_shards: int
    clips_per_shard: int
    num_frames_stored: int
    height: int
    width: int


REAL = Sizes(num_shards=32, clips_per_shard=64, num_frames_stored=39, height=256, width=456)
TINY = Sizes(num_shards=2, clips_per_shard=12, num_frames_stored=14, height=64, width=96)


def make_shards(folder: Path, captions: Path, sizes: Sizes) -> None:
    """Shards of clips of low-pass noise, about 16 KB a frame at 256 x 456, and captions for all of them."""
    if (folder / "manifest.json").exists():
        return
    folder.mkdir(parents=True)
    captions.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    frames = [_noise_jpeg(random, sizes.height, sizes.width) for _ in range(200)]
    records = []
    for shard in range(sizes.num_shards):
        clips = [
            _clip(random, frames, f"video{shard}", number, sizes) for number in range(sizes.clips_per_shard)
        ]
        path = folder / f"{shard:06d}.tar"
        records.append(write_shard(path, clips))
        rows = [(clip.record.key, _sentence(random, 8)) for clip in clips]
        write_captions(captions_path(captions, path.stem), rows, model="made", source=shard_source(path))
    write_manifest(folder, stage="shard", options={}, shards=records)


def _noise_jpeg(random: np.random.Generator, height: int, width: int) -> bytes:
    coarse = torch.from_numpy(random.random((1, 3, height // 24, width // 24), np.float32))
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")[0]
    noisy = smooth.permute(1, 2, 0).numpy() + random.normal(0, 0.008, (height, width, 1))
    image = np.ascontiguousarray((noisy.clip(0, 1) * 255).astype(np.uint8))
    return simplejpeg.encode_jpeg(image, quality=85, colorspace="RGB", colorsubsampling="420")


def _clip(
    random: np.random.Generator, frames: list[bytes], video_id: str, number: int, sizes: Sizes
) -> StoredClip:
    jpegs = [frames[index] for index in random.integers(len(frames), size=sizes.num_frames_stored)]
    start = 13.0 * number
    times = tuple(start + index / _STORED_FPS for index in range(len(jpegs)))
    clip = Clip(make_key(video_id, number), video_id, f"{video_id}.{number}.mp4", start, start + 13.0)
    return StoredClip.of(
        clip,
        subtitle=_sentence(random, 30),
        pixels=b"".join(jpegs),
        frame_seconds=times,
        frame_bytes=list(map(len, jpegs)),
        width=sizes.width,
        height=sizes.height,
        source_width=sizes.width,
        source_height=sizes.height,
        source_fps=30.0,
    )


def _sentence(random: np.random.Generator, num_words: int) -> str:
    return " ".join(random.choice(_WORDS, size=num_words).tolist())


def make_clip(folder: Path, *, patch_size: int = 32, num_layers: int = 12, tiny: bool = False) -> Path:
    """A CLIP of B/32's or B/16's sizes with random weights and the demo's tokenizer."""
    if folder.is_dir():
        return folder
    tokens = json.loads((DEMO_WEIGHTS / "clip" / "config.json").read_text())["text_config"]
    ends = {name: tokens[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    if tiny:
        width = {
            "hidden_size": 64,
            "intermediate_size": 256,
            "num_attention_heads": 2,
            "num_hidden_layers": 2,
        }
        text = CLIPTextConfig(
            **width | {"num_hidden_layers": 1}, **ends, vocab_size=tokens["vocab_size"], projection_dim=64
        )
        vision = CLIPVisionConfig(**width, image_size=32, patch_size=patch_size // 2, projection_dim=64)
        config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=64)
    else:
        text = CLIPTextConfig(num_hidden_layers=num_layers, vocab_size=49408, **ends)
        vision = CLIPVisionConfig(num_hidden_layers=num_layers, patch_size=patch_size)
        config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict())
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEMO_WEIGHTS / "clip" / name, folder)
    return folder


def make_ofa(folder: Path, *, size: str = "base", tiny: bool = False) -> Path:
    """An OFA with random weights and the demo's vocabulary.

    Its captions run to the limit, as the longest do.
    """
    if folder.is_dir():
        return folder
    torch.manual_seed(0)
    settings = json.loads((DEMO_WEIGHTS / "ofa" / "config.json").read_text()) if tiny else SIZES[size]
    model = OfaForConditionalGeneration(OfaConfig(**settings))
    model.save_pretrained(folder)
    shutil.copy(DEMO_WEIGHTS / "ofa" / "merges.txt", folder)
    vocabulary = json.loads((DEMO_WEIGHTS / "ofa" / "vocab.json").read_text())
    # Every token that the model can give is then text: a byte beyond ASCII alone is no character, and
    # captions with such are refused.
    vocabulary = {
        token if token.replace("Ġ", "").isascii() else f"word{number}": number
        for token, number in vocabulary.items()
    }
    vocabulary |= {f"word{number}": number for number in range(len(vocabulary), model.config.vocab_size)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    return folder
