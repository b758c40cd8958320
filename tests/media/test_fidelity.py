"""Each stored time and picture is right: known pictures, written at known times, over containers and codecs.

What is expected comes from the list of times that the test wrote and from numbers burnt into the pictures,
not from any decoder. Each file is cut at 3 frames a second, alone and with other clips, and at its full rate.
"""

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from itertools import accumulate, product
from pathlib import Path
from random import Random
from typing import Any

import av
import numpy as np
import pytest

from clipvip.media.sampling import uniform_indices
from clipvip.media.whole_file import read_frames
from clipvip.shards.building.cutting import CutOptions, cut_clips
from clipvip.shards.errors import Skip
from clipvip.shards.format.clip import Clip, StoredClip, make_key
from clipvip.shards.tar.reader import Sample
from known_videos import (
    SOUND_WARMS_UP_SECONDS,
    Known,
    Shown,
    burnt_in,
    expected_frames,
    shown_number,
    write_known,
)

SPANS = [(0.0, 1.5), (1.513, 3.0), (2.2, 4.37)]
TOLERANCE_SECONDS = 2e-3

X264 = {"g": "12", "bf": "2", "preset": "veryfast"}
OPEN = {**X264, "x264-params": "open-gop=1"}
PYRAMID = {**X264, "bf": "5", "x264-params": "b-pyramid=normal:ref=4"}
INTERLACED = {**X264, "x264-params": "tff=1"}
X265 = {"preset": "ultrafast", "x265-params": "log-level=none:pools=1:keyint=12:bframes=3:open-gop=1"}
VPX = {"deadline": "realtime", "cpu-used": "8", "g": "30"}
HIDDEN_FRAMES = {"deadline": "good", "cpu-used": "5", "lag-in-frames": "16", "auto-alt-ref": "1", "g": "60"}
AV1 = {"preset": "8", "crf": "15", "svtav1-params": "keyint=30"}
MPEG = {"g": "12", "bf": "2"}
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}

NTSC = Fraction(30_000, 1001)
DRAW = Random(1)
UNEVEN = [Fraction(ms, 1000) for ms in accumulate(DRAW.choices([10, 20, 30, 50, 100], k=109), initial=0)]
GAP = [Fraction(n, 25) + (2 if n >= 40 else 0) for n in range(110)]
HELD = [*(Fraction(n, 25) for n in range(30)), *(Fraction(n, 25) + 3 for n in range(30, 55))]
LATE = [Fraction(n, 25) + Fraction(1, 2) for n in range(110)]
RUNS_OVER = Fraction(2**33, 90_000) - 2  # two seconds before the clock of 33 bits does


def h264(**settings: object) -> Known:
    return Known(**{"options": X264, **settings})  # type: ignore[arg-type]


def mpeg(codec: str = "mpeg2video", **settings: object) -> Known:
    return Known(codec, **{"options": MPEG, "even_clock": True, **settings})  # type: ignore[arg-type]


