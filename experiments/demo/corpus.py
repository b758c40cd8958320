"""A corpus as files in HD-VILA-100M's layout: videos, subtitles, clip lists, the splits of a downstream task.

train/videos/ID.mp4  train/subtitles/ID.en.vtt|.srt|.json3  train/metadata.jsonl
test/videos/ID.mp4   test/descriptions.jsonl                test/metadata.jsonl   (perhaps also finetune/)
texts/descriptions.txt   truth.jsonl (what each clip shows; no stage reads it)   perhaps images/000000.tar
"""

import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

from clipvip.experiments.demo.image_set import write_images
from clipvip.experiments.demo.pictures import FPS, write_mp4
from clipvip.experiments.demo.render import render_clip
from clipvip.experiments.demo.subtitle_files import clock, json3, rolling_vtt, spoken_lines, srt
from clipvip.experiments.demo.texts import description, subtitle
from clipvip.experiments.demo.world import REVERSED, Scene, World, chance_of, draw_distinct_scenes, draw_scene
from clipvip.pipeline.runtime.workers import run_plain_units
from clipvip.shards.files.atomic import atomic_path, atomic_write_bytes, write_json, write_jsonl
from clipvip.shards.format.clip import make_key

_CLIP_FRAMES = (24, 28, 32)
# Of these 2, 3, 4 or 7 frames lie evenly from first to last: a clip's frames are then those of its twin.
_TWIN_CLIP_FRAMES = (25, 31)
_COMPLETE_NAME, _WORLD_NAME = "corpus.json", "world.json"
_SUBTITLE_FORMATS = (("vtt", rolling_vtt), ("srt", srt), ("vtt", rolling_vtt), ("json3", json3))


@dataclass(frozen=True)
class SourceClip:
    """A clip within its video: what it shows, when, and what is said."""

    clip_id: str
    scene: Scene
    start_frame: int
    num_frames: int
    subtitle: str
    description: str

    @property
    def span_seconds(self) -> tuple[float, float]:
        return self.start_frame / FPS, (self.start_frame + self.num_frames) / FPS


@dataclass(frozen=True)
class SourceVideo:
    """A video of several clips, one after the other."""

    video_id: str
    clips: tuple[SourceClip, ...]


def plan_videos(world: World, split: str) -> list[SourceVideo]:
    """What the videos of `split` are to show; in a world of twins each test video is followed by its twin.

    Raises:
        ValueError: the world has too few different clips for test videos that are to differ.
    """
    if split == "test" and (world.twins or world.distinct_test):
        return _plan_distinct(world)
    videos = []
    for number in range(getattr(world, f"num_{split}_videos")):
        chance = chance_of(world, split, number)
        videos.append(_plan_video(world, _video_id(split, number, chance), chance))
    return videos


def _plan_distinct(world: World) -> list[SourceVideo]:
    count, size = world.num_test_videos, world.clips_per_video
    scenes = draw_distinct_scenes(chance_of(world, "test scenes"), world, count * size)
    videos = []
    for number in range(count):
        chance = chance_of(world, "test", number)
        splits = ("test", "twin") if world.twins else ("test",)
        video_ids = [_video_id(split, number, chance) for split in splits]
        shown = scenes[number * size : (number + 1) * size]
        lengths = [chance.choice(_clip_frames(world)) for _ in shown]
        kinds = [shown]
        if world.twins:
            kinds.append([replace(scene, motion=REVERSED[scene.motion], backwards=True) for scene in shown])
        for video_id, some in zip(video_ids, kinds, strict=True):
            videos.append(_plan_video(world, video_id, chance, list(zip(some, lengths, strict=True))))
    return videos


def _clip_frames(world: World) -> tuple[int, ...]:
    return _TWIN_CLIP_FRAMES if world.twins else _CLIP_FRAMES


