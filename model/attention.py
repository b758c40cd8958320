"""Proxy-guided attention (Eq. 2): proxies see everything, a frame's patches see the proxies and their frame.

Registered with transformers by name, so that CLIP's own layers call it. No mask of all tokens against all
is ever built. Letters: B batch, H heads, T frames, N patches per frame, M proxies, L = M + T*N, K head width.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

PROXY_GUIDED = "clipvip_proxy_guided"


def proxy_guided_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    num_proxies: int,
    num_frames: int,
    scale: float | None = None,
) -> Tensor:
    """Attention under the mask M_ViP of Eq. 2, in two dense pieces.

    4 proxies and 12 frames of 49 patches are 592 tokens: 4 x 592 + 12 x 49 x (4 + 49) = 33,532 pairs are
    computed, not all 592 x 592 = 350,464.

    Args:
        query, key, value: (batch, heads, proxies + frames * patches, head width), as is what is returned; the
            proxies come first, then the patches frame by frame.
        scale: factor on the logits; None for 1/sqrt(head width).
    """
    batch, heads, length, width = query.shape
    num_patches = (length - num_proxies) // num_frames

    def parts(x: Tensor) -> tuple[Tensor, Tensor]:  # (B, H, L, K) -> (B, H, M, K) and (B*H, T, N, K)
        proxies, patches = x.split([num_proxies, length - num_proxies], dim=2)
        return proxies, patches.reshape(batch * heads, num_frames, num_patches, width)

    def by_frame(x: Tensor) -> Tensor:  # (B, H, L, K) -> (B*H, T, M+N, K)
        proxies, patches = parts(x)
        shared = proxies.reshape(batch * heads, 1, num_proxies, width).expand(-1, num_frames, -1, -1)
        return torch.cat([shared, patches], dim=2)

    of_proxies, of_patches = parts(query)
    proxies = F.scaled_dot_product_attention(of_proxies, key, value, scale=scale)
    patches = F.scaled_dot_product_attention(of_patches, by_frame(key), by_frame(value), scale=scale)
    return torch.cat([proxies, patches.reshape(batch, heads, length - num_proxies, width)], dim=2)


def proxy_guided_mask(num_proxies: int, num_frames: int, num_patches: int) -> Tensor:
    """M_ViP of Eq. 2 as a boolean (L, L) matrix, True where query may see key: for figures and tests."""
    frame = torch.arange(num_frames).repeat_interleave(num_patches)
    same_frame = frame[:, None] == frame[None, :]
    return F.pad(same_frame, (num_proxies, 0, num_proxies, 0), value=True)


def _attention_function(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, scaling: float, **others: Any
) -> tuple[Tensor, None]:
    """What CLIP's attention calls; the layout comes down as keyword arguments of the encoder."""
    layout = {name: others[name] for name in ("num_proxies", "num_frames")}
    output = proxy_guided_attention(query, key, value, scale=scaling, **layout)
    return output.transpose(1, 2).contiguous(), None


AttentionInterface.register(PROXY_GUIDED, _attention_function)
