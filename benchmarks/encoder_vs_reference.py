"""Our video encoder against the published code's, with the same weights: seconds and peak memory.

    OMP_NUM_THREADS=4 python benchmarks/encoder_vs_reference.py --reference XPretrain/CLIP-ViP

ViP B/32 on 4 videos of 12 frames at 224 pixels, float32, on the CPU or with `--device cuda`; forward, and
forward with backward. They take turns in one process for the times; for the memory each has a process of its
own. Ours is measured as one trains and embeds, without the last layer's other tokens, and with them, as the
published code does. What that imports is taken from the installed transformers; names that it lacks by now
are put in from outside.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipvip.model import ClipVip, ClipVipConfig

SIDES = ("reference", "ours", "ours, all tokens")
MODES = ("forward", "forward+backward")
Encode = Callable[[Tensor], Tensor]


class ReferenceEncoder(nn.Module):
    """The published image tower and its projection."""

    def __init__(self, folder: Path, config: ClipVipConfig) -> None:
        super().__init__()
        module = import_reference(folder)
        settings = SimpleNamespace(
            type="ViP",
            temporal_size=config.temporal_size,
            if_use_temporal_embed=1,
            add_cls_num=config.num_proxies - 1,
        )
        self.vision_model = module.CLIPVisionTransformer(config.vision_config, settings)
        self.visual_projection = nn.Linear(
            config.vision_config.hidden_size, config.projection_dim, bias=False
        )

    def forward(self, pixels: Tensor) -> Tensor:
        _, pooled = self.vision_model(
            pixels, output_attentions=False, output_hidden_states=False, return_dict=False
        )[:2]
        return F.normalize(self.visual_projection(pooled), dim=-1)


def import_reference(folder: Path) -> Any:
    """The published module src/modeling/CLIP_ViP.py, unchanged."""
    import transformers.utils

    def decorator(*_args: Any, **_kwargs: Any) -> Callable[[Any], Any]:
        return lambda decorated: decorated

    for name in (
        "add_start_docstrings",
        "add_start_docstrings_to_model_forward",
        "replace_return_docstrings",
    ):
        setattr(transformers.utils, name, decorator)
    sys.path.insert(0, str(folder))
    from src.modeling import CLIP_ViP  # type: ignore[import-not-found]

    return CLIP_ViP


def build(side: str, reference: Path, device: str) -> nn.Module:
    """One of them; the weights of all are the same, as they are drawn in the order of their names."""
    config = ClipVipConfig(vision_config={"patch_size": 32})
    model = ReferenceEncoder(reference, config) if side == "reference" else ClipVip(config)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in sorted(model.named_parameters()):
        if name.startswith(("vision_model", "visual_projection")):
            drawn = torch.randn(parameter.shape, generator=generator) * 0.02
            with torch.no_grad():
                parameter.copy_(drawn + 1 if "norm" in name and name.endswith("weight") else drawn)
    return model.eval().to(device)


def encoder(side: str, model: nn.Module) -> Encode:
    if side == "ours, all tokens":
        return lambda pixels: model(pixels).video_embeds
    return model.get_video_features if isinstance(model, ClipVip) else model


def run(side: str, model: nn.Module, mode: str, pixels: Tensor) -> Tensor:
    encode = encoder(side, model)
    if mode == "forward":
        with torch.no_grad():
            return encode(pixels)
    model.zero_grad()
    embeds = encode(pixels)
    (embeds[:, 0].sum()).backward()
    return embeds


def seconds(side: str, model: nn.Module, mode: str, pixels: Tensor) -> float:
    """Of the clock: a library that leaves cores unused must not look fast by it."""
    if pixels.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    run(side, model, mode, pixels)
    if pixels.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def time_both(reference: Path, pixels: Tensor, num_rounds: int) -> dict[str, dict[str, list[float]]]:
    models = {side: build(side, reference, str(pixels.device)) for side in SIDES}
    embeds = {side: run(side, model, "forward", pixels) for side, model in models.items()}
    difference = max((embeds[side] - embeds["reference"]).abs().max().item() for side in SIDES)
    click.echo(f"largest difference of the embeddings: {difference:.1e}")
    times: dict[str, dict[str, list[float]]] = {mode: {side: [] for side in SIDES} for mode in MODES}
    for mode in MODES:
        for side in SIDES:
            run(side, models[side], mode, pixels)
        for number in range(num_rounds):
            for side in SIDES if number % 2 else SIDES[::-1]:
                times[mode][side].append(seconds(side, models[side], mode, pixels))
    return times


def peak_memory(side: str, mode: str, reference: Path, pixels: Tensor) -> int:
    """Bytes that the runs added to what the process held before; on a GPU, the allocator's peak."""
    model = build(side, reference, str(pixels.device))
    if pixels.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        run(side, model, mode, pixels)
        return torch.cuda.max_memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is held now
    before = status_bytes("VmRSS")
    run(side, model, mode, pixels)
    return status_bytes("VmHWM") - before


def status_bytes(field: str) -> int:
    """A figure of /proc/self/status (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def report(times: dict[str, dict[str, list[float]]], memory: dict[str, dict[str, int]]) -> None:
    click.echo("| | reference | ours | ours, all tokens |\n|---|---|---|---|")
    for mode, by_side in times.items():
        # Others' work only ever adds time: the least is the nearest to what the code costs.
        least = [min(by_side[side]) for side in SIDES]
        middle = [statistics.median(by_side[side]) for side in SIDES]
        for what, values in (("least", least), ("median", middle)):
            ours = " | ".join(f"{value:.3f} ({values[0] / value:.2f} x faster)" for value in values[1:])
            click.echo(f"| {mode}, s, {what} | {values[0]:.3f} | {ours} |")
        reference, *others = (memory[mode][side] / 1e6 for side in SIDES)
        ours = " | ".join(f"{value:.0f} ({value / reference:.2f} of it)" for value in others)
        click.echo(f"| {mode}, peak MB beside the weights | {reference:.0f} | {ours} |")


@click.command()
@click.option("--reference", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--batch", default=4, show_default=True)
@click.option("--frames", default=12, show_default=True)
@click.option("--rounds", default=7, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--memory-of", nargs=2, default=None, hidden=True)
def main(
    reference: Path, batch: int, frames: int, rounds: int, device: str, memory_of: tuple[str, str] | None
) -> None:
    """Compare our encoder with the folder CLIP-ViP of a checkout of microsoft/XPretrain."""
    pixels = torch.randn(batch, frames, 3, 224, 224, generator=torch.Generator().manual_seed(1)).to(device)
    if memory_of is not None:
        click.echo(json.dumps(peak_memory(*memory_of, reference, pixels)))
        return
    memory: dict[str, dict[str, int]] = {}
    for mode in MODES:
        memory[mode] = {}
        for side in SIDES:
            command = [sys.executable, __file__, *sys.argv[1:], "--memory-of", side, mode]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            memory[mode][side] = int(done.stdout.splitlines()[-1])
    report(time_both(reference, pixels, rounds), memory)


if __name__ == "__main__":
    main()
