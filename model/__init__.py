"""The networks, in pure torch: ClipVip and its baselines, the omnisource loss, and OFA in `model.ofa`."""

from typing import TYPE_CHECKING

from clipvip.lazy import lazy_names

if TYPE_CHECKING:
    from clipvip.model.clip_vip import ClipVip, ClipVipOutput
    from clipvip.model.config import ClipVipConfig
    from clipvip.model.errors import CheckpointError
    from clipvip.model.losses import omnisource_loss

__all__ = ["CheckpointError", "ClipVip", "ClipVipConfig", "ClipVipOutput", "omnisource_loss"]

if not TYPE_CHECKING:  # loaded on use: stages that need no network start without torch
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "model.clip_vip": "ClipVip ClipVipOutput",
            "model.config": "ClipVipConfig",
            "model.errors": "CheckpointError",
            "model.losses": "omnisource_loss",
        },
    )
