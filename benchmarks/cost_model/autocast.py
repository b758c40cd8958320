"""Autocast as on a GPU, for meta tensors: torch has it for real devices only.

The casts are made where torch makes them, at a dispatch key of their own above autograd, so that what is
inside composite operations is cast as on a GPU. Lists and the cache of cast weights follow
aten/src/ATen/autocast_mode.h and .cpp. Attention takes the kernel that torch takes on a GPU: the flash one,
or with a mask the efficient one.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

_KEY = torch._C.DispatchKey.AutocastPrivateUse1
_LOW = [
    "linear",
    "matmul",
    "mm",
    "bmm",
    "addmm",
    "addmv",
    "addr",
    "mv",
    "baddbmm",
    "addbmm",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_tbc",
    "convolution",
    "_convolution",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "prelu",
    "einsum",
    "chain_matmul",
    "linalg_multi_dot",
    "linalg_vecdot",
]
_FLOAT32 = [
    "layer_norm",
    "native_layer_norm",
    "group_norm",
    "acos",
    "asin",
    "cosh",
    "erfinv",
    "exp",
    "expm1",
    "log",
    "log10",
    "log2",
    "log1p",
    "reciprocal",
    "rsqrt",
    "sinh",
    "tan",
    "pow",
    "softplus",
    "norm",
    "linalg_vector_norm",
    "linalg_matrix_norm",
    "frobenius_norm",
    "nuclear_norm",
    "cosine_similarity",
    "nll_loss",
    "nll_loss2d",
    "mse_loss",
    "l1_loss",
    "smooth_l1_loss",
    "huber_loss",
    "kl_div",
    "dist",
    "cdist",
    "pdist",
    "renorm",
    "logsumexp",
    "binary_cross_entropy_with_logits",
    "upsample_linear1d",
    "upsample_bilinear2d",
    "_upsample_bilinear2d_aa",
    "upsample_bicubic2d",
    "_upsample_bicubic2d_aa",
    "upsample_nearest1d",
    "upsample_nearest2d",
]
# These compute in float32 unless a dtype is given, and so take their input as it is.
_FLOAT32_INSIDE = ["softmax", "log_softmax", "sum", "prod", "cumsum", "cumprod"]


class _State:
    """Whether autocast is on, and the cast weights."""

    def __init__(self) -> None:
        self.dtype = torch.bfloat16
        self.is_on = False
        self.cache: dict[int, tuple[Tensor, Tensor]] = {}

    def low(self, x: object) -> object:
        """As cached_cast: a weight is cast once in an autocast block."""
        if not (isinstance(x, Tensor) and x.is_floating_point()) or x.dtype in {torch.float64, self.dtype}:
            return x
        if not (x.dtype == torch.float32 and x.requires_grad and x.is_leaf and not x._is_view()):
            return x.to(self.dtype)
        if id(x) not in self.cache:
            self.cache[id(x)] = (x, x.to(self.dtype))
        return self.cache[id(x)][1]

    def high(self, x: object) -> object:
        is_low = isinstance(x, Tensor) and x.dtype in {torch.bfloat16, torch.float16}
        return x.to(torch.float32) if is_low else x  # type: ignore[attr-defined]


@contextmanager
def gpu_autocast(dtype: torch.dtype = torch.bfloat16) -> Iterator[None]:
    """While entered, meta tensors are computed with as under `torch.autocast("cuda", dtype)`.

    `torch.autocast("meta", ...)`, `is_autocast_enabled("meta")` and `get_autocast_dtype("meta")` answer as
    they do of "cuda" there.
    """
    state = _State()
    state.dtype = dtype
    with ExitStack() as stack:
        stack.callback(_register(state))
        stack.enter_context(patch.object(torch, "autocast", _meta_autocast(state)))
        asked, dtype_of = torch.is_autocast_enabled, torch.get_autocast_dtype
        stack.enter_context(patch.object(
            torch, "is_autocast_enabled",
            lambda *device: state.is_on if device in {("meta",), ("cuda",), ()} else asked(*device),
        ))  # fmt: skip
        stack.enter_context(patch.object(
            torch, "get_autocast_dtype",
            lambda device: state.dtype if device in {"meta", "cuda"} else dtype_of(device),
        ))  # fmt: skip
        with torch.autocast("meta", dtype):
            yield


def _meta_autocast(state: _State) -> Callable[..., Any]:
    real = torch.autocast

    @contextmanager
    def block(dtype: torch.dtype | None, enabled: bool) -> Iterator[None]:
        before = state.is_on, state.dtype
        state.is_on, state.dtype = enabled, dtype or state.dtype
        excluded = torch._C._dispatch_tls_is_dispatch_key_excluded(_KEY)
        included = torch._C._dispatch_tls_is_dispatch_key_included(_KEY)
        try:
            torch._C._dispatch_tls_set_dispatch_key_excluded(_KEY, not enabled)
            torch._C._dispatch_tls_set_dispatch_key_included(_KEY, enabled)
            yield
        finally:
            torch._C._dispatch_tls_set_dispatch_key_excluded(_KEY, excluded)
            torch._C._dispatch_tls_set_dispatch_key_included(_KEY, included)
            state.is_on, state.dtype = before
            if not state.is_on:
                state.cache.clear()

    def autocast(
        device_type: str,
        dtype: torch.dtype | None = None,
        enabled: bool = True,
        cache_enabled: bool | None = None,
    ) -> Any:
        if device_type in {"meta", "cuda"}:
            return block(dtype, enabled)
        return real(device_type, dtype, enabled, cache_enabled)

    return autocast


def _register(state: _State) -> Callable[[], None]:
    """Give operations their casts at the key; returns what takes them away."""
    library = torch.library.Library("aten", "IMPL")
    others = torch.library.Library("_", "IMPL")
    others.fallback(torch.library.fallthrough_kernel, _KEY.name)
    policies = {
        **{name: _cast_inputs(state.low) for name in _LOW},
        **{name: _cast_inputs(state.high) for name in _FLOAT32},
        **{name: _inside for name in _FLOAT32_INSIDE},
    }
    known = set(torch._C._dispatch_get_all_op_names())
    for name, policy in policies.items():
        packet = getattr(torch.ops.aten, name)
        for overload in packet.overloads():
            full = f"aten::{name}" if overload == "default" else f"aten::{name}.{overload}"
            if full in known and torch._C._dispatch_has_kernel_for_dispatch_key(full, "AutocastCUDA"):
                library.impl(full.removeprefix("aten::"), policy(getattr(packet, overload)), _KEY.name)
    library.impl("scaled_dot_product_attention", _attention(state), _KEY.name)

    def take_away() -> None:
        library._destroy()
        others._destroy()

    return take_away


def _without_key() -> Any:
    return torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(_KEY))


def _cast_inputs(cast: Callable[[object], object]) -> Callable[[Any], Any]:
    def policy(operation: Any) -> Any:
        def kernel(*args: Any, **kwargs: Any) -> Any:
            with _without_key():
                return operation(*tree_map(cast, args), **tree_map(cast, kwargs))

        return kernel

    return policy


def _inside(operation: Any) -> Any:
    takes_dtype = any(argument.name == "dtype" for argument in operation._schema.arguments)

    def kernel(*args: Any, **kwargs: Any) -> Any:
        is_low = args[0].dtype in {torch.bfloat16, torch.float16}
        positional = len(args) - len([a for a in operation._schema.arguments if not a.kwarg_only])
        if takes_dtype and is_low and kwargs.get("dtype") is None and positional < 0:
            kwargs = {**kwargs, "dtype": torch.float32}
        with _without_key():
            return operation(*args, **kwargs)

    return kernel


def _attention(state: _State) -> Any:
    def kernel(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
        is_causal: bool = False, *, scale: float | None = None, enable_gqa: bool = False,
    ) -> Tensor:  # fmt: skip
        with _without_key():
            query, key, value = (state.low(x) for x in (query, key, value))  # type: ignore[assignment]
            return gpu_attention(query, key, value, attn_mask, is_causal=is_causal, scale=scale)

    return kernel


def gpu_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, is_causal: bool, scale: float | None
) -> Tensor:
    """The kernel that scaled_dot_product_attention takes on a GPU; (batch, heads, tokens, width) each."""
    aten = torch.ops.aten
    if mask is None and query.dtype != torch.float32:
        return aten._scaled_dot_product_flash_attention(
            query, key, value, 0.0, is_causal, False, scale=scale
        )[0]
    bias = None
    if mask is not None:
        if mask.dtype == torch.bool:  # made a bias before, which is as large as the mask is
            mask = torch.empty_like(mask, dtype=query.dtype).copy_(mask)
        bias = mask.to(query.dtype).expand(*query.shape[:2], query.shape[2], key.shape[2])
    needs_gradient = torch.is_grad_enabled() and query.requires_grad
    return aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, needs_gradient, 0.0, is_causal, scale=scale
    )[0]
