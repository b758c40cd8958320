"""The one reader of clips for stages that encode them: chunks of frames in the order of the shards.

The process that computes reads headers and records alone, and says which clips it wants. Their pixels are
read and decoded ahead of it: of the first clips by threads, and if there are many, of the rest by loading
processes. What fails is named in its place.
"""

import shutil
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Generic, Self, TypeVar

import torch
from torch.utils.data import Dataset

from clipvip.media.sampling import uniform_indices
from clipvip.model.config import CLIP_NORMALIZATION, Normalization
from clipvip.pipeline.loading.pixels import Pixels, PixelsWriter, SharedMemory
from clipvip.pipeline.loading.processes import Advice, Loading, fork_server, load_parts
from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.files.places import location_of
from clipvip.shards.files.stores import Location
from clipvip.shards.tar.foreign import ForeignClip
from clipvip.shards.tar.index import SampleSpan, ShardFile
from clipvip.shards.tar.reader import DEFAULT_MAX_PIXELS, Sample, empty_shard, is_clip, read_sample

# Starting processes takes as long as reading some hundred clips.
FEW_CLIPS = 256
# libjpeg-turbo lets go of Python's lock, so threads decode side by side.
_THREADS = 2
_AHEAD_OF_THREADS = 4 * _THREADS
_CHUNKS_AHEAD = 2
_CHUNKS_IN_MEMORY = _CHUNKS_AHEAD + 2  # of a process: one is written, one is copied
_SHARED_MEMORY = "/dev/shm"
# What bounds memory: a chunk has so many clips, and unless one clip alone is larger, so many bytes.
_CLIPS_A_CHUNK = 8
_BYTES_A_CHUNK = 32 << 20
# Of samples that are passed over, a chunk may tell of so many.
_SAMPLES_A_CHUNK = 256
_FLOAT_BYTES = 4

_ADVICE = Advice(
    "Give the same command again", "fewer --workers need less memory", "Fewer --workers need less memory"
)

T = TypeVar("T")


@dataclass(frozen=True)
class Reading:
    """How clips are read: for what model and device, by how many processes.

    `total` clips there are, where that is known. `advice` is for the user where one dies.
    """

    num_frames: int
    image_size: int
    device: torch.device
    max_pixels: int = DEFAULT_MAX_PIXELS
    workers: int = 0
    total: int | None = None
    advice: Advice = _ADVICE
    normalization: Normalization = CLIP_NORMALIZATION

    @property
    def resizes(self) -> bool:
        """Whether loading processes resize: where there is a GPU, it does."""
        return self.device.type == "cpu"


@dataclass(frozen=True)
class ClipsRead(Generic[T]):
    """What was read next: `rows` float32 (clips, frames, 3, size, size) on the device, one for each `about`.

    Of `num_samples` samples some are not wanted, and `skips` says why others are not there.
    """

    rows: torch.Tensor | None
    about: list[T]
    skips: list[Skip]
    num_samples: int
    ends_shard: bool


@dataclass(frozen=True)
class _Shard:
    """A shard: open here, and how another process opens it, by its number since paths are used again."""

    number: int
    name: str
    path: str
    file: ShardFile | None

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"file": None}


@dataclass(frozen=True)
class _Job:
    """Samples of a shard to be read; of those that are not wanted, only whether they can be."""

    shard: _Shard
    clips: tuple[tuple[SampleSpan, bool], ...]


@dataclass
class _Chunk(Generic[T]):
    """What is known of some samples before their pixels are read.

    `said` has what `choose` said of each, or why it was not asked; `reads` whether the sample is in `clips`.
    """

    said: list[T | Skip | None] = field(default_factory=list)
    reads: list[bool] = field(default_factory=list)
    clips: list[tuple[SampleSpan, bool]] = field(default_factory=list)
    num_bytes: int = 0
    shard: _Shard | None = None
    ends_shard: bool = False
    error: Exception | None = None


@dataclass(frozen=True)
class _Loaded:
    """The clips of a job: frames of those that are wanted and whole, as bytes or for the model.

    `failures` are by the clip's number in the job; `error` is what nothing can be read for.
    """

    pixels: Pixels | None = None
    rows: torch.Tensor | None = None
    failures: dict[int, Skip] = field(default_factory=dict)
    error: Exception | None = None

    def pin_memory(self) -> Self:
        """DataLoader calls this, for a GPU."""
        return self if self.pixels is None else replace(self, pixels=self.pixels.pin_memory())


