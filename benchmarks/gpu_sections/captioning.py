"""The captioner alone: captions a second by size and batch, its encoder, and a step of its decoder."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from captioner_vs_reference import GFLOP_PER_IMAGE, plain_search

from clipvip.model.ofa import OfaForConditionalGeneration, OfaTokenizer
from clipvip.model.ofa.captioner import DEFAULT_PROMPT, Captioner
from clipvip.model.ofa.images import scale_pixels
from clipvip.model.ofa.search import BeamSearch
from gpu_sections.made_data import make_ofa
from gpu_sections.rows import Check


def captioner(check: Check) -> None:
    """OFA base and large with the authors' search, from frames on the host, as `clipvip-data caption`.

    Of base also what each part is worth: the same without it.
    """
    for size, batch_sizes in {"base": (128, 32, 256), "large": (128, 256)}.items():
        folder = make_ofa(check.folder / f"ofa-{size}", size=size, tiny=check.tiny)
        if check.tiny:
            batch_sizes = (4,)
        for batch_size in batch_sizes:
            name = f"{size}, batch {batch_size}"
            if check.has_time_for(name, 12):
                _captions_per_second(check, folder, size, batch_size, name)
        if size == "base" and check.has_time_for("base, parts off", 15):
            _without_parts(check, folder, batch_sizes[0])


def _opened(check: Check, folder: Path, batch_size: int) -> tuple[Captioner, torch.Tensor]:
    """A captioner that has captioned once, and pixels for it in pinned memory."""
    check.free()
    model = Captioner(folder, device=check.device, batch_size=batch_size)
    random = np.random.default_rng(0)
    frames = [random.integers(0, 256, (64, 96, 3), np.uint8) for _ in range(batch_size)]
    pixels = model.preprocess(frames)
    if check.on_gpu:
        pixels = pixels.pin_memory()
    model.caption_pixels(pixels)
    return model, pixels


def _images(model: Captioner, pixels: torch.Tensor) -> torch.Tensor:
    return scale_pixels(pixels.to(model.device)).to(model.dtype)


def _captions_per_second(check: Check, folder: Path, size: str, batch_size: int, name: str) -> None:
    model, pixels = _opened(check, folder, batch_size)
    seconds = check.seconds(lambda: model.caption_pixels(pixels), times=3, warm_up=1)
    images = _images(model, pixels)
    with torch.inference_mode():
        encoding = check.seconds(lambda: model.network.encoder(images), times=3, warm_up=1)
    check.row(
        name,
        captions_per_s=batch_size / seconds,
        encoder_ms=1000 * encoding,
        ms_per_decode_step=1000 * (seconds - encoding) / model.search.rules.num_steps,
        tflop_per_s=None if check.tiny else batch_size / seconds * GFLOP_PER_IMAGE[size] / 1000,
        fused_convolutions=int(model.network.encoder.resnet.fused),
        peak_gib=check.peak_gib(),
    )


def _without_parts(check: Check, folder: Path, batch_size: int) -> None:
    def row(part: str, function: Callable[[], object], **more: float) -> None:
        seconds = check.seconds(function, times=3, warm_up=1)
        check.row(f"base, batch {batch_size}, {part}", captions_per_s=batch_size / seconds, **more)

    by_graph, images = _parts_off(check, folder, batch_size, row)
    check.free()
    plain = OfaForConditionalGeneration.from_pretrained(folder, dtype=images.dtype).eval().to(check.device)
    prompt = OfaTokenizer.from_pretrained(folder)(DEFAULT_PROMPT).input_ids
    search = plain_search(plain, images.contiguous(), prompt)
    equal = sum(a == b for a, b in zip(search(), by_graph, strict=True))
    row("plain network, transformers' search", search, same_captions=equal)


def _parts_off(
    check: Check, folder: Path, batch_size: int, row: Callable[..., None]
) -> tuple[list[list[int]], torch.Tensor]:
    """Rows of the product with a part switched off; the captions with all parts, and their images."""
    model, pixels = _opened(check, folder, batch_size)
    images, captured = _images(model, pixels), model.search
    with torch.inference_mode():
        by_graph = captured(model.network.encoder(images))
    resnet = model.network.encoder.resnet
    fused, resnet.fused = resnet.fused, False
    row("no fused convolutions", lambda: model.caption_pixels(pixels))
    resnet.fused = fused
    model.search = BeamSearch(model.network.decoder, captured.rules, batch_size, captured=False)
    with torch.inference_mode():
        eager = model.search(model.network.encoder(images))
    same = sum(a == b for a, b in zip(by_graph, eager, strict=True))
    row("no captured steps", lambda: model.caption_pixels(pixels), same_captions=same)
    return by_graph, images
