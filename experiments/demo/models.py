"""The demo's tiny CLIP and OFA as folders of one's own."""

from pathlib import Path

from clipvip.experiments.demo.world import WEIGHTS
from clipvip.shards.files.atomic import atomic_write_bytes


def copy_models(out: Path, *, keep: bool = False) -> None:
    """Copy both models to OUT/clip and OUT/ofa; with `keep` files that are there stay as they are."""
    for name in ("clip", "ofa"):
        (out / name).mkdir(parents=True, exist_ok=True)
        for file in sorted((WEIGHTS / name).iterdir()):
            copy = out / name / file.name
            if not (keep and copy.is_file()):
                atomic_write_bytes(copy, file.read_bytes())