def _video_id(split: str, number: int, chance: random.Random) -> str:
    """Eleven letters as on YouTube; the number keeps them apart."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return f"{split[:2]}{number:04d}" + "".join(chance.choice(letters) for _ in range(5))


def _plan_video(
    world: World, video_id: str, chance: random.Random, shown: list[tuple[Scene, int]] | None = None
) -> SourceVideo:
    """A video of the scenes with their numbers of frames in `shown`, or of scenes drawn at random."""
    clips = []
    start_frame = 0
    for n in range(world.clips_per_video):
        scene, num_frames = (
            shown[n] if shown else (draw_scene(chance, world), chance.choice(_clip_frames(world)))
        )
        said, described = subtitle(scene, world, chance), description(scene, chance)
        clips.append(SourceClip(f"{video_id}.{n}.mp4", scene, start_frame, num_frames, said, described))
        start_frame += num_frames
    return SourceVideo(video_id, tuple(clips))


def task_descriptions(world: World) -> list[str]:
    """Texts of the downstream task: of the test clips, and of as many more scenes as the world says."""
    of_test = [clip.description for video in plan_videos(world, "test") for clip in video.clips]
    chance = chance_of(world, "descriptions")
    return of_test + [description(draw_scene(chance, world), chance) for _ in range(world.num_descriptions)]


def write_corpus(
    world: World, out: Path, *, workers: int, on_done: Callable[[], None] = lambda: None
) -> None:
    """Write the whole corpus to `out`; videos that are there already are kept.

    Raises:
        ValueError: `out` holds the corpus of another world, or a video's process died.
    """
    if is_of_another(world, out):
        raise ValueError(f"{out}: holds a corpus made with other settings; remove it or give another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / _WORLD_NAME, as_json(world))
    truth: list[dict[str, Any]] = []
    for split in ("train", "finetune", "test") if world.num_finetune_videos else ("train", "test"):
        videos = plan_videos(world, split)
        for name in ("videos", "subtitles") if split == "train" else ("videos",):
            (out / split / name).mkdir(parents=True, exist_ok=True)
        _write_texts(videos, out / split, split)
        truth += [
            {"key": make_key(video.video_id, n), "clip_id": clip.clip_id, "scene": asdict(clip.scene)}
            for video in videos
            for n, clip in enumerate(video.clips)
        ]
        work = partial(write_video, folder=out / split / "videos")
        for outcome in run_plain_units(work, videos, workers=workers):
            if outcome.failure:
                raise ValueError(f"{out}: video {outcome.unit.video_id}: {outcome.failure.detail}")
            on_done()
    if world.num_images:
        write_images(world, out / "images" / "000000.tar")
    (out / "texts").mkdir(exist_ok=True)
    lines = "".join(f"{line}\n" for line in task_descriptions(world))
    atomic_write_bytes(out / "texts" / "descriptions.txt", lines.encode())
    write_jsonl(out / "truth.jsonl", truth)
    write_json(out / _COMPLETE_NAME, {"videos": num_videos(world)})


def num_videos(world: World) -> int:
    """How many videos the corpus has."""
    return world.num_train_videos + world.num_finetune_videos + world.num_test_videos * (1 + world.twins)


def is_complete(world: World, out: Path) -> bool:
    """Whether `write_corpus` has finished there, with these settings."""
    return (out / _COMPLETE_NAME).is_file() and not is_of_another(world, out)


def is_of_another(world: World, out: Path) -> bool:
    """Whether `out` holds a corpus of other settings; those that it is too old to name are as by default."""
    mark = out / _WORLD_NAME
    return mark.is_file() and as_json(World()) | json.loads(mark.read_text()) != as_json(world)


def as_json(world: World) -> dict[str, Any]:
    """The knobs of a world as JSON reads them back."""
    settings: dict[str, Any] = json.loads(json.dumps(asdict(world)))
    return settings


def read_truth(out: Path) -> dict[str, Scene]:
    """Key of each clip's sample -> what it shows."""
    rows = [json.loads(line) for line in (out / "truth.jsonl").read_text().splitlines()]
    return {row["key"]: Scene(**(row["scene"] | {"centre": tuple(row["scene"]["centre"])})) for row in rows}


def write_video(video: SourceVideo, *, folder: Path) -> Path:
    """Render and encode one video as H.264; always the same bytes for the same versions of the encoder."""
    path = folder / f"{video.video_id}.mp4"
    if path.is_file():
        return path
    pictures = (
        picture for clip in video.clips for picture in render_clip(clip.scene, num_frames=clip.num_frames)
    )
    with atomic_path(path) as temporary:
        write_mp4(str(temporary), pictures, crf="24", g="48")
    return path


def _write_texts(videos: list[SourceVideo], folder: Path, split: str) -> None:
    metadata = [
        {
            "video_id": video.video_id,
            "url": f"https://videos.example/watch?v={video.video_id}",
            "clip": [
                {"clip_id": clip.clip_id, "span": list(map(clock, clip.span_seconds))} for clip in video.clips
            ],
        }
        for video in videos
    ]
    write_jsonl(folder / "metadata.jsonl", metadata)
    if split != "train":
        clips = (clip for video in videos for clip in video.clips)
        rows = ({"clip_id": clip.clip_id, "text": clip.description} for clip in clips)
        write_jsonl(folder / "descriptions.jsonl", rows)
        return
    # Half of the videos have rolling captions, the others the other two formats.
    for video, (suffix, write) in zip(videos, cycle(_SUBTITLE_FORMATS)):
        lines = []
        for clip in video.clips:
            start, end = clip.span_seconds
            lines += spoken_lines(clip.subtitle, start_seconds=start + 0.05, end_seconds=end - 0.05)
        atomic_write_bytes(folder / "subtitles" / f"{video.video_id}.en.{suffix}", write(lines).encode())
