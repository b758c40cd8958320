"""Cutting clips out of videos: which frames are taken, how they look, and what bad videos give."""

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from clipvip.media.container import ANY_TAGS
from clipvip.media.jpeg import DEFAULT_JPEG_QUALITY
from clipvip.shards.building.cutting import CutOptions, cut_clips
from clipvip.shards.errors import Skip
from clipvip.shards.format.clip import Clip, StoredClip, make_key
from clipvip.shards.tar.reader import Sample
from make_videos import make_edited_video, make_video, read_number

FRAMES = CutOptions(fps=3, size=256, store="frames", quality=DEFAULT_JPEG_QUALITY)
VIDEO = CutOptions(fps=3, size=256, store="video", quality=18)


def cut(
    path: Path, spans: Sequence[tuple[float, float]], options: CutOptions = FRAMES
) -> list[StoredClip | Skip]:
    clips = [Clip(make_key("v", n), "v", f"v.{n}.mp4", *span) for n, span in enumerate(spans)]
    return list(cut_clips(path, clips, subtitles=[f"text {n}" for n in range(len(clips))], options=options))


def numbers(result: StoredClip | Skip) -> list[int]:
    return [read_number(picture) for picture in pictures(result)]


def pictures(result: StoredClip | Skip) -> np.ndarray:
    assert isinstance(result, StoredClip), result
    sample = Sample(result.record.key, result.record, result.extension, result.pixels)
    return sample.decode(range(sample.num_frames))


def outcome(result: StoredClip | Skip) -> str:
    return result.reason if isinstance(result, Skip) else "kept"


@pytest.mark.parametrize("options", [FRAMES, VIDEO], ids=["frames", "video"])
def test_the_frames_at_the_asked_times(tmp_path: Path, options: CutOptions) -> None:
    path = make_video(tmp_path / "v.mp4", num_frames=120)
    first, second, third = cut(path, [(0, 1), (0.5, 2.04), (3.01, 4)], options)
    assert numbers(first) == [0, 10, 20]
    assert numbers(second) == [15, 25, 35, 45, 55]
    assert numbers(third) == [91, 101, 111]  # the first frames not before 3.01, 3.343, 3.677 s
    assert isinstance(third, StoredClip)
    assert third.record.frame_seconds == pytest.approx([91 / 30, 101 / 30, 111 / 30], abs=1e-4)
    assert (third.record.source_fps, third.record.subtitle) == (30.0, "text 2")


