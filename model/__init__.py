"""The networks, in pure torch: ClipVip and its baselines, the omnisource loss, and OFA in `model.ofa`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipvip.model.clip_vip import ClipVip, ClipVipOutput
    from clipvip.model.config import ClipVipConfig
    from clipvip.model.losses import omnisource_loss

__all__ = ["ClipVip", "ClipVipConfig", "ClipVipOutput", "omnisource_loss"]

_MODULES = {
    "ClipVip": "clipvip.model.clip_vip",
    "ClipVipConfig": "clipvip.model.config",
    "ClipVipOutput": "clipvip.model.clip_vip",
    "omnisource_loss": "clipvip.model.losses",
}


def __getattr__(name: str) -> Any:
    # Loaded on use: stages that need no network start without torch.
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'clipvip.model' has no attribute {name!r}")