CONTAINERS: dict[str, Known] = {
    **{f"h264.{name}": h264() for name in ("mp4", "mov", "mkv", "flv", "ts", "m2ts", "3gp", "wtv")},
    **{f"open.{name}": h264(options=OPEN) for name in ("mp4", "mkv", "ts")},
    **{f"uneven.{name}": h264(times=UNEVEN) for name in ("mp4", "mov", "mkv", "flv", "ts", "m2ts")},
    **{f"gap.{name}": h264(times=GAP) for name in ("mp4", "mov", "mkv", "flv", "ts")},
    **{f"held.{name}": h264(times=HELD) for name in ("mp4", "mkv", "flv", "ts")},
    **{f"late.{name}": h264(clock_seconds=Fraction(100)) for name in ("mp4", "mkv", "flv", "ts", "wtv")},
    **{f"edited.{name}": h264(hidden=20) for name in ("mp4", "mov")},
    **{f"interlaced.{name}": h264(options=INTERLACED) for name in ("mp4", "mkv", "ts")},
    **{f"ntsc.{name}": h264(rate=NTSC) for name in ("mp4", "mkv", "ts")},
    "fragments.mp4": h264(container_options=FRAGMENTS),
    "uneven_fragments.mp4": h264(times=UNEVEN, container_options=FRAGMENTS),
    "negative_offsets.mp4": h264(container_options={"movflags": "negative_cts_offsets"}),
    "no_edit_list.mp4": h264(container_options={"use_editlist": "0"}),
    "pyramid.mp4": h264(options=PYRAMID),
    "sixty.mp4": h264(rate=60, num_frames=280),
}
WITHOUT_TIMES: dict[str, Known] = {
    **{f"h264.{name}": h264(even_clock=True) for name in ("avi", "h264", "mxf")},
    "h264.asf": h264(),
    "h264.mpg": h264(options={**X264, "bf": "0"}, container="vob"),
    "open.avi": h264(options=OPEN, even_clock=True),
    "pyramid.avi": h264(options=PYRAMID, even_clock=True),
    "interlaced.avi": h264(options=INTERLACED, even_clock=True),
    "no_b_frames.avi": h264(options={**X264, "bf": "0"}, even_clock=True),
    "ntsc.avi": h264(rate=NTSC, even_clock=True),
    "hevc.hevc": Known("libx265", options=X265, even_clock=True),
    **{f"mpeg2.{name}": mpeg() for name in ("avi", "m2v", "mpg", "vob")},
    **{f"mpeg1.{name}": mpeg("mpeg1video") for name in ("mpg", "m1v")},
    "mpeg4.avi": mpeg("mpeg4"),
    "late.mpg": mpeg(clock_seconds=Fraction(100)),
    "ntsc.mpg": mpeg(rate=NTSC),
    "interlaced.mpg": mpeg(options={**MPEG, "flags": "+ildct+ilme"}),
}
CODECS: dict[str, Known] = {
    **{f"hevc.{name}": Known("libx265", options=X265) for name in ("mp4", "mkv", "ts", "flv")},
    "uneven_hevc.mp4": Known("libx265", options=X265, times=UNEVEN),
    "vp8.webm": Known("libvpx", options=VPX),
    **{f"vp8.{name}": Known("libvpx", options=VPX, even_clock=True) for name in ("avi", "ogg")},
    "vp9.webm": Known("libvpx-vp9", options=VPX),
    "gap.webm": Known("libvpx-vp9", options=VPX, times=GAP),
    "uneven.webm": Known("libvpx-vp9", options=VPX, times=UNEVEN),
    "late.webm": Known("libvpx-vp9", options=VPX, clock_seconds=Fraction(100)),
    **{f"hidden_frames.{name}": Known("libvpx-vp9", options=HIDDEN_FRAMES) for name in ("webm", "mp4")},
    **{f"av1.{name}": Known("libsvtav1", options=AV1) for name in ("mp4", "webm")},
    **{f"mpeg2.{name}": mpeg() for name in ("ts", "mkv", "mp4", "mov", "mxf")},
    **{f"mpeg4.{name}": mpeg("mpeg4") for name in ("mp4", "mkv", "ts")},
    "mpeg4_no_b_frames.avi": mpeg("mpeg4", options={"g": "12", "bf": "0"}),
    "msmpeg4.avi": mpeg("msmpeg4", options={"g": "12"}),
    "wmv2.wmv": mpeg("wmv2", options={"g": "12"}, container="asf"),
    "late.wmv": mpeg("wmv2", options={"g": "12"}, container="asf", clock_seconds=Fraction(100)),
    "flv1.flv": mpeg("flv", options={"g": "12"}),
    "h263.3gp": mpeg("h263", options={"g": "12"}, size=(176, 144)),
    "rv20.rm": mpeg("rv20", options={"g": "12"}, size=(176, 144)),
    "mjpeg.avi": mpeg("mjpeg", options={}, pixels="yuvj420p"),
    "prores.mov": mpeg("prores_ks", options={}, pixels="yuv422p10le"),
    "ffv1.mkv": mpeg("ffv1", options={}),
    "dv.avi": mpeg("dvvideo", options={}, size=(720, 576)),
}
JOINED_AND_RUN_OVER: dict[str, Known] = {
    **{
        f"{name}_{'restarts' if restarts else 'continues'}.ts": Known(
            codec, options=options, even_clock=True, parts=4, restarts=restarts, clock_seconds=Fraction(10)
        )
        for name, codec, options in (
            ("h264", "libx264", X264),
            ("open", "libx264", OPEN),
            ("mpeg2", "mpeg2video", MPEG),
            ("hevc", "libx265", X265),
        )
        for restarts in (False, True)
    },
    # The first part is muxed later by its two B-frames, since no time is below zero: the second overlaps it.
    "overlaps.ts": h264(even_clock=True, parts=4),
    "overlaps_mpeg2.ts": mpeg(parts=3),
    "joined_at_hours.ts": h264(parts=4, restarts=True, clock_seconds=Fraction(50_000)),
    "joined_after_all.ts": h264(parts=2, restarts=True, clock_seconds=RUNS_OVER),
    "joined.mpg": mpeg(parts=4, restarts=True),
    "joined.h264": h264(even_clock=True, parts=4, restarts=True),
    "runs_over.ts": h264(clock_seconds=RUNS_OVER),
    "runs_over.m2ts": h264(clock_seconds=RUNS_OVER),
    "runs_over_at_once.ts": h264(clock_seconds=RUNS_OVER + 2 - Fraction(1, 25)),
    "runs_over_hevc.ts": Known("libx265", options=X265, clock_seconds=RUNS_OVER),
    "runs_over_mpeg2.ts": mpeg(clock_seconds=RUNS_OVER),
    "runs_over.mpg": mpeg(clock_seconds=RUNS_OVER),
    "runs_over_in_hours.ts": h264(clock_seconds=RUNS_OVER - 7000),
}
"""Files are named for their kind and by the container that they are in."""

