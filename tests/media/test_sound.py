"""The sound of a video is where its pictures are, whatever the file's clock and gaps."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipvip.media.container import UnreadableVideo
from clipvip.media.sound import Damage, Sound, UnreadableSound, read_sound
from make_sound import RATE, damage_middle, make_talk
from make_videos import make_video


def _spans(pieces: list[Sound]) -> list[tuple[float, float]]:
    """Where the tone is, by tenths of a second, in seconds from zero."""
    spans: list[tuple[float, float]] = []
    for piece in pieces:
        step = RATE // 10
        for number in range(len(piece.samples) // step):
            loud = np.abs(piece.samples[step * number : step * (number + 1)]).mean() > 0.05
            start = round(piece.start_seconds + number / 10, 1)
            if loud and spans and abs(spans[-1][1] - start) < 0.11:
                spans[-1] = (spans[-1][0], round(start + 0.1, 1))
            elif loud:
                spans.append((start, round(start + 0.1, 1)))
    return spans


def _read(path: Path, *, piece_seconds: float = 100.0, **more: Any) -> list[Sound]:
    return list(read_sound(path, rate=RATE, piece_seconds=piece_seconds, **more))


@pytest.mark.parametrize(
    ("how", "spans"),
    [
        ({"tones": [(1, 2), (4, 5)]}, [(1, 2), (4, 5)]),
        ({"tones": [(1, 2), (4, 5)], "rate": 48_000, "layout": "stereo"}, [(1, 2), (4, 5)]),
        # Sound that begins later than the pictures, and one of which a part is lost.
        ({"tones": [(3, 5)], "sound_from": 2.0}, [(3, 5)]),
        ({"tones": [(1, 2), (4, 5)], "lost": (2.5, 3.5)}, [(1, 2), (4, 5)]),
        ({"tones": [(1, 2), (18, 19)], "lost": (3, 17), "seconds": 20.0}, [(1, 2), (18, 19)]),
        # A clock that begins anywhere: times are from the first picture.
        ({"tones": [(1, 2)], "clock_from": 3.0}, [(1, 2)]),
        ({"tones": [(3, 5)], "sound_from": 2.0, "clock_from": 3.0}, [(3, 5)]),
    ],
)
def test_what_is_heard_is_where_it_is_shown(
    how: dict[str, Any], spans: list[tuple[float, float]], tmp_path: Path
) -> None:
    found = _spans(_read(make_talk(tmp_path / "talk.mkv", **how)))
    assert np.allclose(found, spans, atol=0.11), found


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.mp4", "aac", 44_100),
        ("a.ts", "mp2", 48_000),
        ("a.mkv", "libopus", 48_000),
        ("a.avi", "mp3", 44_100),
    ],
)
def test_containers_and_codecs(name: str, codec: str, rate: int, tmp_path: Path) -> None:
    found = _spans(_read(make_talk(tmp_path / name, tones=[(1, 2), (4, 5)], codec=codec, rate=rate)))
    assert [(round(a), round(b)) for a, b in found] == [(1, 2), (4, 5)]


def test_pieces_follow_each_other_and_are_cut_where_it_is_quiet(tmp_path: Path) -> None:
    path = make_talk(tmp_path / "talk.mkv", tones=[(0, 1.5), (2.0, 4.4), (4.8, 6.0)])
    whole = _read(path)
    pieces = _read(path, piece_seconds=2.5)
    assert len(pieces) >= 3
    for before, after in pairwise(pieces):
        assert after.start_seconds == pytest.approx(before.start_seconds + len(before.samples) / RATE)
    assert np.array_equal(np.concatenate([piece.samples for piece in pieces]), whole[0].samples)
    first_cut = pieces[1].start_seconds
    assert 1.5 < first_cut < 2.0


def test_a_video_without_sound_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableSound) as caught:
        _read(make_video(tmp_path / "silent.mp4"))
    assert caught.value.reason == "no_sound"
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(UnreadableVideo) as broken:
        _read(tmp_path / "text.mp4")
    assert broken.value.reason == "undecodable_video"


def test_damaged_packets_are_counted_and_left_silent(tmp_path: Path) -> None:
    path = make_talk(tmp_path / "talk.mp4", tones=[(0, 6)], codec="aac")
    damage_middle(path)
    damage, beats = Damage(), list[int]()
    pieces = _read(path, damage=damage, heartbeat=lambda: beats.append(1))
    assert damage.num_packets > 0 and beats
    assert _spans(pieces)[0][0] < 0.2
    assert 5.5 * RATE < sum(len(piece.samples) for piece in pieces) < 6.2 * RATE


def test_a_playlist_opens_nothing(tmp_path: Path) -> None:
    make_talk(tmp_path / "secret.mkv")
    (tmp_path / "innocent.mp4").write_text("ffconcat version 1.0\nfile secret.mkv\n")
    with pytest.raises(UnreadableVideo):
        _read(tmp_path / "innocent.mp4")
