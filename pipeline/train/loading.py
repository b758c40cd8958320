"""The batches of training, from the processes that load them."""

import os
from collections.abc import Generator, Iterator
from contextlib import closing

from clipvip.pipeline.loading.processes import Advice, Loading, load_parts
from clipvip.pipeline.train.batches import Chunk, ChunkDataset, ChunkSpec
from clipvip.shards.errors import DatasetError

ADVICE = Advice(
    "The same command goes on from the last checkpoint",
    "fewer run.workers need less memory",
    "Fewer run.workers, run.prefetch or a smaller run.chunk_size need less memory",
)


def load_batches(
    dataset: ChunkDataset, specs: Iterator[ChunkSpec], *, workers: int, prefetch: int, pin_memory: bool
) -> Generator[list[Chunk], None, None]:
    """Yield this process's part of one batch after another, as chunks. Closed, it ends its processes.

    A DatasetError: too many unusable samples in a row. A UserError: a loading process died.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread per loading process is the plan
    loading = Loading(
        workers,
        prefetch,
        pin_memory,
        module=__name__,
        advice=ADVICE,
    )
    batch: list[Chunk] = []
    with closing(load_parts(dataset, specs, loading)) as chunks:
        for chunk in chunks:
            if isinstance(chunk, DatasetError):
                raise chunk
            batch.append(chunk)
            if chunk.ends_batch:
                yield batch
                batch = []
