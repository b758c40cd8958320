"""What is measured of a clip without a model: motion and language."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import clipvip
from clipvip.experiments.demo.pictures import write_mp4
from clipvip.pipeline.filter.language import UNDETERMINED, language_of
from clipvip.pipeline.filter.motion import motion_of
from clipvip.shards.errors import DatasetError
from clipvip.shards.format.clip import StoredClip
from clipvip.shards.tar.reader import Sample
from filter_folders import clip_of, videos, write_folder


def sample_of(stored: StoredClip) -> Sample:
    return Sample(stored.record.key, stored.record, stored.extension, stored.pixels)


def moving(num_frames: int = 10, *, step: int, size: int = 96) -> np.ndarray:
    """A bright square that moves by `step` pixels a frame."""
    frames = np.full((num_frames, size, size, 3), 40, np.uint8)
    for number, frame in enumerate(frames):
        left = 5 + step * number
        frame[30:54, left : left + 24] = 220
    return frames


def motion(frames: np.ndarray, *, quality: int = 92) -> float:
    return motion_of(sample_of(clip_of(frames, "v", quality=quality)))


def test_more_movement_is_more_and_noise_is_little() -> None:
    still, slow, fast = (motion(moving(step=step)) for step in (0, 2, 6))
    assert still == 0 and 1 < slow < fast / 2
    # Square and ground differ by 180; of 96 columns 2 * 2 change, in a quarter of the rows; JPEG adds some.
    assert slow == pytest.approx(180 * 4 / 96 / 4, rel=0.3)
    rng = np.random.default_rng(0)
    noisy = (moving(step=0) + rng.normal(0, 2, (10, 96, 96, 3))).clip(0, 255).astype(np.uint8)
    assert motion(noisy, quality=60) < 1
    assert motion(moving(1, step=0)) == 0


def test_a_cut_counts_little() -> None:
    with_cut = np.concatenate([moving(6, step=0), 255 - moving(6, step=0)])
    assert motion(with_cut) == 0


def test_the_size_and_the_way_of_storing_change_little() -> None:
    (frames,) = videos(1)
    small = motion(frames)
    large = motion(frames.repeat(3, axis=1).repeat(3, axis=2))
    assert small > 0.5 and large == pytest.approx(small, rel=0.15)
    stored = clip_of(frames, "v")
    file = io.BytesIO()
    write_mp4(file, frames, crf="18")
    as_video = StoredClip(stored.record.model_copy(update={"frame_bytes": []}), file.getvalue())
    assert motion_of(sample_of(as_video)) == pytest.approx(small, rel=0.15)


def test_damaged_frames_are_an_error() -> None:
    sample = sample_of(clip_of(moving(step=2), "v"))
    with pytest.raises(DatasetError, match="not a readable JPEG"):
        motion_of(replace(sample, pixels=b"\0" * len(sample.pixels)))


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("a brown dog runs over the wet grass to its owner", "en"),
        ("ein brauner Hund läuft über das nasse Gras zu seinem Herrn", "de"),
        ("коричневая собака бежит по мокрой траве к хозяину", "ru"),
        ("一只棕色的狗跑过湿草地", "zh"),
        ("♪ 12:30 ♪", UNDETERMINED),
        ("", None),
    ],
)
def test_languages_are_told(text: str, language: str | None) -> None:
    assert language_of(text) == language


def test_the_function_does_as_the_command(tmp_path: Path) -> None:
    clips = [
        clip_of(moving(step=step), f"v{step}", text="one two three" if step else "one") for step in range(6)
    ]
    shards = write_folder(tmp_path / "clips", clips, per_shard=4)
    report = clipvip.filter(
        shards=shards, out=tmp_path / "out", min_words=2, max_motion=5, by="motion", top=0.5
    )
    kept = (tmp_path / "out/keep.txt").read_text().split()
    assert kept == ["v3_00000", "v4_00000"] and report.counts["kept"] == 2
    assert report.content["dropped"] == {"--min-words 2": 1, "--max-motion 5": 1, "--top 0.5": 2}
    options = clipvip.FilterOptions(shards=shards, out=tmp_path / "out", language=["en", "und"])
    assert options.tests == {} and clipvip.filter(options).counts["clips"] == 6
