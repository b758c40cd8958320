"""An encoder: the largest value of each dimension over the frames, where `mean_pool` takes the mean.

`clipvip-train demo --set model.encoder=max_pool`. With weights of its own it would learn them, from where
torch draws them.
"""

from torch import Tensor, nn

from clipvip.model import ClipVipConfig
from clipvip.model.variants import ENCODERS


class MaxPool(nn.Module):
    def __init__(self, config: ClipVipConfig) -> None:
        super().__init__()

    def forward(self, frames: Tensor) -> Tensor:
        """(batch, frames, dim), a frame's feature as CLIP projects it -> (batch, dim)."""
        return nn.functional.normalize(frames, dim=-1).amax(dim=1)


ENCODERS["max_pool"] = MaxPool
