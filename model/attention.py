"""Proxy-guided attention (Eq. 2): proxies see everything, a frame's patches see the proxies and their frame.

No mask of all tokens against all is ever built. Letters: B batch, H heads, T frames, N patches per frame, M
proxies, L = M + T*N, K head width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """`scaled_dot_product_attention` of (batch, tokens, heads, head width), as is what is returned."""
    heads_first = (x.transpose(1, 2) for x in (query, key, value))
    mixed = F.scaled_dot_product_attention(
        *heads_first, attn_mask=mask, is_causal=is_causal, scale=scale, dropout_p=dropout
    )
    return mixed.transpose(1, 2)


def proxy_guided_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    num_proxies: int,
    num_frames: int,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention under the mask M_ViP of Eq. 2, in two dense pieces.

    4 proxies and 12 frames of 49 patches are 592 tokens: 4 x 592 + 12 x 49 x (4 + 49) = 33,532 pairs are
    computed, not all 592 x 592 = 350,464.

    Args:
        query, key, value: (batch, proxies + frames * patches, heads, head width), as is what is returned; the
            proxies come first, then the patches frame by frame.
        scale: factor on the logits; None for 1/sqrt(head width).
        dropout: the share of attention weights that are set to zero.
    """
    if num_frames == 1:  # all see all
        return attend(query, key, value, scale=scale, dropout=dropout)
    batch, length, heads, width = query.shape
    patches = length - num_proxies

    def frames(x: Tensor) -> Tensor:  # (B, T*N, H, K) -> (B, T, N, H, K)
        return x.unflatten(1, (num_frames, -1))

    def by_frame(x: Tensor) -> Tensor:  # (B, L, H, K) -> (B*T, M+N, H, K)
        shared, own = x.split([num_proxies, patches], dim=1)
        shared = shared[:, None].expand(-1, num_frames, -1, -1, -1)
        return torch.cat([shared, frames(own)], dim=2).flatten(0, 1)

    of_proxies, of_patches = query.split([num_proxies, patches], dim=1)
    for_proxies = attend(of_proxies, key, value, scale=scale, dropout=dropout)
    for_patches = attend(
        frames(of_patches).flatten(0, 1), by_frame(key), by_frame(value), scale=scale, dropout=dropout
    )
    return torch.cat([for_proxies, for_patches.reshape(batch, patches, heads, width)], dim=1)


def proxy_guided_mask(num_proxies: int, num_frames: int, num_patches: int) -> Tensor:
    """M_ViP of Eq. 2 as a boolean (L, L) matrix, True where query may see key: for figures and tests."""
    frame = torch.arange(num_frames).repeat_interleave(num_patches)
    same_frame = frame[:, None] == frame[None, :]
    return F.pad(same_frame, (num_proxies, 0, num_proxies, 0), value=True)
