"""Shards, models and the command of `clipvip-eval search`, and what it should find."""

from functools import partial
from pathlib import Path

import commands
from clipvip.media.sampling import uniform_indices
from clipvip.model import ClipVip
from clipvip.pipeline.evaluate.cli import main
from clipvip.shards.files.hashes import sha256_of_file
from clipvip.shards.format.manifest import ShardRecord, write_manifest
from clipvip.shards.tar.reader import list_shards, read_shard
from tiny_clip import make_clip, tiny_tokenizer


def make_model(folder: Path, *, seed: int = 0) -> Path:
    ClipVip.from_clip(str(make_clip(folder / "clip", seed=seed)), temporal_size=4).save_pretrained(
        folder / "vip"
    )
    tiny_tokenizer().save_pretrained(folder / "vip")
    return folder / "vip"


run = partial(commands.run, "search", "--device", "cpu", program=main)
run_well = partial(commands.run_well, "search", "--device", "cpu", program=main)


def list_again(folder: Path) -> None:
    """Let the manifest list the shards that are there."""
    records = [
        ShardRecord(path.name, sum(1 for _ in read_shard(path)), path.stat().st_size, sha256_of_file(path))
        for path in sorted(folder.glob("*.tar"))
    ]
    write_manifest(folder, stage="shard", options={}, shards=records)


def expected(model: Path, shards: Path, sentence: str) -> list[tuple[float, str]]:
    """(similarity, key) of all clips, the best first, one clip at a time and straight from the model."""
    vip = ClipVip.from_pretrained(model).eval()
    found = []
    text = vip.encode_text([sentence]).numpy()[0]
    for path in list_shards(shards):
        for sample in read_shard(path):
            frames = sample.decode(uniform_indices(sample.num_frames, 4))
            found.append((float(text @ vip.encode_video([frames]).numpy()[0]), sample.key))
    return sorted(found, reverse=True)
