"""The captioner alone: captions a second by size and batch, its encoder, and a step of its decoder."""

import numpy as np
import torch
from captioner_vs_reference import GFLOP_PER_IMAGE

from clipvip.model.ofa.captioner import DEFAULT_MAX_LENGTH, Captioner
from gpu_sections.made_data import make_ofa
from gpu_sections.rows import Check


def captioner(check: Check) -> None:
    """OFA base and large with the authors' search, from frames that are on the host, as `clipvip-data
    caption`.
    """
    for size, batch_sizes in {"base": (32, 8, 128, 256), "large": (32, 128)}.items():
        folder = make_ofa(check.folder / f"ofa-{size}", size=size, tiny=check.tiny)
        if check.tiny:
            batch_sizes = (4,)
        for batch_size in batch_sizes:
            name = f"{size}, batch {batch_size}"
            if check.has_time_for(name, 12):
                _captions_per_second(check, folder, size, batch_size, name)


def _captions_per_second(check: Check, folder: object, size: str, batch_size: int, name: str) -> None:
    check.free()
    model = Captioner(str(folder), device=check.device, batch_size=batch_size)
    random = np.random.default_rng(0)
    frames = [random.integers(0, 256, (64, 96, 3), np.uint8) for _ in range(batch_size)]
    pixels = model.preprocess(frames)
    seconds = check.seconds(lambda: model.caption_pixels(pixels), times=3, warm_up=1)
    images = torch.zeros(
        batch_size, 3, model.image_size, model.image_size, device=check.device, dtype=model.dtype
    )
    prompts = model._prompt.expand(batch_size, -1)
    with torch.inference_mode():
        encoding = check.seconds(lambda: model.model.encoder(prompts, images), times=3, warm_up=1)
    steps = DEFAULT_MAX_LENGTH + 1
    check.row(
        name,
        captions_per_s=batch_size / seconds,
        encoder_ms=1000 * encoding,
        ms_per_decode_step=1000 * (seconds - encoding) / steps,
        tflop_per_s=None if check.tiny else batch_size / seconds * GFLOP_PER_IMAGE[size] / 1000,
        peak_gib=check.peak_gib(),
    )
