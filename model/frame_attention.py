"""Proxy-guided attention (Eq. 2) in one kernel each way, for GPUs: no copy of queries, keys or values.

Letters as in `attention`, and L = M + N. Each frame is a sequence of its own: copies of the M proxies, then
its N patches. One product gives queries, keys and values of all of them (7% more rows in B/32, 2% in B/16),
and the kernel takes them where they are.

A patch sees its sequence. A proxy sees all frames: each copy finds its frame's part, and the parts are
averaged with weights that the kernel's logsumexp gives, as ring attention does with parts of other devices.
The proxies' own keys count once: copies behind the first frame do not see them. For the backward pass every
copy gets the whole's output, logsumexp and gradient; what the kernel then makes of a frame is its share. That
kernel writes the three gradients into one tensor, which is the gradient of the product.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_KERNELS = torch.ops.aten
# The kernel reads a mask in pieces of so many.
_MASK_STEP = 16


def has_kernel(x: Tensor, head_width: int) -> bool:
    """Whether the kernel is for what computes with `x`: on a GPU of NVIDIA, not in float64."""
    on_gpu = x.device.type != "cuda" or (torch.version.hip is None and x.dtype != torch.float64)
    return on_gpu and (x.device.type == "cpu" or head_width % 8 == 0)


def frame_attention(
    qkv: Tensor, weight: Tensor, bias: Tensor, *, num_proxies: int, num_frames: int, scale: float
) -> Tensor:
    """(B*T, L, 3, H, K) -> (B, M + T*N, H*K): attention, projected by `weight` (H*K, H*K) and `bias`."""
    mask = _hidden_copies(qkv, num_proxies, num_frames)
    projected: Tensor = _FrameAttention.apply(qkv, weight, bias, mask, num_proxies, num_frames, scale)
    return projected


def _hidden_copies(qkv: Tensor, num_proxies: int, num_frames: int) -> Tensor:
    """(B*T, H, L, L), minus infinity where copies of proxies behind the first frame would see copies."""
    length, heads = qkv.shape[1], qkv.shape[3]
    shape = (num_frames, length, -(-length // _MASK_STEP) * _MASK_STEP)
    mask = torch.zeros(shape, dtype=qkv.dtype, device=qkv.device)
    mask[1:, :num_proxies, :num_proxies] = -torch.inf
    of_all = mask.expand(len(qkv) // num_frames, -1, -1, -1).flatten(0, 1)
    return of_all[:, None, :, :length].expand(-1, heads, -1, -1)


class _FrameAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        weight: Tensor,
        bias: Tensor,
        mask: Tensor,
        num_proxies: int,
        num_frames: int,
        scale: float,
    ) -> Tensor:
        mixed, sums = _attend(qkv, mask, scale)
        _join_copies(mixed, sums, num_proxies, num_frames)
        ctx.save_for_backward(qkv, weight, mask, mixed, sums)
        ctx.num_proxies, ctx.num_frames, ctx.scale = num_proxies, num_frames, scale
        projected = F.linear(mixed.flatten(2), weight, bias).unflatten(0, (-1, num_frames))
        patches = projected[:, :, num_proxies:].flatten(1, 2)
        return torch.cat([projected[:, 0, :num_proxies], patches], dim=1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        qkv, weight, mask, mixed, sums = ctx.saved_tensors
        num_proxies, num_frames = ctx.num_proxies, ctx.num_frames
        # What left is a frame's patches, and of the copies those of the first frame.
        of_copies = F.pad(grad[:, None, :num_proxies], (0, 0, 0, 0, 0, num_frames - 1))
        of_patches = grad[:, num_proxies:].unflatten(1, (num_frames, -1))
        rows = torch.cat([of_copies, of_patches], dim=2).flatten(0, 2)
        grad_mixed = rows @ weight
        by_frame = grad_mixed.view(len(grad), num_frames, -1, grad.shape[-1])
        _write(by_frame[:, 1:, :num_proxies], by_frame[:, :1, :num_proxies])
        grad_qkv = frame_attention_backward(grad_mixed.view_as(mixed), qkv, mask, mixed, sums, ctx.scale)
        grad_weight = rows.T @ mixed.flatten(2).flatten(0, 1)
        return grad_qkv, grad_weight, grad.sum(dim=(0, 1)), None, None, None, None


def _attend(qkv: Tensor, mask: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """What each token sees (B*T, L, H, K), and logsumexp (B*T, H, L or more)."""
    query, key, value = (x.transpose(1, 2) for x in qkv.unbind(2))
    if qkv.device.type == "cpu":
        mixed, sums = _KERNELS._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, attn_mask=mask, scale=scale
        )
    else:
        mixed, sums, _, _ = _KERNELS._scaled_dot_product_efficient_attention(
            query, key, value, mask, compute_log_sumexp=True, scale=scale
        )
    return mixed.transpose(1, 2), sums


def _join_copies(mixed: Tensor, sums: Tensor, num_proxies: int, num_frames: int) -> None:
    """Give all copies of a proxy in `mixed` and `sums` what they see together."""
    seen = mixed[:, :num_proxies].unflatten(0, (-1, num_frames))  # (B, T, M, H, K)
    each = sums[:, :, :num_proxies].unflatten(0, (-1, num_frames))  # (B, T, H, M)
    shares = each.softmax(dim=1)
    # The largest share is not small, so its logarithm is exact.
    whole = each.amax(dim=1, keepdim=True) - shares.amax(dim=1, keepdim=True).log()
    _write(seen, (shares.transpose(2, 3)[..., None] * seen).sum(dim=1, keepdim=True))
    _write(each, whole)


def _write(part: Tensor, values: Tensor) -> None:
    """Write into a part of a tensor; torch's compiler alone would write all of the tensor again."""
    if torch.compiler.is_compiling():
        _write_in_place(part, values)
    else:
        part.copy_(values)


