"""`encode_video` and `clipvip-data shard` see the same frames of a file: those of one decoder, by one rule.

"The same" is: of the frames that the decoder yields, in order of time, `read_frames` has those at
`uniform_indices`, each pixel as decoded (RGB, upright, before any scaling), with decord and without; and a
shard's clip of the whole file, cut to as many frames, has the frames of the same times, which look alike
after scaling and JPEG. A file that the one refuses the other does.
"""

import json
import math
import sys
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipvip.media.decode import open_video
from clipvip.media.errors import MediaError
from clipvip.media.pictures import upright_rgb
from clipvip.media.sampling import uniform_indices
from clipvip.media.whole_file import read_frames
from clipvip.shards.building.cutting import CutOptions, cut_clips
from clipvip.shards.errors import Skip
from clipvip.shards.format.clip import Clip, StoredClip
from clipvip.shards.tar.reader import Sample
from make_videos import make_edited_video, make_video, read_number
from resources import need

NUM_FRAMES, SIZE = 8, 64
# More frames a second than any video has: all are stored, and then thinned out to as many as are read.
EVERY_FRAME = CutOptions(fps=240, size=SIZE, store="frames", quality=95, max_frames=NUM_FRAMES)


def decoded(path: Path) -> tuple[list[float], list[np.ndarray]] | None:
    """The times of all frames and, in the order of `uniform_indices`, pictures; None for a damaged file."""
    with suppress(MediaError), open_video(path) as video:
        times = [seconds for seconds, _ in video.frames()]
        if video.damage:
            return None
        video.rewind()
        wanted = uniform_indices(len(times), NUM_FRAMES).tolist()
        found = {n: upright_rgb(frame) for n, (_, frame) in enumerate(video.frames()) if n in wanted}
        return times, [found[index] for index in wanted]
    return None


def stored(path: Path) -> StoredClip | Skip:
    clip = Clip("v_00000", "v", "v.0.mp4", 0.0, float("inf"))
    (result,) = cut_clips(path, [clip], subtitles=[""], options=EVERY_FRAME)
    return result


