"""Chunks on their way to the device that computes on them."""

import torch

from clipvip.pipeline.train.batches import Chunk


class Uploads:
    """Copies the chunks of a batch to a device. To a GPU on a stream of its own, beside what it computes.

    Nothing waits for the copies but what is computed of them. Frames go as the bytes that they are stored in,
    and are resized where they are used: in floating point they would take twice the memory, for two batches.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, chunks: list[Chunk]) -> list[Chunk]:
        """The chunks on the device; from pinned memory, else this thread waits for the copies."""
        if self._stream is None:
            return [chunk.to(self._device) for chunk in chunks]
        with torch.cuda.stream(self._stream):
            copies = [chunk.to(self._device) for chunk in chunks]
        computing = torch.cuda.current_stream(self._device)
        computing.wait_stream(self._stream)
        for chunk in copies:
            chunk.record_stream(computing)
        return copies
