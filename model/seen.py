"""What the image tower sees of a video where frames or patches are dropped, as they may be in training.

Fewer patches make a step cheaper (FLIP, Li et al., arXiv 2212.00794): layers compute on what is left, which
keeps its positions in space and time. Proxies and class tokens are never dropped.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Seen:
    """Which frames and patches of each video are given; everything, unless something is said.

    `frames` (batch, frames) are the places that the given frames have among the `num_frames` of the video,
    ascending. `patches` (batch, frames, kept) are the patches that are seen of each given frame. Both are
    whole numbers of any type.
    """

    frames: Tensor | None = None
    num_frames: int = 0
    patches: Tensor | None = None

    @property
    def num_patches(self) -> int | None:
        """Patches that are seen of each frame; None: all."""
        return None if self.patches is None else self.patches.shape[-1]

    def check(self, pixel_values: Tensor) -> None:
        """ValueError unless it is about the frames in `pixel_values` (batch, frames, ...)."""
        given = tuple(pixel_values.shape[:2])
        of_frames = None if self.frames is None else tuple(self.frames.shape)
        of_patches = None if self.patches is None else tuple(self.patches.shape[:2])
        if of_frames not in (None, given) or of_patches not in (None, given):
            raise ValueError(f"{of_frames} frames and patches of {of_patches} are seen, {given} are given")

    def of_frames(self, table: Tensor) -> Tensor:
        """Of a table (1, num_frames, width) the rows of the given frames: (batch or 1, frames, width)."""
        return table if self.frames is None else table[0][self.frames.long()]

    def of_patches(self, tokens: Tensor) -> Tensor:
        """(batch, frames, patches, width) -> (batch, frames, kept, width)."""
        return tokens if self.patches is None else _chosen(tokens, self.patches)

    @contextmanager
    def in_images(self, embeddings: Any) -> Iterator[None]:
        """In this block `embeddings`, CLIP's or SigLIP's of (batch * frames) images, leave out the rest.

        What they put before the patches, the class token, stays.
        """
        if (patches := self.patches) is None:
            yield
            return

        def drop(module: Any, inputs: object, tokens: Tensor) -> Tensor:
            num_before = tokens.shape[1] - module.num_patches
            before, of_images = tokens.split([num_before, module.num_patches], dim=1)
            return torch.cat([before, _chosen(of_images, patches.flatten(0, 1))], dim=1)

        hook = embeddings.register_forward_hook(drop)
        try:
            yield
        finally:
            hook.remove()

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Self:
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        return self._map(torch.Tensor.pin_memory)

    def record_stream(self, stream: torch.Stream) -> None:
        """The memory on a GPU is not given to others before what `stream` has now to do is done."""
        for tensor in (self.frames, self.patches):
            if tensor is not None:
                tensor.record_stream(stream)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Self:
        frames, patches = (None if one is None else function(one) for one in (self.frames, self.patches))
        return replace(self, frames=frames, patches=patches)


EVERYTHING = Seen()


def num_kept(total: int, dropped: float) -> int:
    """How many of `total` are left where a fraction is dropped; one at least."""
    return max(total - round(dropped * total), 1)


def _chosen(tokens: Tensor, kept: Tensor) -> Tensor:
    """(..., patches, width), (..., kept) -> (..., kept, width)."""
    return tokens.take_along_dim(kept.long()[..., None], dim=-2)
