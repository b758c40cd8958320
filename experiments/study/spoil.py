"""Wrong captions on purpose: some clips get the caption of another clip of their shard."""

import random
from pathlib import Path

from clipvip.shards.format.captions import captions_path, read_caption_file, write_captions
from clipvip.shards.tar.reader import list_shards


def spoil_captions(shards: Path, captions: Path, out: Path, *, rate: float, seed: int) -> tuple[int, int]:
    """Copy the captions of all shards to `out`, `rate` of them exchanged; returns how many, and of how many.

    Raises:
        DatasetError: there are no shards, or a shard has no captions.
    """
    out.mkdir(parents=True, exist_ok=True)
    changed = total = 0
    for shard in list_shards(shards):
        found = read_caption_file(captions_path(captions, shard.stem))
        chance = random.Random(f"{seed}/{shard.stem}")
        texts = [text for _, text in found.rows]
        rows = []
        for key, text in found.rows:
            spoilt = chance.choice(texts) if chance.random() < rate else text
            changed += spoilt != text
            rows.append((key, spoilt))
        total += len(rows)
        write_captions(captions_path(out, shard.stem), rows, options={"spoilt": rate}, source=found.source)
    return changed, total