ALL = {"a": CONTAINERS, "b": WITHOUT_TIMES, "c": CODECS, "d": JOINED_AND_RUN_OVER}
QUICK = {
    *("h264.mp4", "h264.mkv", "open.ts", "uneven.mkv", "gap.mov", "held.mp4", "held.mkv", "late.flv"),
    *("edited.mp4", "h264.avi", "mpeg2.mpg", "mpeg4.avi", "vp9.webm", "msmpeg4.avi", "late.wmv"),
    *("h264_continues.ts", "h264_restarts.ts", "runs_over.ts", "interlaced.ts"),
}


def mostly_slow(cases: Iterable[tuple[Any, ...]], num_quick: int) -> list[Any]:
    """Of the cases all but the first few as slow tests; a tuple in a case is several arguments."""
    flat = [sum((v if type(v) is tuple else (v,) for v in case), ()) for case in cases]
    return [pytest.param(*case, marks=[pytest.mark.slow] * (n >= num_quick)) for n, case in enumerate(flat)]


def cut(path: Path, spans: list[tuple[float, float]], fps: float) -> list[StoredClip | Skip]:
    clips = [Clip(make_key("v", n), "v", f"v.{n}.mp4", *span) for n, span in enumerate(spans)]
    options = CutOptions(fps=fps, size=96, store="frames", quality=90)
    return list(cut_clips(path, clips, subtitles=[""] * len(clips), options=options))


def stored(outcome: StoredClip | Skip) -> Shown:
    """What a clip's record says of its frames, and what these show."""
    assert isinstance(outcome, StoredClip), outcome
    sample = Sample(outcome.record.key, outcome.record, outcome.extension, outcome.pixels)
    pictures = sample.decode(range(sample.num_frames))
    return [(t, shown_number(p)) for t, p in zip(outcome.record.frame_seconds, pictures, strict=True)]


def check(path: Path, shown: Shown, rate: float, later_seconds: float = 0.0) -> None:
    shown = [(seconds + later_seconds, number) for seconds, number in shown]
    length = shown[-1][0] + 1 / rate
    spans = [*SPANS, (length - 1.214, length)]
    for fps, some in [(3, spans), (3, spans[1:2]), (3, spans[-1:]), (rate, spans), (120, [(0.0, length)])]:
        for span, outcome in zip(some, cut(path, some, fps), strict=True):
            expected, found = expected_frames(shown, span, fps), stored(outcome)
            assert [n for _, n in found] == [n for _, n in expected], (fps, span)
            assert [t for t, _ in found] == pytest.approx([t for t, _ in expected], abs=TOLERANCE_SECONDS), (
                fps,
                span,
            )
    numbers = [number for _, number in shown]
    expected_numbers = [numbers[index] for index in uniform_indices(len(numbers), 8)]
    assert [shown_number(picture) for picture in read_frames(path, 8)] == expected_numbers


