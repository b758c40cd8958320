"""HDR becomes SDR: known light comes out as the numbers that a usual screen needs for it."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorTrc, VideoReformatter

from clipvip.media import hdr
from clipvip.media.decode import open_video
from clipvip.media.whole_file import read_frames
from clipvip.shards.building.cutting import CutOptions, cut_clips
from clipvip.shards.format.clip import Clip, StoredClip
from clipvip.shards.format.record import parse_record
from clipvip.shards.tar.reader import Sample

WIDTH, HEIGHT = 128, 96
TRANSFERS = {"pq": ColorTrc.SMPTE2084, "hlg": ColorTrc.ARIB_STD_B67, "sdr": ColorTrc.BT709}
OPTIONS = CutOptions(fps=3, size=HEIGHT, store="frames", quality=95)


def make_flat(path: Path, signal: tuple[float, float, float], transfer: str, codec: str = "libx265") -> Path:
    """A second of one colour; `signal` is RGB of BT.2020, 0 to 1, as it is coded."""
    ten_bits = codec == "libx265"
    options = {"preset": "ultrafast", "x265-params": "log-level=none:pools=1", "threads": "1", "qp": "4"}
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream(codec, rate=12, options=options)
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "yuv420p10le" if ten_bits else "yuv420p"
        context = stream.codec_context
        context.color_trc, context.color_primaries = TRANSFERS[transfer], ColorPrimaries.BT2020
        context.colorspace, context.color_range = 9, 1  # BT.2020, not constant luminance; limited
        red, green, blue = signal
        luma = 0.2627 * red + 0.6780 * green + 0.0593 * blue
        planes = (luma * 219 + 16, (blue - luma) / 1.8814 * 224 + 128, (red - luma) / 1.4746 * 224 + 128)
        for number in range(12):
            frame = av.VideoFrame(WIDTH, HEIGHT, stream.pix_fmt)
            for plane, value in zip(frame.planes, planes, strict=True):
                kind, scale = (np.uint16, 4) if ten_bits else (np.uint8, 1)
                plane.update(
                    np.full(plane.buffer_size // kind(0).nbytes, round(value * scale), kind).tobytes()
                )
            frame.pts, frame.time_base = number, Fraction(1, 12)
            frame.color_trc, frame.color_primaries = TRANSFERS[transfer], ColorPrimaries.BT2020
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def pq_of(light: float) -> float:
    """SMPTE ST 2084, of cd/m2."""
    power = (light / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def stored(path: Path) -> StoredClip:
    (clip,) = cut_clips(path, [Clip("v_00000", "v", "v", 0.0, 1.0)], subtitles=[""], options=OPTIONS)
    assert isinstance(clip, StoredClip), clip
    return clip


def shown(path: Path) -> np.ndarray:
    """The colour of the stored pictures, which is that of what `encode_video` sees."""
    clip = stored(path)
    sample = Sample(clip.record.key, clip.record, clip.extension, clip.pixels)
    colour = sample.decode([0, 2]).mean((0, 1, 2))
    frames = read_frames(path, 2)
    assert np.abs(frames.astype(int) - frames[0, 0, 0]).max() <= 2
    assert frames.mean((0, 1, 2)) == pytest.approx(colour, abs=3)
    return colour


# Light in cd/m2 as ITU-R BT.2408 has it for signals: 38% is the grey card of 26, 75% of HLG white.
@pytest.mark.parametrize(
    ("transfer", "level", "expected"),
    [
        ("pq", 0.0, 0),
        ("pq", 0.38, round((26 / 203) ** (1 / 2.4) * 255)),
        ("pq", pq_of(60), round((60 / 203) ** (1 / 2.4) * 255)),
        ("pq", pq_of(1000), 255),
        ("pq", 1.0, 255),
        ("hlg", 0.0, 0),
        ("hlg", 0.38, round((26 / 203) ** (1 / 2.4) * 255)),
        ("hlg", 1.0, 255),
    ],
)
def test_greys(tmp_path: Path, transfer: str, level: float, expected: int) -> None:
    colour = shown(make_flat(tmp_path / "v.mp4", (level,) * 3, transfer))
    assert colour == pytest.approx([expected] * 3, abs=4)


def test_what_is_brighter_stays_brighter_and_white_is_bright(tmp_path: Path) -> None:
    signals = [("pq", pq_of(light)) for light in (100, 203, 400, 800)]
    greys = [shown(make_flat(tmp_path / "v.mp4", (level,) * 3, transfer))[1] for transfer, level in signals]
    assert (np.diff([180, *greys, 256]) > 0).all() and 215 < greys[1] < 240
    white_of_hlg = shown(make_flat(tmp_path / "v.mp4", (0.75,) * 3, "hlg"))[1]
    assert white_of_hlg == pytest.approx(greys[1], abs=4)


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_colours_of_a_usual_screen_come_out_pure(tmp_path: Path, channel: int) -> None:
    """Each primary of BT.709, in the coordinates of BT.2020 (ITU-R BT.2087), at 26 cd/m2."""
    of_709 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
    red, green, blue = (pq_of(float(light)) for light in 26 * of_709[:, channel])
    colour = shown(make_flat(tmp_path / "v.mp4", (red, green, blue), "pq"))
    expected = np.zeros(3)
    expected[channel] = (26 / 203) ** (1 / 2.4) * 255
    assert colour == pytest.approx(expected, abs=14)  # coded in 4:2:0 JPEG, near black


def test_the_record_says_so(tmp_path: Path) -> None:
    for transfer in ("pq", "hlg", "sdr"):
        record = stored(make_flat(tmp_path / "v.mp4", (0.4,) * 3, transfer)).record
        told = record.as_dict()
        assert told.get("source_transfer", "sdr") == transfer
        again = parse_record(record.model_dump_json(by_alias=True, exclude_unset=True).encode())
        assert again.as_dict() == told


def test_hdr_of_eight_bits_is_mapped_too(tmp_path: Path) -> None:
    """Which decord, that reads such files, does not do."""
    path = make_flat(tmp_path / "v.mp4", (0.38,) * 3, "hlg", codec="libx264")
    with open_video(path) as video:
        assert hdr.transfer_of(video.stream.codec_context) == "hlg"
    assert shown(path) == pytest.approx([108] * 3, abs=4)


def test_rows_are_mapped_alike_however_many_there_are(tmp_path: Path) -> None:
    """They are mapped in bands, to bound memory."""
    frame = av.VideoFrame(64, 300, "yuv420p10le")
    noise = np.random.default_rng(0)
    for plane in frame.planes:
        plane.update(noise.integers(64, 940, plane.buffer_size // 2, dtype=np.uint16).tobytes())
    frame.color_trc, frame.color_primaries = ColorTrc.SMPTE2084, ColorPrimaries.BT2020

    def mapped(rows: int) -> np.ndarray:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(hdr, "_ROWS_AT_ONCE", rows)
            return hdr.to_sdr(frame, 64, 300, 0, VideoReformatter())

    assert np.array_equal(mapped(7), mapped(1000))
    assert mapped(128).std() > 20
