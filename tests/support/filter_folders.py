"""Shards of clips of the demo's world, which its CLIP tells apart, with copies and leaks put in."""

import random
from functools import partial
from pathlib import Path

import numpy as np

import commands
from clipvip.experiments.demo.render import render_clip
from clipvip.experiments.demo.run import WEIGHTS
from clipvip.experiments.demo.world import World, draw_distinct_scenes
from clipvip.media.jpeg import encode_jpeg
from clipvip.model import ClipVip
from clipvip.shards.format.clip import Clip, StoredClip, make_key
from clipvip.shards.format.manifest import write_manifest
from clipvip.shards.tar.writer import write_shard

NUM_CLIPS = 18
ALIKE = 0.98
run = partial(commands.run, "filter", "--device", "cpu")
run_well = partial(commands.run_well, "filter", "--device", "cpu")


def files_in(folder: Path, *, but: tuple[str, ...] = ()) -> dict[str, bytes]:
    """Every file but those of some names: path -> bytes."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if path.name not in but}


def make_model(folder: Path) -> Path:
    ClipVip.from_clip(WEIGHTS / "clip", temporal_size=2).save_pretrained(folder)
    return folder


def videos(num: int = NUM_CLIPS, *, seed: int = 0) -> list[np.ndarray]:
    """The frames of different clips, uint8 (12, height, width, 3)."""
    scenes = draw_distinct_scenes(random.Random(seed), World(), num)
    return [render_clip(scene, num_frames=12) for scene in scenes]


def clip_of(
    frames: np.ndarray, video_id: str, *, number: int = 0, text: str = "", quality: int = 92
) -> StoredClip:
    jpegs = [encode_jpeg(frame, quality=quality) for frame in frames]
    start, (num_frames, height, width, _) = 10.0 * number, frames.shape
    return StoredClip.of(
        Clip(make_key(video_id, number), video_id, f"{video_id}.{number}", start, start + num_frames / 3),
        subtitle=text,
        pixels=b"".join(jpegs),
        frame_seconds=[start + index / 3 for index in range(num_frames)],
        frame_bytes=list(map(len, jpegs)),
        width=width,
        height=height,
        source_width=width,
        source_height=height,
        source_fps=30.0,
    )


def write_folder(folder: Path, clips: list[StoredClip], *, per_shard: int = 8) -> Path:
    folder.mkdir(parents=True)
    parts = [clips[start : start + per_shard] for start in range(0, len(clips), per_shard)]
    records = [write_shard(folder / f"{n:06d}.tar", part) for n, part in enumerate(parts)]
    write_manifest(folder, stage="shard", options={}, shards=records)
    return folder


def make_world(folder: Path) -> Path:
    """Shards clips/: 18 different clips, a re-encoded and a shifted copy, and a clip of the set test/."""
    different = videos()
    texts = [f"clip {number} has words of {number} and of {number + 1}" for number in range(NUM_CLIPS)]
    clips = [clip_of(one, f"clip{n:02d}", text=texts[n]) for n, one in enumerate(different)]
    clips.append(clip_of(different[2], "again", text="other words for it", quality=40))
    clips.append(clip_of(different[5][1:], "shifted", text="und noch ein paar deutsche Worte dazu"))
    (unseen,) = videos(1, seed=99)
    clips.append(clip_of(unseen, "leaked", text="nothing is said of the test set in this clip at all"))
    write_folder(folder / "clips", clips)
    test = [
        clip_of(unseen[:-1], "test0", text="the object of a test set moves from the left over to the right"),
        clip_of(videos(2, seed=7)[1], "test1", text="Clip 3 has words -- of 3, and of 4!"),
    ]
    write_folder(folder / "test", test)
    make_model(folder / "model")
    return folder