@pytest.mark.parametrize(
    ("name", "known"),
    [
        pytest.param(name, known, id=f"{group}-{name}", marks=[] if name in QUICK else pytest.mark.slow)
        for group, kinds in ALL.items()
        for name, known in kinds.items()
    ],
)
def test_every_time_and_picture_is_right(tmp_path: Path, name: str, known: Known) -> None:
    check(write_known(tmp_path / name, known), known.shown, float(known.rate))


@pytest.mark.parametrize(
    ("name", "times", "seconds"),
    mostly_slow(
        product(["v.mkv", "v.ts", "v.mp4", "v.mov", "v.flv"], [(LATE, 5.0), ((), 8.0), ((), 3.0)]),
        num_quick=4,
    ),
)
def test_sound_that_begins_or_ends_elsewhere(
    tmp_path: Path, name: str, times: list[Fraction], seconds: float
) -> None:
    """Times count from where the sound begins, with what of it only warms up its decoder."""
    known = h264(times=times, sound_seconds=seconds)
    later = 0.0 if name in ("v.mp4", "v.mov", "v.mkv") else SOUND_WARMS_UP_SECONDS
    shown = [(float(t), n) for n, t in enumerate(known.written)]
    check(write_known(tmp_path / name, known), shown, 25, later)


def pack_b_frames(source: Path, target: Path) -> None:
    """Put each B-frame of MPEG-4 into the packet before it, and a stub in its place, as DivX did."""
    start = b"\0\0\1\xb6"  # of a picture; the two bits behind tell its kind
    with av.open(str(source)) as file, av.open(str(target), "w") as packed:
        stream = packed.add_stream_from_template(file.streams.video[0])
        data = [bytes(packet) for packet in file.demux(video=0) if packet.size]
        kinds = ["IPBS"[picture[picture.index(start) + 4] >> 6] for picture in data]
        signed = data[0].replace(b"Lavc", b"DivX", 1)
        place = signed.index(b"DivX") + 4
        data[0] = signed[:place] + b"503b1393p" + signed[signed.index(b"\0", place) :]
        for number, (picture, kind) in enumerate(zip(data, kinds, strict=True)):
            following = data[number + 1] if kinds[number + 1 : number + 2] == ["B"] else b""
            packet = av.Packet(start + b"\x50\0\0\x7f" if kind == "B" else picture + following)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 25)
            packet.is_keyframe = kind == "I"
            packed.mux(packet)


def test_packed_b_frames(tmp_path: Path) -> None:
    known = mpeg("mpeg4", options={"g": "12", "bf": "1"}, num_frames=121)
    pack_b_frames(write_known(tmp_path / "plain.avi", known), tmp_path / "v.avi")
    check(tmp_path / "v.avi", known.shown, 25)


TS_BYTES = 188
GROUP = 12
STEADY = {**X264, "x264-params": f"keyint={GROUP}:scenecut=0"}


def pictures_in(data: bytes) -> list[int]:
    """Which picture each packet of a transport stream belongs to: the n-th in order of decoding, or -1."""
    places, number = [], -1
    for start in range(0, len(data), TS_BYTES):
        is_video = int.from_bytes(data[start + 1 : start + 3], "big") & 0x1FFF == 0x100
        number += is_video and bool(data[start + 1] & 0x40)
        places.append(number if is_video else -1)
    return places


@pytest.mark.parametrize(
    ("decoded", "codec"),
    mostly_slow(
        product([3 * GROUP + 6, 3 * GROUP + 1, 4 * GROUP - 2], ["libx264", "mpeg2video", "libx265"]),
        num_quick=2,
    ),
)
def test_a_mark_on_a_whole_packet_costs_nothing(tmp_path: Path, codec: str, decoded: int) -> None:
    """From some packet on the numbers are others, as where recordings are joined, but inside a group."""
    options = {"libx264": STEADY, "libx265": X265, "mpeg2video": MPEG}[codec]
    known = Known(codec, options=options, even_clock=True)
    data = bytearray(write_known(tmp_path / "whole.ts", known).read_bytes())
    for place, number in enumerate(pictures_in(data)):
        if number >= decoded:
            header = place * TS_BYTES + 3
            data[header] = data[header] & 0xF0 | (data[header] + 5) & 0x0F
    path = tmp_path / "v.ts"
    path.write_bytes(data)
    check(path, known.shown, 25)


