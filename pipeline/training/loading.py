"""The processes that load batches: how they are started, what they hear, and what is said when one dies.

What they load is in `batches`.
"""

import os
import signal
from collections.abc import Iterator
from multiprocessing import forkserver, resource_tracker
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.training.batches import Chunk, ChunkDataset, ChunkSpec
from clipvip.shards.errors import DatasetError


class _Steps(Sampler[ChunkSpec]):
    """The chunks of this process for steps [start, stop), in order."""

    def __init__(self, specs: Iterator[ChunkSpec]) -> None:
        self._specs = specs

    def __iter__(self) -> Iterator[ChunkSpec]:
        return self._specs


def load_batches(
    dataset: ChunkDataset,
    specs: Iterator[ChunkSpec],
    *,
    workers: int,
    prefetch: int,
    pin_memory: bool,
) -> Iterator[list[Chunk]]:
    """Yield this process's part of one batch after another, as chunks.

    Raises:
        DatasetError: too many unusable samples in a row.
        UserError: a loading process died.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread per loading process is the plan
    loader = DataLoader(
        dataset,
        sampler=_Steps(specs),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        # A fork of a process with threads and a GPU may hang; the fork server has neither.
        multiprocessing_context=_fork_server() if workers else None,
    )
    batch: list[Chunk] = []
    for chunk in _naming_deaths(iter(loader)):
        if isinstance(chunk, DatasetError):
            raise chunk
        batch.append(chunk)
        if chunk.ends_batch:
            yield batch
            batch = []


def _naming_deaths(chunks: Iterator[Chunk | DatasetError]) -> Iterator[Chunk | DatasetError]:
    while True:
        try:
            chunk = next(chunks)
        except StopIteration:
            return
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise UserError(
                f"a loading process died ({' '.join(str(error).split())}): too little memory, or a video that "
                "crashes the decoder. The same command goes on from the last checkpoint; fewer run.workers "
                "need less memory"
            ) from error
        yield chunk


def _fork_server() -> Any:
    forkserver.set_forkserver_preload(["clipvip.pipeline.training.loading"])
    # What is sent to all processes of a run must end neither the server nor its forks: blocked signals are inherited.
    resource_tracker.ensure_running()  # unblocks them where it is started
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return torch.multiprocessing.get_context("forkserver")


def _start_worker(worker: int) -> None:
    """Leave signals to the training process, which ends its loading processes itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    torch.set_num_threads(1)
