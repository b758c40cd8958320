"""The pictures of a chunk: bytes on their way from a loading process to the model.

They are either of the model's size already, or as they are stored, and then resized where they are
normalised. Decoding is in samples.py.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch

from clipvip.model.preprocess import preprocess_frames

# Bounds the memory that the frames take in floating point, 8 bytes a pixel and colour.
_FRAMES_RESIZED_AT_ONCE = 384
_PIECE_HEADER_BYTES = 64


@dataclass(frozen=True)
class Group:
    """Rows whose frames have one size: `shape` is (frames, height, width, 3)."""

    rows: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return len(self.rows) * torch.Size(self.shape).numel()


@dataclass(frozen=True)
class Pixels:
    """Frames of the rows of a chunk, uint8 RGB, grouped by size.

    `values` holds the groups one after another in one flat tensor: one piece of shared memory and one copy
    to a GPU, however many sizes there are. Where it `is_lent`, it is written again after `copied`.
    """

    values: torch.Tensor
    groups: tuple[Group, ...]
    is_lent: bool = False

    def by_size(self) -> Iterator[tuple[tuple[int, ...], torch.Tensor]]:
        """For each size the rows that have it, and their frames: (rows, frames, height, width, 3)."""
        start = 0
        for group in self.groups:
            stop = start + group.num_bytes
            yield group.rows, self.values[start:stop].view(len(group.rows), *group.shape)
            start = stop

    def copied(self, copy: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        """With `copy(values)` for its values; what was lent is given back to the process that loaded it."""
        mine = replace(self, values=copy(self.values), is_lent=False)
        if self.is_lent:
            self.values.untyped_storage()[0] = 0
        return mine

    def pin_memory(self) -> Self:
        return self.copied(torch.Tensor.pin_memory)

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Self:
        return replace(self, values=self.values.to(device, non_blocking=non_blocking))

    def normalized(self, image_size: int) -> torch.Tensor:
        """What the model takes, float32 (rows, frames, 3, image_size, image_size): as `preprocess_frames`."""
        num_rows = sum(len(group.rows) for group in self.groups)
        num_frames = self.groups[0].shape[0]
        rows_at_once = max(_FRAMES_RESIZED_AT_ONCE // num_frames, 1)
        result = torch.empty(num_rows, num_frames, 3, image_size, image_size, device=self.values.device)
        for rows, frames in self.by_size():
            for first in range(0, len(rows), rows_at_once):
                some = slice(first, first + rows_at_once)
                normalized = preprocess_frames(frames[some], image_size)
                # Row by row: a list of rows would first be copied to a GPU, which waits for all it does.
                for row, of_row in zip(rows[some], normalized, strict=True):
                    result[row] = of_row
        return result


class SharedMemory:
    """Shared memory of a loading process, written again once the training process has made its own copy.

    New memory costs a page fault for each 4 KB, together more than the copy, and on a virtual machine as much
    as decoding. The first byte of each piece says whether it is lent.
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


def pack(videos: Sequence[torch.Tensor], memory: SharedMemory | None = None) -> Pixels:
    """Put the frames of all rows together, each uint8 (frames, height, width, 3); only sizes may differ.

    In a loading process they go straight into memory that the training process sees: `memory`, or new.
    """
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for row, video in enumerate(videos):
        by_shape.setdefault(tuple(video.shape), []).append(row)
    groups = tuple(Group(tuple(rows), shape) for shape, rows in by_shape.items())
    num_bytes = sum(group.num_bytes for group in groups)
    if torch.utils.data.get_worker_info() is None:
        pixels = Pixels(torch.empty(num_bytes, dtype=torch.uint8), groups)
    elif memory is None:
        pixels = Pixels(_new_shared(num_bytes), groups)
    else:
        pixels = Pixels(memory.take(num_bytes), groups, is_lent=True)
    for rows, frames in pixels.by_size():
        torch.stack([videos[row] for row in rows], out=frames)
    return pixels


def _new_shared(num_bytes: int) -> torch.Tensor:
    empty = torch.empty(0, dtype=torch.uint8)
    return empty.set_(empty.untyped_storage()._new_shared(num_bytes)).view(num_bytes)