@torch.library.custom_op("clipvip::write_in_place", mutates_args=("part",))
def _write_in_place(part: Tensor, values: Tensor) -> None:
    part.copy_(values)


# An operation of its own, as a compiler does not know that the three gradients are one tensor.
@torch.library.custom_op("clipvip::frame_attention_backward", mutates_args=())
def frame_attention_backward(
    grad: Tensor, qkv: Tensor, mask: Tensor, mixed: Tensor, sums: Tensor, scale: float
) -> Tensor:
    """The gradient of `qkv` (B*T, L, 3, H, K), of that of `mixed`, what `_attend` gave for it."""
    parts = qkv.unbind(2)
    if qkv.device.type == "cpu":
        heads = (x.transpose(1, 2) for x in (grad, *parts, mixed))
        grads = _KERNELS._scaled_dot_product_flash_attention_for_cpu_backward(
            *heads, sums, 0.0, False, attn_mask=mask, scale=scale
        )
        return torch.stack([x.transpose(1, 2) for x in grads], dim=2)
    length, unused = qkv.shape[1], sums.new_empty((), dtype=torch.int64)
    without = (None, None, length, length)  # sequences of one length
    first, *_ = _KERNELS._efficient_attention_backward(
        grad, *parts, mask, mixed, *without, sums, 0.0, unused, unused, 0, False,
        scale=scale, shared_storage_dqdkdv=True,
    )  # fmt: skip
    return first.as_strided(qkv.shape, _strides(qkv.shape), 0)


def _strides(shape: torch.Size) -> tuple[int, ...]:
    """Of contiguous memory."""
    return tuple(shape[number + 1 :].numel() for number in range(len(shape)))


@frame_attention_backward.register_fake
def _shape_of_gradient(
    grad: Tensor, qkv: Tensor, mask: Tensor, mixed: Tensor, sums: Tensor, scale: float
) -> Tensor:
    return qkv.new_empty(qkv.shape)
