"""Frames that go into an MP4 file in memory come out again, in whatever order they are asked for."""

import io

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipvip.media.errors import MediaError
from clipvip.media.mp4 import Mp4Encoder, decode_mp4

NUM_FRAMES, WIDTH, HEIGHT = 30, 48, 32  # three runs of twelve, from keyframe to keyframe


def encoded(num_frames: int = NUM_FRAMES) -> bytes:
    encoder = Mp4Encoder(WIDTH, HEIGHT, fps=3, crf=18)
    for number in range(num_frames):
        picture = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
        picture[:HEIGHT] = 8 * number
        encoder.add(picture, number / 3)
    return encoder.finish()


DATA = encoded()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, NUM_FRAMES - 1), min_size=1, max_size=8))
def test_the_frames_that_are_asked_for_are_those(indices: list[int]) -> None:
    frames = decode_mp4(DATA, indices, max_pixels=WIDTH * HEIGHT)
    assert frames.shape == (len(indices), HEIGHT, WIDTH, 3)
    with av.open(io.BytesIO(DATA)) as container:
        every = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert np.array_equal(frames, np.stack([every[index] for index in indices]))
    assert np.abs(frames.mean((1, 2, 3)) - 8 * np.array(indices)).max() < 4


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "."),
        (b"junk" * 100, "."),
        (DATA[:500], "."),
        (encoded(3), "frame 3 is wanted"),
        (DATA, "more than 1,535 pixels"),
    ],
)
def test_what_cannot_be_decoded_is_told(data: bytes, told: str) -> None:
    with pytest.raises(MediaError, match=told):
        decode_mp4(data, [3], max_pixels=WIDTH * HEIGHT - (data == DATA))
