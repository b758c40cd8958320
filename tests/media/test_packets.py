"""Leaving packets out: the frames that are needed are those of a full decoding, byte for byte."""

import hashlib
import json
import random
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from clipvip.media import decode as video_module
from clipvip.media.decode import open_video
from clipvip.media.errors import MediaError
from clipvip.shards.building.cutting import CutOptions, cut_clips
from clipvip.shards.errors import Skip
from clipvip.shards.format.clip import Clip, StoredClip, make_key
from make_videos import make_video

OPTIONS = CutOptions(fps=3, size=96, store="frames", quality=85)


def frames(path: Path, needed: Any = None) -> tuple[dict[float, str], str]:
    """A digest of each frame that comes, by its time, and the damage."""
    found = {}
    with open_video(path, size=64) as video:
        for seconds, frame in video.frames(needed) if needed else video.frames():
            found[seconds] = hashlib.sha256(video.scale(frame).tobytes()).hexdigest()
        return found, video.damage


@cache
def all_frames(path: Path) -> tuple[dict[float, str], str]:
    return frames(path)


def check_random_needs(path: Path, seed: int) -> int:
    """Need some stretches of a video, some thinned out; the number of frames that came beyond those."""
    expected, damage = all_frames(path)
    times, draw = sorted(expected), random.Random(seed)
    wanted = set()
    for _ in range(draw.randint(1, 3)):
        start = draw.randrange(len(times))
        wanted.update(
            times[start : start + draw.randint(1, len(times) // 3 + 1) : draw.choice([1, 1, 7, 10])]
        )
    found, found_damage = frames(path, lambda previous, seconds, following: seconds in wanted)
    if not damage:
        assert found_damage == ""
    for seconds in wanted:
        assert found.get(seconds) == expected[seconds], (path.name, seed, seconds)
    for seconds in found.keys() & expected.keys():
        assert found[seconds] == expected[seconds], (path.name, seed, seconds)
    return len(found) - len(wanted)


KINDS: dict[str, dict[str, Any]] = {
    "h264.mp4": {},
    "h264.mkv": {},
    "h264.ts": {},
    "open.mp4": {"codec_options": {"x264-params": "open-gop=1"}},
    "open.ts": {"codec_options": {"x264-params": "open-gop=1"}},
    "open.mkv": {"codec_options": {"x264-params": "open-gop=1"}},
    "refresh.mp4": {"codec_options": {"x264-params": "intra-refresh=1", "bf": "0"}},
    "refresh.ts": {"codec_options": {"x264-params": "intra-refresh=1", "bf": "0"}},
    "pyramid.mp4": {"codec_options": {"bf": "5", "x264-params": "b-pyramid=normal:ref=4"}},
    "intra.mp4": {"keyframe_every": 1},
    "mpeg4.avi": {"codec": "mpeg4", "time_base": Fraction(1, 30)},
    "mpeg4.mp4": {"codec": "mpeg4", "time_base": Fraction(1, 30)},
    "mpeg2.ts": {"codec": "mpeg2video", "time_base": Fraction(1, 30)},
    "vp9.webm": {"codec": "libvpx-vp9", "codec_options": {"deadline": "realtime", "cpu-used": "8"}},
    "hevc.mp4": {"codec": "libx265", "codec_options": {"x265-params": "log-level=none:open-gop=1:pools=1"}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kinds")


def made(folder: Path, name: str) -> Path:
    path = folder / name
    return path if path.exists() else make_video(path, num_frames=150, **KINDS[name])


@pytest.mark.parametrize("name", KINDS)
def test_needed_frames_are_those_of_a_full_decoding(folder: Path, name: str) -> None:
    path = made(folder, name)
    assert len(all_frames(path)[0]) >= 140
    for seed in range(12):
        check_random_needs(path, seed)


@pytest.mark.slow
@pytest.mark.needs_shared
def test_needed_frames_of_real_files(shared_dir: Path) -> None:
    rows = json.loads((shared_dir / "data/videos/manifest.json").read_text())
    names = [row["file"] for row in rows if row["decoded_frames"] and row["decoded_frames"] < 400]
    assert len(names) > 20
    for name in names:
        check_random_needs(shared_dir / "data/videos" / name, seed=len(name))


@pytest.mark.slow
@pytest.mark.needs_shared
def test_needed_frames_of_real_files_often(shared_dir: Path) -> None:
    rows = json.loads((shared_dir / "data/videos/manifest.json").read_text())
    for name in (row["file"] for row in rows if row["decoded_frames"]):
        for seed in range(20):
            check_random_needs(shared_dir / "data/videos" / name, seed)


def test_what_lies_between_is_not_decoded(folder: Path) -> None:
    """Keyframes are 12 frames apart: of 150 frames hardly more are decoded than those around the two."""
    expected = sorted(all_frames(made(folder, "h264.mp4"))[0])
    wanted = {expected[40], expected[130]}
    found, _ = frames(made(folder, "h264.mp4"), lambda previous, seconds, following: seconds in wanted)
    assert wanted <= found.keys()
    assert len(found) < 30


def test_a_keyframe_that_is_none_costs_time_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With intra refresh files mark places as keyframes where a decoder has nothing to begin with."""
    path = made(folder, "refresh.mp4")
    expected, _ = all_frames(path)
    opened: list[str] = []
    really_open = video_module.open_container

    def note_and_open(name: str) -> tuple[Any, Any]:
        opened.append(name)
        return really_open(name)

    monkeypatch.setattr(video_module, "open_container", note_and_open)
    late = sorted(expected)[100]
    found, damage = frames(path, lambda previous, seconds, following: seconds == late)
    assert (found[late], damage) == (expected[late], "")
    assert opened == [str(path)] * 2


def cut(path: Path, spans: list[tuple[float, float]]) -> list[StoredClip | Skip]:
    clips = [Clip(make_key("v", n), "v", f"v.{n}.mp4", *span) for n, span in enumerate(spans)]
    return list(cut_clips(path, clips, subtitles=[""] * len(clips), options=OPTIONS))


def test_damage_between_clips_hurts_neither(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", num_frames=300)
    whole = cut(path, [(0, 1), (8, 9)])
    data = bytearray(path.read_bytes())
    start = data.find(b"mdat") + 4
    middle = start + (data.find(b"moov") - start) // 2
    data[middle : middle + 400] = bytes(400)
    path.write_bytes(data)
    assert cut(path, [(0, 1), (8, 9)]) == whole
    early, over_it, late = cut(path, [(0, 1), (4, 6), (8, 9)])
    assert early == whole[0]
    assert [outcome.reason for outcome in (over_it, late) if isinstance(outcome, Skip)] == [
        "undecodable_video"
    ] * 2


def test_a_clip_before_a_gap_survives_damage_right_after_it(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", num_frames=300)
    (whole,) = cut(path, [(0, 1)])
    data = bytearray(path.read_bytes())
    start, end = data.find(b"mdat") + 4, data.find(b"moov")
    data[start + (end - start) // 2 : end - 4] = bytes(end - 4 - start - (end - start) // 2)
    path.write_bytes(data)
    early, late = cut(path, [(0, 1), (8, 9)])
    assert early == whole
    assert isinstance(late, Skip) and late.reason == "undecodable_video"


def test_no_file_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(MediaError), open_video(tmp_path / "nothing.mp4", size=64):
        pass
