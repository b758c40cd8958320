"""The encoders' part of a training step: forward and backward passes of one chunk, without loss and AdamW."""

from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from clipvip.model import ClipVip, ClipVipConfig
from clipvip.model.flops import text_flops, video_flops
from clipvip.model.optim import freeze_key_biases
from clipvip.pipeline.train import step as step_module
from cost_model.autocast import gpu_autocast
from cost_model.devices import Device
from cost_model.fusion import Scope, kernels
from cost_model.recorder import Recorder
from cost_model.report import Totals, totals


@dataclass(frozen=True)
class Step:
    """What is encoded: `batch` videos of `frames` frames, a middle frame and 1 or 2 texts of `tokens`."""

    patch: int = 32
    batch: int = 128
    encoder: str = "vip"
    frames: int = 12
    texts: int = 2
    tokens: int = 70
    with_frame: bool = True
    image_size: int = 224

    def config(self) -> ClipVipConfig:
        vision = {"patch_size": self.patch, "image_size": self.image_size}
        return ClipVipConfig(vision_config=vision, encoder=self.encoder)

    def useful_flops(self) -> float:
        """FLOPs by the formula of the MFU."""
        config = self.config()
        each = video_flops(config, self.frames, embeds_only=True) + self.texts * text_flops(
            config, self.tokens
        )
        each += self.with_frame * video_flops(config, 1, embeds_only=True)
        return float(3 * self.batch * each)


def record(step: Step) -> Recorder:
    """The operations of the step under autocast to bf16."""
    with torch.device("meta"):
        model = ClipVip(step.config())
    model.train()
    freeze_key_biases(model)
    regions = compiled_parts(model)
    recorder = Recorder()
    with ExitStack() as stack:
        # transformers asks whether a mask hides anything, which a meta tensor cannot answer: it does.
        from transformers import masking_utils

        if hasattr(masking_utils, "fast_all"):
            stack.enter_context(patch.object(masking_utils, "fast_all", lambda mask: False))
        stack.enter_context(recorder.recording(model, regions))
        with gpu_autocast():
            encode = step_module.make_encoder(
                model, precision="bf16", device=torch.device("meta"), compiled=False
            )
            outputs = list(encode(_chunk(step)).values())
        recorder.phase = "backward"
        torch.autograd.backward(outputs, [torch.empty_like(output) for output in outputs])
    return recorder


@dataclass(frozen=True)
class _Pixels:
    """Pictures that are resized already, which is no part of what is counted."""

    shape: tuple[int, ...]

    def normalized(self, *settings: object) -> torch.Tensor:
        return torch.empty(self.shape, device="meta")


def _chunk(step: Step) -> Any:
    """What the product's encoder takes of a chunk."""
    video = (step.batch, step.frames, 3, step.image_size, step.image_size)
    ids = torch.zeros(step.batch, step.tokens, dtype=torch.int64, device="meta")
    texts = [ids.clone() if number < step.texts else None for number in range(2)]
    masks = [None if text is None else torch.ones_like(text) for text in texts]
    return SimpleNamespace(
        video=_Pixels(video),
        frame=_Pixels((video[0], 1, *video[2:])) if step.with_frame else None,
        text_ids=texts[0],
        text_mask=masks[0],
        caption_ids=texts[1],
        caption_mask=masks[1],
        has_caption=None,
        num_tokens=step.tokens,
        **_all_is_seen(),
        keys=[str(row) for row in range(step.batch)],
        source="clips",
    )


def _all_is_seen() -> dict[str, object]:
    """What a chunk says of dropped patches; older checkouts drop none."""
    if find_spec("clipvip.model.seen") is None:
        return {}
    from clipvip.model.seen import EVERYTHING

    return {"video_seen": EVERYTHING, "frame_seen": EVERYTHING}


def compiled_parts(model: ClipVip) -> list[nn.Module]:
    """The modules that the product compiles on a GPU, each by itself."""
    parts: list[nn.Module] = []
    with patch.object(nn.Module, "compile", lambda module, **_: parts.append(module)):
        step_module.compile_layers(model)
    return parts


def count(step: Step, device: Device) -> tuple[dict[Scope, Totals], float, Recorder]:
    """Totals by what is compiled; the GiB that are kept for the backward pass; and what was recorded."""
    recorder = record(step)
    scopes: tuple[Scope, ...] = ("eager", "compiled parts", "all")
    found = {
        scope: totals(kernels(recorder.operations, scope=scope), device, useful_flops=step.useful_flops())
        for scope in scopes
    }
    return found, recorder.saved_bytes / 2**30, recorder