def read_both_ways(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """By decord where it is trusted, and as where it is not installed."""
    need("decord")
    frames = read_frames(path, NUM_FRAMES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "decord", None)  # importing it then fails
        return frames, read_frames(path, NUM_FRAMES)


def check_same(path: Path) -> np.ndarray | None:
    """The frames that are read; None where both ways refuse the file."""
    expected, clip = decoded(path), stored(path)
    if expected is None:
        assert isinstance(clip, Skip)
        with pytest.raises(ValueError, match=r"does not decode as video"):
            read_both_ways(path)
        return None
    times, pictures = expected
    by_decord, frames = read_both_ways(path)
    assert np.array_equal(frames, np.stack(pictures))
    # Equal too, but for the rounding of another build of libswscale.
    assert np.abs(by_decord.astype(int) - frames).max() <= 2
    assert isinstance(clip, StoredClip), clip
    indices = uniform_indices(len(times), NUM_FRAMES)
    shown = sorted({round(times[index], 6) for index in indices})
    assert clip.record.frame_seconds == shown
    sample = Sample(clip.record.key, clip.record, clip.extension, clip.pixels)
    for index, picture in zip(indices, frames, strict=True):
        small = Image.fromarray(picture).resize(
            (clip.record.width, clip.record.height), Image.Resampling.BICUBIC
        )
        found = sample.decode([shown.index(round(times[index], 6))])[0]
        assert np.abs(np.asarray(small).astype(int) - found).mean() < 6, (path.name, index)
    return frames


KINDS: dict[str, dict[str, Any]] = {
    "h264.mp4": {},
    "h264.mkv": {},
    "h264.ts": {},
    "h264.avi": {"time_base": Fraction(1, 30)},
    "plain.h264": {"time_base": Fraction(1, 30)},
    "open.mp4": {"codec_options": {"x264-params": "open-gop=1"}},
    "refresh.mp4": {"codec_options": {"x264-params": "intra-refresh=1", "bf": "0"}},
    "uneven.mp4": {"times": [n / 30 + n // 7 for n in range(50)]},
    "late.mkv": {"times": [3 + n / 30 for n in range(50)]},
    "sound.mkv": {"with_sound_seconds": 6.0},
    "wide.mp4": {"pixel_aspect": Fraction(2, 1)},
    "mpeg4.avi": {"codec": "mpeg4", "time_base": Fraction(1, 30)},
    "mpeg2.ts": {"codec": "mpeg2video", "time_base": Fraction(1, 30)},
    "vp9.webm": {"codec": "libvpx-vp9", "codec_options": {"deadline": "realtime", "cpu-used": "8"}},
    "hevc.mp4": {"codec": "libx265", "codec_options": {"x265-params": "log-level=none:open-gop=1:pools=1"}},
    "short.mp4": {"num_frames": 3},
}


@pytest.mark.parametrize("name", KINDS)
def test_made_videos(tmp_path: Path, name: str) -> None:
    options = {"num_frames": 50, **KINDS[name]}
    frames = check_same(make_video(tmp_path / name, **options))
    assert frames is not None
    assert [read_number(picture) for picture in frames] == uniform_indices(
        options["num_frames"], NUM_FRAMES
    ).tolist()


def test_frames_before_an_edit_are_not_read(tmp_path: Path) -> None:
    path = make_edited_video(tmp_path / "v.mp4")
    frames = check_same(path)
    assert frames is not None
    assert [read_number(picture) for picture in frames] == [12, 18, 25, 32, 38, 45, 52, 59]


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.ts", "v.avi"])
def test_files_whose_end_is_missing(tmp_path: Path, name: str) -> None:
    options = {"movflags": "faststart"} if name == "v.mp4" else {}
    whole = make_video(tmp_path / "whole" / name, num_frames=150, with_sound_seconds=5.0, **options)
    data = whole.read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: len(data) * 6 // 10])
    found = check_same(path)
    # Of others nothing says how long they are to be: what is there is all.
    assert found is None or name in ("v.ts", "v.avi")


def test_damage_costs_what_is_built_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By PyAV; decord takes what its decoder makes up."""
    monkeypatch.setitem(sys.modules, "decord", None)
    path = make_video(tmp_path / "v.mp4", num_frames=150)
    data = bytearray(path.read_bytes())
    start = data.find(b"mdat") + 4
    middle = start + (data.find(b"moov") - start) // 2
    data[middle : middle + 400] = bytes(400)
    path.write_bytes(data)
    assert [read_number(picture) for picture in read_frames(path, 2)] == [0, 149]
    with pytest.raises(ValueError, match=r"v\.mp4: does not decode as video \(readable to 2\.\d+ s: "):
        read_frames(path, 50)
    assert isinstance(stored(path), Skip)


def real_videos(shared_dir: Path) -> list[Path]:
    rows = json.loads((shared_dir / "data/videos/manifest.json").read_text())
    cases = [path for path in (shared_dir / "cases/video").iterdir() if path.suffix not in (".csv", ".jsonl")]
    return [*(shared_dir / "data/videos" / row["file"] for row in rows), *sorted(cases)]


@pytest.mark.parametrize(
    ("name", "is_decords"), [("h264.mp4", True), ("open.mp4", False), ("hevc.mp4", False)]
)
def test_decord_reads_what_it_can_seek_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_decords: bool
) -> None:
    need("decord")
    import decord

    path, opened = make_video(tmp_path / name, **KINDS[name]), []
    really_open = decord.VideoReader
    monkeypatch.setattr(decord, "VideoReader", lambda *a, **k: opened.append(a) or really_open(*a, **k))
    read_frames(path, NUM_FRAMES)
    assert bool(opened) == is_decords


@pytest.mark.slow
@pytest.mark.needs_shared
def test_all_real_videos(shared_dir: Path) -> None:
    """And those of ours that mislead. The others hold no picture, but for one that is damaged after 3.3 s."""
    videos = real_videos(shared_dir)
    read = [path for path in videos if check_same(path) is not None]
    assert len(read) == 32
    assert "decord_corrupted.mp4" in {path.name for path in videos} - {path.name for path in read}


@pytest.mark.needs_shared
@pytest.mark.parametrize(
    ("name", "span", "fps", "seconds"),
    [
        ("hls_joined.ts", (46.252, 48.354), 3, [46.28, 46.6, 46.92, 47.28, 47.6, 47.92, 48.28]),
        ("starts_at_3s.mkv", (2, 4.8), 3, [2, 2.36, 2.68, 3, 3.36, 3.68, 4, 4.36, 4.68]),
        ("audio_longer.webm", (8, 10), 3, [8.007, 8.367, 8.687, 9.007, 9.367, 9.687]),
        ("h264_bframes.avi", (0, 4.8), 25, [n / 25 for n in range(120)]),
        ("field_coded.ts", (0, 1.04), 25, [n / 25 for n in range(26)]),
        ("field_coded.ts", (0, 1.04), 3, [0, 0.36, 0.68, 1]),
        ("held_frame.mkv", (0, 1.5), 3, [0, 0.36, 0.68, 1]),
        ("held_frame.mkv", (1.5, 3.9), 3, [1.5]),
        ("held_frame.mkv", (1.5, 3.9), 25, [1.5]),
        ("held_frame.mkv", (3.9, 5), 3, [4.04, 4.24, 4.6, 4.92]),
        ("audio_longer.webm", (0, math.inf), 25, [0.007 + n / 25 for n in range(250)]),
        ("starts_at_3s.mkv", (0, math.inf), 25, [n / 25 for n in range(120)]),
    ],
)
def test_clips_of_files_that_mislead(
    shared_dir: Path, name: str, span: tuple[float, float], fps: float, seconds: list[float]
) -> None:
    options = CutOptions(fps=fps, size=SIZE, store="frames", quality=85)
    path = shared_dir / "cases/video" / name
    (clip,) = cut_clips(path, [Clip("v_00000", "v", "v.0.mp4", *span)], subtitles=[""], options=options)
    assert isinstance(clip, StoredClip), clip
    assert clip.record.frame_seconds == pytest.approx(seconds, abs=2e-3)
