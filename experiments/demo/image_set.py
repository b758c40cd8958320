"""Labelled pictures of the world as an ordinary image-text WebDataset (KEY.jpg, KEY.txt), such as CC12M is.

Stands for the image-caption data of Table 4: right about what is seen, of other scenes than the videos.
"""

import io
import tarfile
from pathlib import Path

from clipvip.experiments.demo.pictures import draw_pictures
from clipvip.experiments.demo.texts import alt_text
from clipvip.experiments.demo.world import World, chance_of
from clipvip.media.jpeg import encode_jpeg
from clipvip.shards.files.atomic import atomic_path

_JPEG_QUALITY = 90


def write_images(world: World, path: Path) -> None:
    """Write `world.num_images` pictures with labels to the tar file `path`, unless it is there."""
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    chance = chance_of(world, "image labels")
    number = 0
    with atomic_path(path) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
        for scenes, frames in draw_pictures(world, "images", count=world.num_images, times=(0.05, 0.95)):
            for scene, frame in zip(scenes, frames, strict=True):
                _add(tar, f"{number:06d}.jpg", encode_jpeg(frame, quality=_JPEG_QUALITY))
                _add(tar, f"{number:06d}.txt", alt_text(scene, chance).encode())
                number += 1


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
