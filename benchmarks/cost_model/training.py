"""The encoders' part of a training step: forward and backward passes of one chunk, without loss and AdamW."""

from contextlib import ExitStack
from dataclasses import dataclass
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
    """What is encoded: `batch` videos of `frames` frames, a middle frame and `texts` texts of `tokens`."""

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
            outputs = _encode(model, step)
        outputs = [output.float() for output in outputs]
        recorder.phase = "backward"
        torch.autograd.backward(outputs, [torch.empty_like(output) for output in outputs])
    return recorder


def _encode(model: ClipVip, step: Step) -> list[torch.Tensor]:
    shape = (step.batch, step.frames, 3, step.image_size, step.image_size)
    pixels = torch.empty(shape, device="meta")
    outputs = [model(pixel_values=pixels, embeds_only=True).video_embeds]
    if step.with_frame:
        frame = torch.empty((shape[0], 1, *shape[2:]), device="meta")
        outputs.append(model(pixel_values=frame, embeds_only=True).video_embeds)
    for _ in range(step.texts):
        ids = torch.zeros(step.batch, step.tokens, dtype=torch.int64, device="meta")
        outputs.append(model(input_ids=ids, attention_mask=torch.ones_like(ids)).text_embeds)
    return outputs


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
