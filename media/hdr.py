"""Pictures of HDR video (PQ and HLG) as the SDR pictures that all else here is, and that models have seen.

Shown as they are, such pictures look grey and dim: their numbers mean light of up to 10,000 cd/m2 in the
colours of BT.2020. They are turned into light (ITU-R BT.2100), what is brighter than white is bent towards it
(the curve of BT.2390), colours outside of BT.709 become the nearest inside, and the light becomes the numbers
of a usual screen (BT.1886). What a file says of the screen on which it was made is not used: equal pictures
come out equal, whatever stands beside them.

FFmpeg's filters for that need zimg, which PyAV's wheels lack; its scaler makes a table of two seconds' work
for each video, and anew where metadata change. This takes some milliseconds for a picture as it is stored.
"""

from functools import cache
from typing import Any, Literal

import numpy as np
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc, VideoReformatter

Transfer = Literal["pq", "hlg"]

# In cd/m2: white as BT.2408 has it, and the brightest of HLG's screen and of most that was made in PQ.
_WHITE, _PEAK = 203.0, 1000.0
_SCREEN_GAMMA = 2.4
_SCREEN_STEPS = 16384
_ROWS_AT_ONCE = 128  # bounds memory: of 8192 pixels each 40 MB

# From linear RGB of these primaries to that of BT.709, all with the white D65.
_BT2020_TO_709 = (
    (1.660491, -0.587641, -0.072850),
    (-0.124550, 1.132900, -0.008349),
    (-0.018151, -0.100579, 1.118730),
)
_P3_TO_709 = ((1.224940, -0.224940, 0.0), (-0.042057, 1.042057, 0.0), (-0.019638, -0.078636, 1.098274))
_TO_709 = {ColorPrimaries.BT709: None, ColorPrimaries.SMPTE432: _P3_TO_709}


def transfer_of(picture: Any) -> Transfer | None:
    """How a frame's, or a decoder's, numbers are to be read if it is HDR; None for all else."""
    if picture.color_trc == ColorTrc.SMPTE2084:
        return "pq"
    return "hlg" if picture.color_trc == ColorTrc.ARIB_STD_B67 else None


def to_sdr(
    frame: Any, width: int, height: int, interpolation: int, reformatter: VideoReformatter
) -> np.ndarray:
    """An HDR frame, scaled: uint8 (height, width, 3), RGB of BT.709 for a usual screen."""
    transfer = transfer_of(frame)
    assert transfer is not None, "to_sdr() is for HDR frames"
    is_told = frame.colorspace not in (2, 3)  # unspecified and reserved
    signal = reformatter.reformat(
        frame,
        width=width,
        height=height,
        format="rgb48le",
        src_colorspace=None if is_told else Colorspace.BT2020,
        interpolation=interpolation,
        threads=1,
    ).to_ndarray()
    picture = np.empty(signal.shape, np.uint8)
    matrix = _TO_709.get(frame.color_primaries, _BT2020_TO_709)
    for start in range(0, height, _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        light = _light_of_pq(signal[rows]) if transfer == "pq" else _light_of_hlg(signal[rows])
        picture[rows] = _shown(light, matrix)
    return picture


def _shown(light: np.ndarray, matrix: tuple[tuple[float, ...], ...] | None) -> np.ndarray:
    """What a usual screen is given for light, float32 (..., 3), where 1 is white."""
    if matrix is not None:
        red, green, blue = np.moveaxis(light, -1, 0)
        light = np.stack([r * red + g * green + b * blue for r, g, b in matrix], -1, dtype=np.float32)
    roots = np.sqrt(np.clip(light, 0, 1))  # finer near black, as what is looked up
    return _screen_table()[np.rint(roots * (_SCREEN_STEPS - 1)).astype(np.uint16)]


def _light_of_pq(signal: np.ndarray) -> np.ndarray:
    """Of uint16 (..., 3): the brightest channel is bent, the others follow, so that hues stay."""
    light, bend = _pq_tables()
    return light[signal] * bend[signal.max(-1, keepdims=True)]


def _light_of_hlg(signal: np.ndarray) -> np.ndarray:
    scene = _hlg_table()[signal]
    luminance = 0.2627 * scene[..., :1] + 0.6780 * scene[..., 1:2] + 0.0593 * scene[..., 2:]
    light = scene * np.maximum(luminance, np.float32(1e-6)) ** np.float32(0.2)  # HLG's screen of 1000 cd/m2
    _, bend = _pq_tables()
    brightest = np.rint(_to_pq(light.max(-1, keepdims=True) * _PEAK) * 65535).astype(np.uint16)
    return light * np.float32(_PEAK / _WHITE) * bend[brightest]


@cache
def _screen_table() -> np.ndarray:
    """What a usual screen is given, uint8, for the squares of equal steps from 0 to 1."""
    light = np.linspace(0, 1, _SCREEN_STEPS) ** 2
    return np.rint(light ** (1 / _SCREEN_GAMMA) * 255).astype(np.uint8)


@cache
def _pq_tables() -> tuple[np.ndarray, np.ndarray]:
    """Of each PQ number of 16 bits: its light, where 1 is white, and its factor if it is the brightest."""
    signal = np.arange(65536) / 65535
    light = _from_pq(signal)
    peak, white = _to_pq(np.array([_PEAK, _WHITE]))
    part, most = np.minimum(signal / peak, 1), white / peak
    knee = 1.5 * most - 0.5
    t = np.maximum((part - knee) / (1 - knee), 0)
    curve = (
        (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * most
    )
    bent = _from_pq(np.where(part > knee, curve, part) * peak)
    bend = np.divide(bent, light, out=np.ones_like(light), where=light > 0)
    return (light / _WHITE).astype(np.float32), bend.astype(np.float32)


@cache
def _hlg_table() -> np.ndarray:
    """Of each HLG number of 16 bits: light of the scene, 0 to 1."""
    signal = np.arange(65536) / 65535
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    bright = (np.exp((np.maximum(signal, 0.5) - c) / a) + b) / 12
    return np.where(signal <= 0.5, signal**2 / 3, bright).astype(np.float32)


_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 32, 107 / 128, 2413 / 128, 2392 / 128


def _from_pq(signal: np.ndarray) -> np.ndarray:
    """Light in cd/m2 of PQ numbers, 0 to 1 (SMPTE ST 2084)."""
    root = signal ** (1 / _M2)
    return 10_000 * (np.maximum(root - _C1, 0) / (_C2 - _C3 * root)) ** (1 / _M1)


def _to_pq(light: np.ndarray) -> np.ndarray:
    root = (light / 10_000) ** _M1
    return ((_C1 + _C2 * root) / (1 + _C3 * root)) ** _M2
