"""A batch of captions: the image tower, the encoder and all steps of the search, whose number is fixed."""

from collections import Counter
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from captioner_vs_reference import PROMPT_IDS, SIZES, plain_search
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from clipvip.model.ofa import OfaConfig, OfaForConditionalGeneration
from clipvip.model.ofa.captioner import DEFAULT_MAX_LENGTH, DEFAULT_NUM_BEAMS
from clipvip.model.ofa.folded import FoldedOfa
from clipvip.model.ofa.images import scale_pixels
from clipvip.model.ofa.search import BeamSearch, SearchRules
from cost_model.autocast import gpu_attention
from cost_model.devices import Device
from cost_model.fusion import kernels
from cost_model.recorder import _NO_KERNEL, Operation, Recorder
from cost_model.report import Totals, totals

_RULES = SearchRules(DEFAULT_NUM_BEAMS, DEFAULT_MAX_LENGTH, bos=0, pad=1, eos=2)


def count(size: str, batch_size: int, device: Device, *, image_size: int = 480) -> tuple[Totals, Recorder]:
    """What the folded network and its search start on a GPU for a batch, in bfloat16.

    Each operation is a kernel. cuDNN's fused convolutions are not counted on: a bias, the residual and the
    cutting off are kernels of their own.
    """
    with torch.device("meta"):
        model = OfaForConditionalGeneration(OfaConfig(**SIZES[size])).eval()
        prompt = torch.tensor([PROMPT_IDS])
    network = FoldedOfa(
        model,
        prompt,
        image_size=image_size,
        num_steps=_RULES.num_steps,
        num_beams=_RULES.num_beams,
        dtype=torch.bfloat16,
        for_gpu=True,
    )
    search = BeamSearch(network.decoder, _RULES, batch_size, steps_at_once=4, captured=True)
    pixels = torch.empty(batch_size, image_size, image_size, 3, dtype=torch.uint8, device="meta")
    recorder = Recorder()
    with (
        patch.object(torch.nn.functional, "scaled_dot_product_attention", _attention),
        torch.no_grad(),  # not inference mode, in which products would not be told by their kernels
        recorder.recording(network, []),
    ):
        _caption(network, search, pixels)
    recorder.operations = [part for operation in recorder.operations for part in _with_bias(operation)]
    return totals(kernels(recorder.operations, scope="eager"), device), recorder


def _caption(network: FoldedOfa, search: BeamSearch, pixels: Tensor) -> None:
    beams = search.begin(network.encoder(scale_pixels(pixels).to(torch.bfloat16)))
    for part in search.parts:
        beams, _ = search.steps(part, beams)


def _attention(query: Tensor, key: Tensor, value: Tensor, *, attn_mask: Tensor, scale: float) -> Tensor:
    return gpu_attention(query, key, value, attn_mask, is_causal=False, scale=scale)


def _with_bias(operation: Operation) -> list[Operation]:
    """A convolution's bias is added by a kernel of its own on a GPU."""
    if operation.name != "convolution" or len(operation.reads) < 3:
        return [operation]
    bias = replace(
        operation, name="add_bias", kind="pointwise", flops=0, reads=operation.writes + operation.reads[2:]
    )
    return [operation, bias]


class _Counter(TorchDispatchMode):
    """Counts operations on real tensors by name, without those that start no kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func._schema.name.split("::")[1]
        if name not in _NO_KERNEL and not func.is_view:
            self.names[name] += 1
        return func(*args, **kwargs or {})


def count_plain(size: str, batch_size: int) -> int:
    """Kernels of the plain network with transformers' `generate`, for captions that run to the limit.

    Their number depends on depths, beams and steps, not on widths: so narrow layers are run on the CPU.
    """
    sizes = SIZES[size]
    config = OfaConfig(
        vocab_size=8000,
        d_model=16,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        resnet_width=2,
        **{
            name: sizes[name] for name in ("encoder_layers", "decoder_layers", "resnet_type") if name in sizes
        },
    )
    torch.manual_seed(0)
    model = OfaForConditionalGeneration(config).eval()
    with torch.no_grad():
        model.encoder.embed_tokens.weight[2] = 0  # no caption ends early
        model.encoder.embed_tokens.weight[3:] += torch.randn(7997, 16)
    search = plain_search(model, torch.rand(batch_size, 3, 32, 32))
    with _Counter() as counter:
        found = search()
    if max(map(len, found)) < DEFAULT_MAX_LENGTH:
        raise RuntimeError("the captions ended before the limit; count with another seed")
    return counter.names.total()
