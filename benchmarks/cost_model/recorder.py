"""Which operations a block of code starts on a device: what they read, write and compute."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

# What takes a part of a row or of a column to make one of it, or an element for an element.
Kind = Literal["pointwise", "row reduction", "column reduction", "own kernel"]
Phase = Literal["forward", "backward"]

_NO_KERNEL = {
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "is_same_size",
    "lift_fresh",
    "_unsafe_view",
    "_local_scalar_dense",
    "item",
    "set_",
    "resize_",
    "detach",
    "alias",
    "_reshape_alias",
    "sym_size",
    "sym_stride",
    "sym_numel",
}
_FILLS = {"zeros", "ones", "full", "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones",
          "new_full", "fill_", "zero_", "arange", "scalar_tensor", "fill", "eye"}  # fmt: skip
# Besides what torch itself marks as pointwise.
_POINTWISE = _FILLS | {
    "_to_copy",
    "clone",
    "copy",
    "copy_",
    "cat",
    "stack",
    "constant_pad_nd",
    "slice_backward",
    "select_backward",
    "embedding",
    "gather",
    "index",
    "index_select",
    "slice_scatter",
    "select_scatter",
    "where",
    "masked_fill",
    "masked_fill_",
    "silu_backward",
    "sigmoid_backward",
    "gelu_backward",
    "tanh_backward",
    "threshold_backward",
    "nll_loss_forward",
    "nll_loss_backward",
    "triu",
    "tril",
    "repeat",
    "_pdist",
    "flip",
    "roll",
    "unfold_backward",
}
_REDUCTIONS = {
    "sum",
    "mean",
    "amax",
    "amin",
    "max",
    "min",
    "var",
    "var_mean",
    "std",
    "norm",
    "linalg_vector_norm",
    "prod",
    "any",
    "all",
    "argmax",
    "argmin",
    "cumsum",
    "logsumexp",
    "_softmax",
    "_log_softmax",
    "_softmax_backward_data",
    "_log_softmax_backward_data",
    "native_layer_norm",
    "native_layer_norm_backward",
    "_fused_rms_norm",
    "_fused_rms_norm_backward",
}


def _frame_attention_backward_flops(grad: Tensor, qkv: Tensor, *_: object, **__: object) -> int:
    """Five products of all tokens of a sequence with all, as torch counts of its own kernels."""
    sequences, length, _three, heads, width = qkv.shape
    return 5 * 2 * sequences * heads * length**2 * width


# FLOPs of operations that torch does not know, by name: a function of their arguments, and `out_val`. The
# product's own here start one kernel each.
FLOPS: dict[str, Callable[..., int]] = {"clipvip::frame_attention_backward": _frame_attention_backward_flops}


@dataclass(frozen=True)
class Access:
    """Memory that an operation reads or writes: which value, which part of it, and how many bytes that is."""

    value: int
    num_bytes: int
    whole_bytes: int
    part: tuple[object, ...]


@dataclass(frozen=True)
class Operation:
    """One that starts a kernel. `region` is a part of the model that is compiled by itself, or None."""

    name: str
    kind: Kind
    phase: Phase
    region: int | None
    flops: int
    reads: tuple[Access, ...]
    writes: tuple[Access, ...]

    @property
    def num_bytes(self) -> int:
        return sum(access.num_bytes for access in (*self.reads, *self.writes))

    @property
    def is_attention(self) -> bool:
        return "attention" in self.name


class Recorder(TorchDispatchMode):
    """A dispatch mode that keeps the operations on meta tensors in `operations`, in their order.

    `saved_bytes` is the memory of what autograd keeps for the backward pass, weights aside.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self.phase: Phase = "forward"
        self._values: dict[int, int] = {}
        self._storages: dict[int, Any] = {}
        self._saved: dict[int, int] = {}
        self._weights: set[int] = set()
        self._num_values = 0
        self._region: int | None = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func._schema.name.split("::")[1]
        inputs = _meta_tensors((args, kwargs))
        outputs = _meta_tensors(out)
        if name in _NO_KERNEL or func.is_view or not outputs:
            return out
        written = _meta_tensors(
            [
                args[number]
                for number, argument in enumerate(func._schema.arguments)
                if argument.alias_info is not None and argument.alias_info.is_write and number < len(args)
            ]
        )
        if "out" in kwargs:
            written += _meta_tensors(kwargs["out"])
        # What is filled or copied to is not read.
        read = [
            x for x in inputs if not (name in {"copy_", "fill_", "zero_"} and any(x is y for y in written))
        ]
        reads = tuple(self._access(x) for x in read)
        writes = tuple(
            self._access(x, new=not any(x is y for y in written))
            for x in ({id(x): x for x in outputs} | {id(x): x for x in written}).values()
        )
        if name == "addmm" and kwargs.get("beta", 1) != 1:  # the result is filled with the bias first
            self._add("addmm_bias_fill", "own kernel", 0, (), writes)
        formula = FLOPS.get(func._schema.name) or flop_registry.get(func._overloadpacket)
        flops = formula(*args, **kwargs, out_val=out) if formula else 0
        self._add(name, _kind(func, name, args, outputs), flops, reads, writes)
        return out

    def _add(
        self, name: str, kind: Kind, flops: int, reads: tuple[Access, ...], writes: tuple[Access, ...]
    ) -> None:
        region = self._region
        if self.phase == "backward":
            node = torch._C._current_autograd_node()
            region = None if node is None else node.metadata.get("region")
        self.operations.append(Operation(name, kind, self.phase, region, flops, reads, writes))

    def _access(self, x: Tensor, *, new: bool = False) -> Access:
        part = (x.storage_offset(), tuple(x.shape), x.stride())
        return Access(self._value(x, new=new), _size(x), x.untyped_storage().nbytes(), part)

    def _value(self, x: Tensor, *, new: bool = False) -> int:
        """The number of what a tensor's memory holds; views of it have the same."""
        storage = x.untyped_storage()
        if new or storage._cdata not in self._values:
            self._num_values += 1
            self._values[storage._cdata] = self._num_values
            # Else its address may be given to another.
            self._storages[storage._cdata] = storage
        return self._values[storage._cdata]

    @contextmanager
    def recording(self, model: nn.Module, regions: list[nn.Module]) -> Iterator[None]:
        """Record what the block does with `model`, of which `regions` are compiled by themselves."""
        self._weights = {p.untyped_storage()._cdata for p in (*model.parameters(), *model.buffers())}
        hooks = []
        for number, module in enumerate(regions):
            hooks.append(module.register_forward_pre_hook(self._enter(number), with_kwargs=True))
            hooks.append(module.register_forward_hook(self._leave(number), with_kwargs=True))
        try:
            with torch.autograd.graph.saved_tensors_hooks(self._save, lambda x: x), self:
                yield
        finally:
            for hook in hooks:
                hook.remove()

    @property
    def saved_bytes(self) -> int:
        return sum(self._saved.values())

    def _save(self, x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage._cdata not in self._weights:
            self._saved[storage._cdata] = storage.nbytes()
            self._storages[storage._cdata] = storage
        return x

    def _enter(self, number: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            self._region = number

        return hook

    def _leave(self, number: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
            self._region = None
            before = {x.grad_fn for x in _meta_tensors((args, kwargs))} | {None}
            left = [x.grad_fn for x in _meta_tensors(out)]
            while left:
                node = left.pop()
                if node in before or "AccumulateGrad" in node.name() or "region" in node.metadata:
                    continue
                node.metadata["region"] = number
                left += [following for following, _ in node.next_functions]

        return hook


def _meta_tensors(tree: Any) -> list[Tensor]:
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor) and x.device.type == "meta"]


def _size(x: Tensor) -> int:
    """Bytes of distinct memory: what is expanded is there once."""
    elements = 1
    for length, stride in zip(x.shape, x.stride(), strict=True):
        elements *= length if stride else 1
    return elements * x.element_size()


def _kind(func: Any, name: str, args: tuple[Any, ...], outputs: list[Tensor]) -> Kind:
    if name in _REDUCTIONS:
        whole = args[0]
        if not isinstance(whole, Tensor) or outputs[0].shape == whole.shape or whole.ndim < 2:
            return "row reduction"
        dims = next((a for a in args[1:] if isinstance(a, int | list | tuple) and a is not False), None)
        dims = [dims] if isinstance(dims, int) else dims
        last = {-1, whole.ndim - 1}
        return "row reduction" if not dims or last & set(dims) else "column reduction"
    is_pointwise = torch.Tag.pointwise in func.tags or name in _POINTWISE
    return "pointwise" if is_pointwise else "own kernel"
