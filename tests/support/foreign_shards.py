"""Shards as others' tools write them: KEY.mp4 or a picture, KEY.txt and KEY.json, in their order."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

from make_videos import make_video

NUM_FRAMES, FPS = 20, 10
TEXTS = ("a bird flies", "two dogs run", "waves roll in", "a man\twaves  his hat\n")


def write_tar(path: Path, samples: Mapping[str, Mapping[str, bytes]]) -> Path:
    """key -> extension -> content, in that order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, members in samples.items():
            for extension, data in members.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def video_bytes(folder: Path, **options: Any) -> bytes:
    """An MP4 whose frames show their numbers."""
    path = make_video(folder / "made.mp4", **{"num_frames": NUM_FRAMES, "fps": FPS, **options})
    data = path.read_bytes()
    path.unlink()
    return data


def picture_bytes(
    kind: str, colour: tuple[int, int, int] = (200, 40, 40), mode: str = "RGB", **options: Any
) -> bytes:
    """A picture of one colour, 48 x 32, of a kind of Pillow's."""
    out = io.BytesIO()
    Image.fromarray(np.full((32, 48, 3), colour, np.uint8)).convert(mode).save(out, kind, **options)
    return out.getvalue()


def record_of(key: str, text: str, **more: Any) -> bytes:
    """KEY.json as img2dataset and video2dataset have it."""
    record = {"url": f"https://example.org/{key}", "caption": text, "key": key, "status": "success"}
    return json.dumps(record | {"error_message": None} | more).encode()


def make_video2dataset(
    folder: Path, *, num_shards: int = 2, clips_per_shard: int = 3, first: int = 0
) -> Path:
    """A folder as video2dataset leaves it, tables and counts beside the shards."""
    data = video_bytes(folder)
    for shard in range(num_shards):
        samples, rows = {}, []
        for number in range(clips_per_shard):
            key = f"{first + shard:05d}{number:04d}"
            text = TEXTS[(shard * clips_per_shard + number) % len(TEXTS)]
            samples[key] = {"mp4": data, "txt": text.encode(), "json": record_of(key, text)}
            rows.append(
                {"key": key, "url": f"https://example.org/{key}", "caption": text, "status": "success"}
            )
        write_tar(folder / f"{first + shard:05d}.tar", samples)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"{first + shard:05d}.parquet")
        counts = {"count": clips_per_shard, "successes": clips_per_shard}
        (folder / f"{first + shard:05d}_stats.json").write_text(json.dumps(counts))
    return folder


def make_img2dataset(folder: Path, *, num_pictures: int = 4) -> Path:
    """A folder as img2dataset leaves it."""
    samples = {}
    for number in range(num_pictures):
        key, text = f"{number:09d}", f"picture {number}"
        data = picture_bytes("JPEG", (60 * number, 40, 40))
        record = record_of(key, text, width=48, height=32, exif="{}")
        samples[key] = {"jpg": data, "json": record, "txt": text.encode()}
    write_tar(folder / "00000.tar", samples)
    return folder
