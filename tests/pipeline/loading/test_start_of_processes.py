"""Loading processes that cannot start."""

import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import forkserver

import pytest
import torch
from torch.utils.data import TensorDataset

from clipvip.pipeline.loading import processes
from clipvip.pipeline.loading.processes import Advice, Loading, fork_server, load_parts
from clipvip.pipeline.runtime.errors import UserError

NUMBERS = TensorDataset(torch.arange(3))
LOADING = Loading(1, 2, False, processes.__name__, Advice("Start again", "fewer need less", "use fewer"))


@pytest.fixture
def server() -> Iterator[int]:
    """The fork server's process id, which is killed at the end: the next test gets a fresh one."""
    fork_server(LOADING.module)
    found = forkserver._forkserver._forkserver_pid
    yield found
    forkserver._forkserver._stop()


def test_a_server_that_dies_while_they_start_is_one_clear_line(server: int) -> None:
    """It is held, so that the kill meets it while it is waited for."""
    os.kill(server, signal.SIGSTOP)
    killer = threading.Timer(0.5, os.kill, (server, signal.SIGKILL))
    killer.start()
    with pytest.raises(UserError, match="could start, since the process that starts them died"):
        list(load_parts(NUMBERS, iter(range(3)), LOADING))
    killer.join()


def test_the_next_run_starts_another_server(server: int) -> None:
    os.kill(server, signal.SIGKILL)
    os.waitid(os.P_PID, server, os.WEXITED | os.WNOWAIT)
    parts = list(load_parts(NUMBERS, iter(range(3)), LOADING))
    assert [int(number) for (number,) in parts] == [0, 1, 2]