@pytest.mark.parametrize(
    ("num_lost", "decoded", "even_clock"),
    mostly_slow(
        product([2, 1, 5], [3 * GROUP + 6, 3 * GROUP, 3 * GROUP + 1, 4 * GROUP - 1], [False, True]),
        num_quick=3,
    ),
)
def test_lost_bytes_cost_what_is_built_on_them(
    tmp_path: Path, decoded: int, num_lost: int, even_clock: bool
) -> None:
    """No picture is wrong, and those of other groups are there, at each rate."""
    known = h264(options=STEADY, even_clock=even_clock)
    data = write_known(tmp_path / "whole.ts", known).read_bytes()
    first = pictures_in(data).index(decoded) + (decoded % GROUP == 0)  # of keyframes the second packet
    path = tmp_path / "v.ts"
    path.write_bytes(data[: first * TS_BYTES] + data[(first + num_lost) * TS_BYTES :])
    untouched = {n for n in range(110) if n // GROUP not in {decoded // GROUP, (decoded + num_lost) // GROUP}}
    for fps in (3, 25):
        for span, outcome in zip(SPANS, cut(path, SPANS, fps), strict=True):
            found, expected = stored(outcome), expected_frames(known.shown, span, fps)
            times = {number: seconds for seconds, number in known.shown}
            assert [t for t, _ in found] == pytest.approx([times[n] for _, n in found], abs=TOLERANCE_SECONDS)
            assert {n for _, n in expected} & untouched <= {n for _, n in found}, (fps, span)


@pytest.mark.parametrize("sounds", [(2.4, 0.0), (0.0, 2.4)], ids=["first", "second"])
def test_a_joint_of_which_one_part_has_no_sound(tmp_path: Path, sounds: tuple[float, float]) -> None:
    parts = [
        write_known(tmp_path / "p.ts", h264(num_frames=60, sound_seconds=s)).read_bytes() for s in sounds
    ]
    path = tmp_path / "v.ts"
    path.write_bytes(b"".join(parts))
    later = SOUND_WARMS_UP_SECONDS if sounds[0] else 0.0
    check(path, [(n / 25, n % 60) for n in range(120)], 25, later)


def test_a_joint_where_the_clock_goes_on(tmp_path: Path) -> None:
    """By a hundred seconds that nobody recorded; elsewhere that is a picture that stands so long."""
    first = h264(num_frames=60)
    second = replace(first, clock_seconds=Fraction(100))
    parts = [write_known(tmp_path / "p.ts", part).read_bytes() for part in (first, second)]
    path = tmp_path / "v.ts"
    path.write_bytes(b"".join(parts))
    check(path, [(n / 25, n % 60) for n in range(120)], 25)


def test_a_joint_with_other_packet_ids(tmp_path: Path) -> None:
    """The last packet before it is lost: FFmpeg gives it at the end of the file."""
    first = Known(options={**X264, "bf": "0"}, num_frames=60)
    second = replace(first, clock_seconds=Fraction(60, 25), container_options={"mpegts_start_pid": "400"})
    parts = [write_known(tmp_path / "p.ts", part).read_bytes() for part in (first, second)]
    path = tmp_path / "v.ts"
    path.write_bytes(b"".join(parts))
    check(path, [(n / 25, n % 60) for n in range(120) if n != 59], 25)


def test_a_picture_does_not_stand_where_others_are_lost(tmp_path: Path) -> None:
    data = write_known(tmp_path / "whole.ts", h264(options=STEADY)).read_bytes()
    places = pictures_in(data)
    path = tmp_path / "v.ts"
    path.write_bytes(b"".join(data[188 * n : 188 * n + 188] for n, p in enumerate(places) if not 30 < p < 59))
    lost, after = cut(path, [(1.45, 2.2), (2.4, 3.0)], 3)
    assert isinstance(lost, Skip) and lost.reason == "no_frames"
    assert [number for _, number in stored(after)] == [60, 69]


def test_a_picture_that_shows_no_number_is_not_read() -> None:
    one, other = burnt_in(77, 160, 96).astype(float), burnt_in(78, 160, 96)
    assert shown_number(one) == 77
    half = np.concatenate([one[:48], other[48:]])
    assert [shown_number(p) for p in (half, (one + other) / 2, one * 0, one.swapaxes(0, 1))] == [-1] * 4
