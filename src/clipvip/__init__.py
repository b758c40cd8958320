"""Adapt CLIP to video.

The stages live in `clipvip.pipeline`, the on-disk format in `clipvip.shards`, the networks in
`clipvip.model`, and the measurements in `clipvip.analysis`. Importing this package imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipvip.model import ClipVip, ClipVipConfig

__version__ = "0.1.0"
__all__ = ["ClipVip", "ClipVipConfig", "__version__"]


def __getattr__(name: str) -> Any:
    if name in {"ClipVip", "ClipVipConfig"}:
        return getattr(import_module("clipvip.model"), name)
    raise AttributeError(f"module 'clipvip' has no attribute {name!r}")
