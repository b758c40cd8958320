"""Bytes and fidelity of stored frames by JPEG quality, on the frames that `shard` keeps of real videos.

Fidelity is of the luma against the scaled picture before compression: PSNR in dB, and SSIM over 8x8 windows.
"""

import argparse
from pathlib import Path

import numpy as np
import simplejpeg

from clipvip.media.decode import open_video
from clipvip.media.jpeg import encode_jpeg_planes
from clipvip.media.pictures import split_planes
from clipvip.shards.errors import DatasetError
from clipvip.shards.sources.hdvila import index_videos

_WINDOW = 8


def kept_pictures(
    folder: Path, *, size: int, every_seconds: float, most_per_video: int
) -> list[tuple[str, tuple]]:
    """(video id, planes) of a picture every `every_seconds` of each video that can be read."""
    found = []
    for video_id, path in index_videos(folder).items():
        kept = 0
        try:
            with open_video(path, size=size) as video:
                for seconds, frame in video.frames():
                    if kept < most_per_video and seconds >= kept * every_seconds:
                        assert video.geometry is not None
                        planes = split_planes(video.scale(frame), video.geometry.width, video.geometry.height)
                        found.append((video_id, planes))
                        kept += 1
        except DatasetError:
            continue
    return found


def ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Mean structural similarity of two uint8 pictures (height, width)."""
    windows = [
        np.lib.stride_tricks.sliding_window_view(picture.astype(np.float32), (_WINDOW, _WINDOW))[::4, ::4]
        for picture in (first, second)
    ]
    (mean_a, mean_b), (var_a, var_b) = ([w.mean((2, 3)) for w in windows], [w.var((2, 3)) for w in windows])
    covariance = (windows[0] * windows[1]).mean((2, 3)) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    top = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return float((top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("videos", type=Path, help="folder of real videos")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--qualities", type=int, nargs="+", default=[60, 70, 75, 80, 85, 90, 95])
    arguments = parser.parse_args()
    pictures = kept_pictures(arguments.videos, size=arguments.size, every_seconds=1 / 3, most_per_video=20)
    print(f"{len(pictures)} pictures of {len({video_id for video_id, _ in pictures})} videos")
    print("quality  KB/frame  bits/pixel  PSNR dB (mean, worst)  SSIM (mean, worst)")
    for quality in arguments.qualities:
        rows = []
        for _, planes in pictures:
            data = encode_jpeg_planes(*planes, quality=quality)
            luma = simplejpeg.decode_jpeg(data, colorspace="GRAY")[..., 0]
            error = float(((luma.astype(np.float32) - planes[0]) ** 2).mean())
            psnr = 10 * np.log10(255**2 / max(error, 1e-3))
            rows.append((len(data), 8 * len(data) / planes[0].size, psnr, ssim(luma, planes[0])))
        table = np.array(rows)
        size, bits, psnr, similarity = table.mean(0)
        print(
            f"{quality:7d}  {size / 1000:8.1f}  {bits:10.2f}  {psnr:14.2f}, {table[:, 2].min():5.2f}"
            f"  {similarity:11.4f}, {table[:, 3].min():.4f}"
        )


if __name__ == "__main__":
    main()
