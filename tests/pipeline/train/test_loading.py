"""The processes that load batches: what becomes of them, and what is said, when something goes wrong."""

import multiprocessing
import subprocess
import sys
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


def test_signals_to_the_whole_group_leave_loading_processes_alone() -> None:
    """From their first moment: launchers send them at any."""
    code = """
import os, signal, sys, time
from clipvip.pipeline.loading.processes import fork_server
signal.signal(signal.SIGTERM, lambda *_: None)
child = fork_server("clipvip.pipeline.train.loading").Process(target=time.sleep, args=(0.5,))
child.start()
os.killpg(0, signal.SIGTERM)
child.join()
sys.exit(child.exitcode)
"""
    done = subprocess.run([sys.executable, "-c", code], start_new_session=True, check=False)
    assert done.returncode == 0