def test_clips_come_in_the_order_asked(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", num_frames=120)
    late, early, all_of_it = cut(path, [(2, 3), (0, 1), (0, 4)])
    assert numbers(late) == [60, 70, 80]
    assert numbers(early) == [0, 10, 20]
    assert numbers(all_of_it) == list(range(0, 120, 10))


def test_variable_frame_rate_goes_by_time(tmp_path: Path) -> None:
    times = [0, 0.1, 0.9, 1.0, 1.05, 1.1, 3.0, 3.5, 3.6]
    path = make_video(tmp_path / "v.mp4", times=times)
    assert numbers(cut(path, [(0, 2)])[0]) == [0, 2, 3]
    assert numbers(cut(path, [(0.95, 3.55)])[0]) == [3, 6, 7]


def test_a_picture_that_stands_still_is_on_the_screen(tmp_path: Path) -> None:
    """Picture 5 stands from 1.1 to 3.0 s, picture 8 from 3.6 s to the end."""
    times = [0.5, 0.7, 0.9, 1.0, 1.05, 1.1, 3.0, 3.5, 3.6]
    path = make_video(tmp_path / "v.mkv", times=times, with_sound_seconds=4.0)
    spans = [(1.2, 2.9), (1.2, 1.25), (2, 4), (2.6, 4), (0, 1), (0, 0.4), (3.61, 3.62), (1.0, 3.2)]
    throughout, short, begins, soon, first, before, at_end, own = cut(path, spans)
    assert [numbers(clip) for clip in (throughout, short, at_end)] == [[5], [5], [8]]
    assert numbers(begins) == [5, 6, 7]
    assert numbers(soon) == [6, 7, 8]  # the next picture comes within half a second
    assert numbers(first) == [0, 1]  # nothing stands before the first picture
    assert outcome(before) == "no_frames"
    assert numbers(own) == [3, 6]
    for clip, seconds in [(throughout, [1.2]), (begins, [2, 3.0, 3.5]), (at_end, [3.61])]:
        assert isinstance(clip, StoredClip)
        assert clip.record.frame_seconds == pytest.approx(seconds, abs=1e-3)
    assert isinstance(begins, StoredClip) and isinstance(alone := cut(path, [(2, 4)])[0], StoredClip)
    assert alone.pixels == begins.pixels  # whatever else is asked of the file
    assert numbers(cut(path, [(2, 4)], VIDEO)[0]) == [5, 6, 7]
    few = CutOptions(fps=3, size=256, store="video", quality=18, max_frames=2)
    assert numbers(cut(path, [(2, 4)], few)[0]) == [5, 6]


def test_a_late_picture_keeps_the_files_clock(tmp_path: Path) -> None:
    """The sound starts at 0, the picture at 0.5 s: subtitles count from 0."""
    times = [0.5 + n / 30 for n in range(60)]
    path = make_video(tmp_path / "v.mkv", times=times, with_sound_seconds=2.5)
    assert numbers(cut(path, [(1, 2)])[0]) == [15, 25, 35]


def test_a_file_that_starts_late_as_a_whole_starts_at_zero(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.ts", times=[100 + n / 30 for n in range(60)])
    assert numbers(cut(path, [(0, 1)])[0]) == [0, 10, 20]


def test_frames_before_an_edit_are_not_shown(tmp_path: Path) -> None:
    """Cut without re-encoding: the file begins at a keyframe 0.4 s before its edit list lets it be seen."""
    path = make_edited_video(tmp_path / "v.mp4")
    assert numbers(cut(path, [(0, 1)])[0]) == [12, 22, 32]


def test_a_low_rate_gives_no_frame_twice(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", times=[0, 1, 2, 3])
    assert numbers(cut(path, [(0, 3.5)])[0]) == [0, 1, 2, 3]


def test_max_frames_spreads_them(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", num_frames=120)
    options = CutOptions(fps=3, size=256, store="frames", quality=85, max_frames=4)
    long, short = cut(path, [(0, 4), (0, 1)], options)
    assert numbers(long) == [0, 30, 60, 90]
    assert numbers(short) == [0, 10, 20]


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ((0, 2), "kept"),
        ((1, 2.9), "kept"),  # within the tolerance of 1 s
        ((1, 3.1), "span_past_end"),
        ((2, 3), "span_past_end"),
        ((50, 51), "span_past_end"),
        ((1.99, 2), "kept"),  # the last picture is shown throughout
        ((1.99, 3.1), "span_past_end"),
    ],
)
def test_spans_at_the_end(tmp_path: Path, span: tuple[float, float], expected: str) -> None:
    path = make_video(tmp_path / "v.mp4", num_frames=60)
    result, all_of_it = cut(path, [span, (0, 2)])
    assert outcome(result) == expected
    assert numbers(all_of_it) == list(range(0, 60, 10))


def test_a_truncated_video_gives_the_clips_before_the_damage(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "whole.mp4", num_frames=300, movflags="faststart")
    data = whole.read_bytes()
    path = tmp_path / "v.mp4"
    path.write_bytes(data[: len(data) * 6 // 10])
    spans = [(n, n + 1) for n in range(10)]
    results = [outcome(result) for result in cut(path, spans)]
    num_kept = results.count("kept")
    assert 4 <= num_kept <= 6
    assert results == ["kept"] * num_kept + ["undecodable_video"] * (10 - num_kept)
    kept = cut(path, spans[:num_kept])
    assert [numbers(clip) for clip in kept] == [[30 * n, 30 * n + 10, 30 * n + 20] for n in range(num_kept)]


def test_damage_in_the_middle_stops_there(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", num_frames=300)
    data = bytearray(path.read_bytes())
    start = data.find(b"mdat") + 4
    middle = start + (data.find(b"moov") - start) // 2
    data[middle : middle + 400] = bytes(400)
    path.write_bytes(data)
    results = cut(path, [(n, n + 1) for n in range(10)])
    assert numbers(results[0]) == [0, 10, 20]
    assert {outcome(result) for result in results} == {"kept", "undecodable_video"}
    for number, result in enumerate(results):
        if isinstance(result, StoredClip):
            assert numbers(result) == [30 * number, 30 * number + 10, 30 * number + 20]


def test_what_is_no_video(tmp_path: Path) -> None:
    files = {
        "empty.mp4": b"",
        "text.mp4": b"This is not a video.",
        "playlist.mp4": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nv.ts\n#EXT-X-ENDLIST\n",
        "list.mp4": b"ffconcat version 1.0\nfile v.ts\n",
    }
    make_video(tmp_path / "v.ts")
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        assert [outcome(r) for r in cut(tmp_path / name, [(0, 1), (1, 2)])] == ["undecodable_video"] * 2, name


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", pixel_aspect=Fraction(2, 1))
    (clip,) = cut(path, [(0, 1)])
    assert isinstance(clip, StoredClip)
    shape = clip.record
    assert (shape.source_width, shape.source_height, shape.width, shape.height) == (320, 96, 320, 96)
    assert numbers(clip) == [0, 10, 20]


@pytest.mark.parametrize(
    ("size", "expected"), [(256, (160, 96)), (96, (160, 96)), (48, (80, 48)), (50, (84, 50)), (47, (78, 48))]
)
def test_scaling_is_even_keeps_the_shape_and_never_enlarges(
    tmp_path: Path, size: int, expected: tuple[int, int]
) -> None:
    path = make_video(tmp_path / "v.mp4", num_frames=12)
    (clip,) = cut(path, [(0, 0.4)], CutOptions(fps=3, size=size, store="frames", quality=85))
    assert isinstance(clip, StoredClip)
    assert (clip.record.width, clip.record.height) == expected
    assert numbers(clip) == [0, 10]


@pytest.mark.parametrize("options", [FRAMES, VIDEO], ids=["frames", "video"])
def test_equal_input_gives_equal_bytes(tmp_path: Path, options: CutOptions) -> None:
    path = make_video(tmp_path / "v.mp4")
    assert cut(path, [(0, 2)], options) == cut(path, [(0, 2)], options)


def real_files(shared_dir: Path) -> list[dict[str, Any]]:
    return json.loads((shared_dir / "data/videos/manifest.json").read_text())


@pytest.mark.needs_shared
def test_every_real_file_is_kept_or_named(shared_dir: Path) -> None:
    rows = real_files(shared_dir)
    assert len(rows) > 20
    for row in rows:
        expected = "kept"
        if row["decoded_frames"] == 0 or row["decoded_frames"] is None:
            expected = "no_video_stream" if row["audio_codec"] else "undecodable_video"
        results = cut(shared_dir / "data/videos" / row["file"], [(0, 0.99)])
        assert [outcome(r) for r in results] == [expected], row["file"]


@pytest.mark.needs_shared
@pytest.mark.parametrize(
    "name",
    [
        "nasa_13013.mp4",
        "nasa_13013_hdr.mp4",
        "googlework_short.mp4",
        "exo_roadtrip_vp9_10bit.webm",
        "exo_desks_h263.3gp",
        "no_duration.webm",
        "awesome movie.mov",
        "portrait_rot.MOV",
        "sideways movie.mov",
        "video_180.mov",
        "climbing_portrait_14s.mp4",
    ],
)
def test_real_frames_are_those_of_an_independent_reading(shared_dir: Path, name: str) -> None:
    path = shared_dir / "data/videos" / name
    (clip,) = cut(path, [(0, 4)])
    if isinstance(clip, Skip):
        (clip,) = cut(path, [(0, 0.9)])
    assert isinstance(clip, StoredClip)
    stored = pictures(clip)
    for index in (0, len(stored) // 2, len(stored) - 1):
        shape = clip.record
        expected = _seek_and_decode(path, shape.frame_seconds[index], shape.width, shape.height)
        assert np.abs(stored[index].astype(int) - expected).mean() < 6, (name, index)


def _seek_and_decode(path: Path, seconds: float, width: int, height: int) -> np.ndarray:
    """The frame at `seconds`, by seeking, through RGB, with the rotation done by numpy."""
    with av.open(str(path), **ANY_TAGS) as container:
        stream = container.streams.best("video")
        assert stream is not None and stream.time_base is not None
        container.seek(max(0, int((seconds - 1) / stream.time_base)), stream=stream)
        for frame in container.decode(stream):
            if frame.time is not None and frame.time >= seconds - 1e-3:
                turns = frame.rotation // 90
                size = (width, height) if turns % 2 == 0 else (height, width)
                picture = frame.to_ndarray(
                    format="rgb24", width=size[0], height=size[1], interpolation="BICUBIC"
                )
                return np.rot90(picture, turns).astype(int)
    raise AssertionError(f"no frame at {seconds} s")


def test_an_unknown_codec_is_told(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4")
    path.write_bytes(path.read_bytes().replace(b"avc1", b"a~c1"))
    (result,) = cut(path, [(0, 1)])
    assert isinstance(result, Skip)
    assert (result.reason, "codec" in result.detail) == ("undecodable_video", True)


def test_a_stream_that_begins_in_the_middle_ends_what_can_be_read(tmp_path: Path) -> None:
    first = make_video(tmp_path / "a.ts", codec="mpeg2video", time_base=Fraction(1, 30))
    others = {"mpegts_start_pid": "400", "mpegts_pmt_start_pid": "5000"}
    second = make_video(tmp_path / "b.ts", codec="mpeg2video", time_base=Fraction(1, 30), **others)
    path = tmp_path / "v.ts"
    path.write_bytes(first.read_bytes() * 3 + second.read_bytes())
    within, beyond = map(outcome, cut(path, [(0, 1), (0, 9)]))
    assert within == "kept"
    # PyAV 19 passes over packets of a stream that its header does not list: the video ends before them.
    assert beyond == ("undecodable_video" if int(av.__version__.split(".")[0]) < 19 else "span_past_end")
