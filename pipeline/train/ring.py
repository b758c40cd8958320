"""What keeps a training process from waiting for another that is gone: each hears how the next one ends.

A process may wait in a collective for as long as a slow disk takes, and on a GPU nothing tells it that nobody
will come. So each has a thread that waits for a word of the next process; a connection that breaks is heard
as well as a word. What was heard is handed on to the process before: where 2 of 0 to 3 is killed, 1 hears its
connection break and says so, then 0 hears it from 1, and 3 from 0.
"""

import multiprocessing
import os
import sys
import threading
import time
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Self

import click
import torch
import torch.distributed as dist

_WELL, _FAILED = 1, 2
_FOR_EVER = timedelta(days=1000)
# How long an error may be the echo of another process's end, of which the word is still on its way.
_HEARING_SECONDS = 1.0
# What a process has to put things away, before it is ended wherever it is.
_LEAVING_SECONDS = 5.0
_STORE_TIMEOUT = timedelta(seconds=10)


class PeerGone(click.ClickException):
    """Another of the processes that train together failed, and has said why: there is nothing to add."""

    def show(self, file: object = None) -> None:
        """Print nothing."""


class Ring:
    """While entered, this process ends soon after any other has failed or was killed, whatever it is doing.

    An error that leaves the block stays as it is in the process in which something failed first, and becomes
    a PeerGone in the others. Where several fail alike, as by a loss that is not a number, one of them speaks.
    """

    def __init__(self, attempt: str) -> None:
        """`attempt` is a name that these processes alone have."""
        rank, size = dist.get_rank(), dist.get_world_size()
        self._next, self._previous = (rank + 1) % size, (rank - 1) % size
        self._group = dist.new_group(backend="gloo", timeout=_FOR_EVER)
        # A connection of its own: the one that torch has is held by whoever waits.
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        self._store = dist.TCPStore(  # type: ignore[attr-defined]
            address, port, is_master=False, timeout=_STORE_TIMEOUT, wait_for_workers=False
        )
        self._failed = f"clipvip/failed/{attempt}"
        self._is_one_gone = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._tell(_WELL)
            self._thread.join()
            return
        if isinstance(error, KeyboardInterrupt):  # which all were sent
            self._tell(_FAILED)
            return
        is_echo = self._is_one_gone.wait(_HEARING_SECONDS) or not self._is_first_to_fail()
        self._tell(_FAILED)
        if is_echo:
            raise PeerGone("another process failed") from error

    def _listen(self) -> None:
        word = torch.zeros(1, dtype=torch.uint8)
        is_told = True
        try:
            dist.recv(word, src=self._next, group=self._group)
        except RuntimeError:
            is_told = False
        if word.item() == _WELL:
            return
        self._is_one_gone.set()
        self._tell(_FAILED)
        # Our own launcher sees how its processes end, and says so itself.
        if not is_told and multiprocessing.parent_process() is None and self._is_first_to_fail():
            line = f"Error: process {self._next} of those that train together is gone (was it killed?)"
            sys.stderr.write(f"{line}. The same command goes on from the last checkpoint\n")
            sys.stderr.flush()
        time.sleep(_LEAVING_SECONDS)
        os._exit(1)

    def _tell(self, word: int) -> None:
        with suppress(RuntimeError):  # it is gone, and so needs no telling
            dist.send(torch.tensor([word], dtype=torch.uint8), dst=self._previous, group=self._group)

    def _is_first_to_fail(self) -> bool:
        try:
            return bool(self._store.add(self._failed, 1) == 1)
        except RuntimeError:  # whoever held the store is gone
            return True
