"""Proxy-guided attention (Eq. 2): proxies see everything, a frame's patches see the proxies and their frame.

No mask of all tokens against all is ever built. Letters: B batch, H heads, T frames, N patches per frame, M
proxies, L = M + T*N, K head width.
"""

from typing import Any

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
    mixed = F.scaled_dot_product_attention(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        attn_mask=mask,
        is_causal=is_causal,
        scale=scale,
        dropout_p=dropout,
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

    This is for processors; GPUs take all frames in one kernel (`frame_attention`), without the copies of keys
    and values. One kernel under a mask in blocks (FlexAttention) makes none either, but blocks of 64 tokens
    that do not meet frames of 49 are half of all pairs, and it has no gradient on a processor.

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

    of_proxies, of_patches = query.split([num_proxies, patches], dim=1)
    for_proxies = attend(of_proxies, key, value, scale=scale, dropout=dropout)
    for_patches = attend(
        of_patches.unflatten(1, (num_frames, -1)).flatten(0, 1),
        by_frame(key, num_proxies, num_frames),
        by_frame(value, num_proxies, num_frames),
        scale=scale,
        dropout=dropout,
    )
    return torch.cat([for_proxies, for_patches.reshape(batch, patches, heads, width)], dim=1)


def by_frame(x: Tensor, num_proxies: int, num_frames: int) -> Tensor:
    """(B, M + T*N, ...) -> (B*T, M+N, ...): each frame's patches behind a copy of the proxies."""
    copied: Tensor = _ByFrame.apply(x, num_proxies, num_frames)
    return copied


class _ByFrame(torch.autograd.Function):
    """Its gradient is written where it belongs; torch's own for the same would copy it twice more."""

    @staticmethod
    def forward(x: Tensor, num_proxies: int, num_frames: int) -> Tensor:
        shared, patches = x[:, None, :num_proxies], x[:, num_proxies:].unflatten(1, (num_frames, -1))
        copies = shared.expand(-1, num_frames, *shared.shape[2:])
        return torch.cat([copies, patches], dim=2).flatten(0, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int, int], output: Tensor) -> None:
        _, ctx.num_proxies, ctx.num_frames = inputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        frames = grad.unflatten(0, (-1, ctx.num_frames))
        shared, patches = frames[:, :, : ctx.num_proxies], frames[:, :, ctx.num_proxies :]
        length = ctx.num_proxies + patches.shape[1] * patches.shape[2]
        whole = grad.new_empty(len(frames), length, *grad.shape[2:])
        whole[:, : ctx.num_proxies] = shared.sum(dim=1)
        whole[:, ctx.num_proxies :].unflatten(1, patches.shape[1:3]).copy_(patches)
        return whole, None, None


def proxy_guided_mask(num_proxies: int, num_frames: int, num_patches: int) -> Tensor:
    """M_ViP of Eq. 2 as a boolean (L, L) matrix, True where query may see key: for figures and tests."""
    frame = torch.arange(num_frames).repeat_interleave(num_patches)
    same_frame = frame[:, None] == frame[None, :]
    return F.pad(same_frame, (num_proxies, 0, num_proxies, 0), value=True)
