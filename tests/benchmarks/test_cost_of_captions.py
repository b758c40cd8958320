"""What a batch of captions costs a GPU, counted without one."""

import pytest
from cost_model.captioner import count, count_plain
from cost_model.devices import DEVICES


@pytest.mark.slow
def test_a_caption_takes_an_eighth_of_the_plain_ways_kernels() -> None:
    found, recorder = count("base", 128, DEVICES["H100"])
    assert 8 * found.kernels / 128 <= count_plain("base", 32) / 32
    # The products that a caption needs, and hardly more.
    assert found.teraflops == pytest.approx(128 * 0.1929, rel=0.05)
    attention = [operation for operation in recorder.operations if operation.is_attention]
    assert len(attention) == 6 + 2 * 6 * 17


def test_kernels_do_not_grow_with_the_batch() -> None:
    few, many = (count("base", n, DEVICES["H100"], image_size=32)[0] for n in (2, 64))
    assert few.kernels == many.kernels
