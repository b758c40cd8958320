"""The processes that load batches: what becomes of them, and what is said, when something goes wrong there."""

import multiprocessing
from typing import Any

import pytest

from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.train.batches import ChunkSpec
from clipvip.pipeline.train.loading import load_batches
from train_functions import Unsendable

pytestmark = pytest.mark.slow


def test_a_chunk_that_cannot_be_sent_is_not_waited_for() -> None:
    dataset: Any = Unsendable()
    specs = iter([ChunkSpec(0, 0, 0, 1, ends_batch=True)])
    loaded = load_batches(dataset, specs, workers=1, prefetch=2, pin_memory=False)
    with pytest.raises(UserError, match="a loading process died"):
        next(loaded)
    assert not multiprocessing.active_children()