class _Loader(Dataset[_Loaded]):
    """Loads jobs, in threads of the process that computes or in a loading process."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._opened: tuple[int, ShardFile] | None = None
        self._writer: PixelsWriter | None = None

    def __getitem__(self, job: _Job | None) -> _Loaded:
        """In a loading process, where frames go through shared memory; `load` is for threads."""
        if job is None:
            return _Loaded()
        if self._writer is None:
            self._writer = PixelsWriter(SharedMemory())
        try:
            loaded = self._load(job, self._open(job.shard), self._writer)
        except (OSError, DatasetError) as error:  # raised again where it is waited for
            return _Loaded(error=error)
        if not self._reading.resizes or loaded.pixels is None:
            return loaded
        rows = loaded.pixels.normalized(self._reading.image_size, self._reading.normalization)
        SharedMemory.give_back(loaded.pixels.values)
        return replace(loaded, pixels=None, rows=rows)

    def load(self, job: _Job | None) -> _Loaded:
        """In a thread."""
        if job is None:
            return _Loaded()
        assert job.shard.file is not None
        try:
            return self._load(job, job.shard.file, PixelsWriter())
        except (OSError, DatasetError) as error:
            return _Loaded(error=error)

    def _load(self, job: _Job, file: ShardFile, writer: PixelsWriter) -> _Loaded:
        failures: dict[int, Skip] = {}
        writer.begin()
        num_rows = 0
        for number, (span, is_wanted) in enumerate(job.clips):
            sample = read_sample(file, span, max_pixels=self._reading.max_pixels)
            if isinstance(sample, Skip):
                failures[number] = sample
            elif is_wanted:
                indices = uniform_indices(sample.num_frames, self._reading.num_frames)
                try:
                    sample.decode(indices, allocate=writer.space)
                except DatasetError as error:
                    failures[number] = Skip("damaged_sample", sample.key, str(error))
                else:
                    writer.keep()
                    num_rows += 1
        pixels = writer.finish()
        if not num_rows:
            if pixels.is_lent:
                SharedMemory.give_back(pixels.values)
            return _Loaded(failures=failures)
        return _Loaded(pixels, failures=failures)

    def _open(self, shard: _Shard) -> ShardFile:
        if self._opened is None or self._opened[0] != shard.number:
            if self._opened is not None:
                self._opened[1].close()
            file = ShardFile(Path(shard.path))
            file.path = location_of(shard.name)  # in what is said of damage
            self._opened = shard.number, file
        return self._opened[1]


def read_clips(
    shards: Iterable[Location], choose: Callable[[Sample], T | Skip | None], reading: Reading
) -> Generator[ClipsRead[T], None, None]:
    """Yield the clips of which `choose` says something, those of one shard after another, as chunks.

    `choose` sees samples without their pixels; those that it gives None for are not decoded. Read ahead are
    8 clips, and where processes read, 2 chunks of each, which are of 32 MiB at most, or of one clip. Where
    /dev/shm has no room for that, there are fewer processes. Closed, it ends them.

    Raises:
        DatasetError: a shard cannot be read; clips before it have been yielded. Also what `choose` raises.
        UserError: a loading process died.
    """
    reading = replace(reading, workers=_useful_workers(reading))
    if reading.workers and reading.total is not None:
        fork_server(__name__)  # which starts while threads read
    ahead: deque[_Chunk[T]] = deque()

    def jobs() -> Iterator[_Job | None]:
        for chunk in _Scanner(shards, choose, reading).chunks():
            ahead.append(chunk)
            yield None if chunk.shard is None else _Job(chunk.shard, tuple(chunk.clips))

    with closing(_loaded(jobs(), reading)) as loaded:
        for part in loaded:
            chunk = ahead.popleft()
            if error := chunk.error or part.error:
                raise error
            yield _joined(chunk, part, reading)
            if chunk.ends_shard and chunk.shard is not None and chunk.shard.file is not None:
                chunk.shard.file.close()


def _useful_workers(reading: Reading) -> int:
    """The processes that are worth their start and have room for their chunks; threads need no room."""
    is_little = reading.total is not None and reading.total < 2 * FEW_CLIPS
    if is_little or sys.platform != "linux":  # others have no /proc, see `_Shard`
        return 0
    room = shutil.disk_usage(_SHARED_MEMORY).free
    return min(reading.workers, room // (_CHUNKS_IN_MEMORY * _BYTES_A_CHUNK))


def _loaded(jobs: Iterator[_Job | None], reading: Reading) -> Generator[_Loaded, None, None]:
    """The jobs, loaded, in their order."""
    loader = _Loader(reading)
    waiting: deque[Future[_Loaded]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        for job in islice(jobs, FEW_CLIPS if reading.workers else None):
            waiting.append(pool.submit(loader.load, job))
            if len(waiting) > _AHEAD_OF_THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    if not (first := list(islice(jobs, 1))):
        return
    loading = Loading(
        reading.workers,
        _CHUNKS_AHEAD,
        pin_memory=reading.device.type == "cuda",
        module=__name__,
        advice=reading.advice,
    )
    yield from load_parts(loader, chain(first, jobs), loading)


def _joined(chunk: _Chunk[T], part: _Loaded, reading: Reading) -> ClipsRead[T]:
    """What is known of samples, with what came of reading them."""
    about: list[T] = []
    skips: list[Skip] = []
    number = 0
    for said, reads in zip(chunk.said, chunk.reads, strict=True):
        failure = part.failures.get(number) if reads else None
        number += reads
        if failure is not None:
            skips.append(failure)
        elif isinstance(said, Skip):
            skips.append(said)
        elif said is not None:
            about.append(said)
    rows = part.rows
    if part.pixels is not None:
        rows = part.pixels.to(reading.device, non_blocking=True).normalized(
            reading.image_size, reading.normalization
        )
    return ClipsRead(rows, about, skips, len(chunk.said), chunk.ends_shard)


class _Scanner(Generic[T]):
    """Reads headers and records, and asks which clips are wanted."""

    def __init__(
        self,
        shards: Iterable[Location],
        choose: Callable[[Sample], T | Skip | None],
        reading: Reading,
    ) -> None:
        self._shards, self._choose, self._reading = shards, choose, reading
        self._num_chunks = 0

    def chunks(self) -> Iterator[_Chunk[T]]:
        """All samples; an error is the last chunk. Those that threads read have one clip each."""
        try:
            for number, path in enumerate(self._shards):
                file = ShardFile(path)
                name = str(path)
                # A copy of a remote shard has no name: other processes have it by what is open here.
                shard = _Shard(number, name, name if isinstance(path, Path) else file.shared_name(), file)
                for chunk in self._of_shard(shard, file):
                    self._num_chunks += 1
                    yield chunk
        except Exception as error:  # noqa: BLE001 (raised where its turn is)
            yield _Chunk(error=error)

    def _of_shard(self, shard: _Shard, file: ShardFile) -> Iterator[_Chunk[T]]:
        chunk: _Chunk[T] = _Chunk(shard=shard)
        is_empty, is_read = True, False
        for span in filter(is_clip, file.spans()):
            is_empty = False
            sample = read_sample(file, span, with_pixels=False, max_pixels=self._reading.max_pixels)
            said = sample if isinstance(sample, Skip) else self._choose(sample)
            is_wanted = said is not None and not isinstance(said, Skip)
            # Whether a sample of others is whole is told by its pixels alone.
            is_foreign = isinstance(sample, Sample) and isinstance(sample.parsed, ForeignClip)
            reads = is_wanted or is_foreign
            num_bytes = self._bytes_of(sample) if isinstance(sample, Sample) and reads else 0
            if self._is_full(chunk, num_bytes):
                yield chunk
                chunk = _Chunk(shard=shard)
            chunk.said.append(said)
            chunk.reads.append(reads)
            if reads:
                is_read = True
                chunk.clips.append((span, is_wanted))
                chunk.num_bytes += num_bytes
        if is_empty:
            chunk.said.append(empty_shard(shard.name))
            chunk.reads.append(False)
        chunk.ends_shard = True
        if not is_read:  # and there may be many such shards
            file.close()
        yield chunk

    def _is_full(self, chunk: _Chunk[T], more_bytes: int) -> bool:
        if not chunk.clips or not more_bytes:
            return len(chunk.said) >= _SAMPLES_A_CHUNK
        is_for_threads = not self._reading.workers or self._num_chunks < FEW_CLIPS
        most = 1 if is_for_threads else _CLIPS_A_CHUNK
        return len(chunk.clips) >= most or chunk.num_bytes + more_bytes > _BYTES_A_CHUNK

    def _bytes_of(self, sample: Sample) -> int:
        """What a clip's frames take, the larger of stored and resized; those of others may be of any size."""
        if isinstance(sample.parsed, ForeignClip):
            return _BYTES_A_CHUNK
        side = self._reading.image_size
        resized = _FLOAT_BYTES * side * side if self._reading.resizes else 0
        return self._reading.num_frames * 3 * max(sample.record.width * sample.record.height, resized)
