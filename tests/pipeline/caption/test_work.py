"""How a worker prepares batches ahead of the model."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from clipvip.media.jpeg import encode_jpeg
from clipvip.model.image_captioner import ImageCaptioner
from clipvip.pipeline.caption.frames import LostFrame
from clipvip.pipeline.caption.work import _batches_ahead
from clipvip.shards.tar.reader import DEFAULT_MAX_PIXELS
from clipvip.shards.tar.writer import write_shard
from make_shards import changed, stored_clip

NUM_CLIPS, BAD = 50, 20


class Preparing(ImageCaptioner):
    """Frames become pictures of 8 pixels a side; nothing is captioned."""

    def __init__(self, batch_size: int) -> None:
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self.batch_size, self.image_size = batch_size, 8

    def caption_pixels(self, pixels: torch.Tensor) -> list[str]:
        raise NotImplementedError


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clip n is of one grey, 5n; the pixels of one are damaged."""
    clips = []
    for number in range(NUM_CLIPS):
        jpeg = encode_jpeg(np.full((48, 64, 3), 5 * number, np.uint8), quality=95)
        jpeg = bytes(len(jpeg)) if number == BAD else jpeg
        clip = stored_clip("video", number, num_frames=1)
        clips.append(changed(clip, jpeg, frame_bytes=[len(jpeg)], width=64, height=48))
    path = tmp_path_factory.mktemp("work") / "000000.tar"
    write_shard(path, clips)
    return path


@pytest.mark.parametrize("batch_size", [1, 16, 17, 40, 64])
@pytest.mark.parametrize("threads", [1, 8])
def test_batches_are_whole_and_in_order_however_many_threads_share_one(
    shard: Path, batch_size: int, threads: int
) -> None:
    options = SimpleNamespace(max_pixels=DEFAULT_MAX_PIXELS, frames=1)
    setup = SimpleNamespace(options=options, where=SimpleNamespace(threads=threads))
    numbers: list[int] = []
    skipped: list[LostFrame] = []
    sizes = []
    for found, pixels, skips in _batches_ahead(shard, Preparing(batch_size), setup):  # type: ignore[arg-type]
        skipped += skips
        sizes.append(len(found) + len(skips))
        if pixels is not None:
            assert pixels.shape == (len(found), 8, 8, 3)
            greys = pixels.float().mean((1, 2, 3)) / 5
            assert greys.round().int().tolist() == [frame.number for frame in found]
        numbers += [frame.number for frame in found]
    assert numbers == [number for number in range(NUM_CLIPS) if number != BAD]
    assert [lost.number for lost in skipped] == [BAD]
    assert sizes == [batch_size] * (NUM_CLIPS // batch_size) + [NUM_CLIPS % batch_size] * (
        NUM_CLIPS % batch_size > 0
    )
