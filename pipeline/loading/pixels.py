"""The pictures of a chunk: bytes on their way from a loading process to the model.

They have the model's size already, or that in which they are stored, and are then resized and normalised.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch

from clipvip.model.config import CLIP_NORMALIZATION, Normalization
from clipvip.model.preprocess import preprocess_frames

# Bounds the memory that the frames take in floating point, 8 bytes a pixel and colour.
_FRAMES_RESIZED_AT_ONCE = 384
_PIECE_HEADER_BYTES = 64


@dataclass(frozen=True)
class Run:
    """Rows one after another whose frames have one size: `shape` is (frames, height, width, 3)."""

    num_rows: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Pixels:
    """Frames of the rows of a chunk, uint8 RGB.

    `values` holds them row by row in one flat tensor: one piece of shared memory and one copy to a GPU,
    however many sizes there are. Where it `is_lent`, it is written again after `copied`.
    """

    values: torch.Tensor
    runs: tuple[Run, ...]
    is_lent: bool = False

    @property
    def num_frames(self) -> int:
        """Frames of each row."""
        return self.runs[0].shape[0]

    def by_size(self) -> Iterator[torch.Tensor]:
        """The frames of each run: (rows, frames, height, width, 3)."""
        start = 0
        for run in self.runs:
            stop = start + run.num_rows * math.prod(run.shape)
            yield self.values[start:stop].view(run.num_rows, *run.shape)
            start = stop

    def copied(self, copy: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        """With `copy(values)` for its values; what was lent is given back to the process that loaded it."""
        mine = replace(self, values=copy(self.values), is_lent=False)
        if self.is_lent:
            SharedMemory.give_back(self.values)
        return mine

    def pin_memory(self) -> Self:
        return self.copied(torch.Tensor.pin_memory)

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Self:
        return replace(self, values=self.values.to(device, non_blocking=non_blocking))

    def record_stream(self, stream: torch.Stream) -> None:
        """The memory on a GPU is not given to others before what `stream` has now to do is done."""
        self.values.record_stream(stream)

    def normalized(
        self,
        image_size: int,
        normalization: Normalization = CLIP_NORMALIZATION,
    ) -> torch.Tensor:
        """What the model takes, float32 (rows, frames, 3, image_size, image_size): as `preprocess_frames`."""
        num_rows = sum(run.num_rows for run in self.runs)
        rows_at_once = max(_FRAMES_RESIZED_AT_ONCE // self.num_frames, 1)
        result = torch.empty(num_rows, self.num_frames, 3, image_size, image_size, device=self.values.device)
        row = 0
        for of_run in self.by_size():
            for frames in of_run.split(rows_at_once):
                result[row : row + len(frames)] = preprocess_frames(
                    frames, image_size, normalization=normalization
                )
                row += len(frames)
        return result


class SharedMemory:
    """Shared memory of a loading process, written again once the training process has its own copy.

    New memory costs a page fault for each 4 KB: on a virtual machine together as much as decoding. The first
    byte of each piece says whether it is lent.
    """

    def __init__(self) -> None:
        self._pieces: list[torch.Tensor] = []

    def take(self, num_bytes: int) -> torch.Tensor:
        """A flat piece of uint8, lent until `Pixels.copied` is called where it was sent."""
        free = [piece for piece in self._pieces if not piece[0]]
        fitting = [piece for piece in free if len(piece) >= _PIECE_HEADER_BYTES + num_bytes]
        if not fitting:
            # A free piece that is too small makes room for one that is not.
            self._pieces = [piece for piece in self._pieces if all(piece is not other for other in free)]
            fitting = [_new_shared(_PIECE_HEADER_BYTES + num_bytes)]
            self._pieces += fitting
        fitting[0][0] = 1
        return fitting[0][_PIECE_HEADER_BYTES : _PIECE_HEADER_BYTES + num_bytes]

    @staticmethod
    def give_back(values: torch.Tensor) -> None:
        """What `take` gave, in whichever process, is no longer needed."""
        values.untyped_storage()[0] = 0


class PixelsWriter:
    """Puts the frames of a chunk's rows where the training process sees them: in `memory`, or in new memory.

    Frames are decoded straight into it. A writer is used for one chunk after another.
    """

    def __init__(self, memory: SharedMemory | None = None) -> None:
        self._memory = memory
        self._num_bytes_expected = 0
        self._is_open = False
        self._values = torch.empty(0, dtype=torch.uint8)

    def begin(self, *, expected: int = 0) -> None:
        """Begin a chunk, for which so many bytes are expected; one that was not finished is dropped."""
        if self._is_open:
            self._give_back(self._values)
        self._is_open = True
        self._runs: list[Run] = []
        self._num_bytes = 0
        self._values = self._take(max(self._num_bytes_expected, expected))

    def space(self, shape: tuple[int, ...]) -> np.ndarray:
        """Room for the next row's frames, uint8 of `shape`; it is not a row before `keep`."""
        stop = self._num_bytes + math.prod(shape)
        if stop > len(self._values):  # the first chunk finds out how much a chunk takes
            larger = self._take(max(stop, 2 * len(self._values)))
            larger[: self._num_bytes] = self._values[: self._num_bytes]
            self._give_back(self._values)
            self._values = larger
        self._shape = shape
        return self._values[self._num_bytes : stop].numpy().reshape(shape)

    def keep(self) -> None:
        """What was written to `space` is the next row."""
        is_more = bool(self._runs) and self._runs[-1].shape == self._shape
        num_rows = self._runs.pop().num_rows + 1 if is_more else 1
        self._runs.append(Run(num_rows, self._shape))
        self._num_bytes += math.prod(self._shape)

    def finish(self) -> Pixels:
        """The chunk."""
        self._is_open = False
        self._num_bytes_expected = max(self._num_bytes_expected, self._num_bytes)
        values = self._values[: self._num_bytes]
        return Pixels(values, tuple(self._runs), is_lent=self._memory is not None)

    def _take(self, num_bytes: int) -> torch.Tensor:
        if torch.utils.data.get_worker_info() is None and self._memory is None:
            return torch.empty(num_bytes, dtype=torch.uint8)
        return _new_shared(num_bytes) if self._memory is None else self._memory.take(num_bytes)

    def _give_back(self, values: torch.Tensor) -> None:
        if self._memory is not None:
            self._memory.give_back(values)


def _new_shared(num_bytes: int) -> torch.Tensor:
    empty = torch.empty(0, dtype=torch.uint8)
    return empty.set_(empty.untyped_storage()._new_shared(num_bytes)).view(num_bytes)
