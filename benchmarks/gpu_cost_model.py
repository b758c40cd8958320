"""What a GPU has to do for a training step, and how long that should take: counted without a GPU.

python benchmarks/gpu_cost_model.py step [--patch 16 --batch 32] [--encoder full_attention] [--old CHECKOUT]
    python benchmarks/gpu_cost_model.py table --old CHECKOUT
    python benchmarks/gpu_cost_model.py captions [--size large --batch 256]

Operations are counted on meta tensors under autocast to bf16. "eager": each starts a kernel. "compiled
parts": chains of pointwise operations and reductions are one kernel in what the product compiles, which is
each layer. "all": so everywhere. The time is the sum of what each kernel needs at least
(benchmarks/cost_model). `--old` counts the same in another checkout of this project, and tells the ratio of
that to this.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
from cost_model.devices import DEVICES, Device

Found = dict[str, dict[str, float]]


def device_options(function: Any) -> Any:
    """The options that say which device the time is for; the command gets `device`."""
    rates = {
        "--product-tflops": "Rate of large bf16 products.",
        "--attention-tflops": "Rate of attention.",
        "--bandwidth-tb": "Memory traffic, TB/s.",
        "--launch-us": "Start of a kernel, microseconds.",
    }
    for name, text in rates.items():
        function = click.option(name, type=click.FloatRange(min=0, min_open=True), help=text)(function)
    return click.option(
        "--device", type=click.Choice(list(DEVICES)), default="H100", show_default=True
    )(function)  # fmt: skip


def device_of(options: dict[str, Any]) -> Device:
    """The device of `device_options`, which are taken out of `options`."""
    device = DEVICES[options.pop("device")]
    units = {
        "product_tflops": ("product_flops", 1e12),
        "attention_tflops": ("attention_flops", 1e12),
        "bandwidth_tb": ("bandwidth", 1e12),
        "launch_us": ("launch_seconds", 1e-6),
    }
    given = {field: options.pop(name) for name, (field, _) in units.items()}
    factor = dict(units.values())
    return replace(
        device, **{name: value * factor[name] for name, value in given.items() if value is not None}
    )


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command()
@click.option("--patch", type=click.Choice(["16", "32"]), default="32", show_default=True)
@click.option("--batch", type=click.IntRange(1), default=128, show_default=True)
@click.option("--encoder", default="vip", show_default=True, help="As model.encoder of a recipe.")
@click.option("--frames", type=click.IntRange(1), default=12, show_default=True)
@click.option("--texts", type=click.IntRange(1, 2), default=2, show_default=True)
@click.option("--tokens", type=click.IntRange(1), default=70, show_default=True)
@click.option("--frame/--no-frame", "with_frame", default=True, help="Encode the middle frame too.")
@click.option("--top", type=int, default=12, show_default=True, help="Kinds of kernels listed.")
@click.option(
    "--old", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Another checkout."
)
@click.option("--old-tokens", type=click.IntRange(1), help="Tokens there; default: --tokens.")
@click.option("--json", "as_json", is_flag=True, help="Totals as JSON, and no more.")
@device_options
def step(**options: Any) -> None:
    """The encoders' forward and backward pass of a chunk, without loss and optimizer."""
    device = device_of(options)
    old, old_tokens = options.pop("old"), options.pop("old_tokens")
    top, as_json = options.pop("top"), options.pop("as_json")
    settings = {**options, "patch": int(options["patch"])}
    found, lines = count_step(settings, device, top=0 if as_json else top)
    if as_json:
        click.echo(json.dumps(found))
        return
    before = None if old is None else count_in(old, {**settings, "tokens": old_tokens or settings["tokens"]})
    click.echo(
        f"{options['encoder']}, patch {options['patch']}, batch {options['batch']}, a model's figures:"
    )
    for name, values in found.items():
        click.echo(f"{name}: {told(values)}")
        if before is not None:
            click.echo(f"  {old}: {told(before[name])}")
            click.echo(f"  ratio: {ratios(before[name], values)}")
    click.echo("\n".join(lines))


def count_step(settings: dict[str, Any], device: Device, *, top: int = 0) -> tuple[Found, list[str]]:
    """Totals by way of computing, and lines that say which kernels cost most."""
    from cost_model.fusion import kernels
    from cost_model.report import most_costly
    from cost_model.training import Step, count

    totals, saved_gib, recorder = count(Step(**settings), device)
    found: Found = {str(scope): {**asdict(of), "saved_gib": saved_gib} for scope, of in totals.items()}
    lines = []
    for scope in totals if top else ():
        lines += [f"{scope}:", *most_costly(kernels(recorder.operations, scope=scope), device, most=top)]
    return found, lines


def count_in(checkout: Path, settings: dict[str, Any]) -> Found:
    """`step --json` by this script with the package of another checkout."""
    with_frame = settings["with_frame"]
    options = [f"--{name}={value}" for name, value in settings.items() if name != "with_frame"]
    command = [
        sys.executable,
        __file__,
        "step",
        "--json",
        "--frame" if with_frame else "--no-frame",
        *options,
    ]
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve() / "src")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"--old {checkout}: {done.stderr.strip().splitlines()[-1:]}")
    found: Found = json.loads(done.stdout)
    return found


def told(values: dict[str, float]) -> str:
    return (
        f"{values['kernels']:,} kernels, {values['gigabytes']:,.1f} GB, {values['teraflops']:.2f} TFLOP, "
        f"{values['milliseconds']:.1f} ms, MFU {values['mfu_percent']:.1f}%, "
        f"kept for backward {values['saved_gib']:.1f} GiB"
    )


def ratios(before: dict[str, float], after: dict[str, float]) -> str:
    names = {"kernels": "kernels", "gigabytes": "bytes", "milliseconds": "time", "saved_gib": "kept"}
    return ", ".join(f"{text} {before[name] / after[name]:.2f}" for name, text in names.items())


# What the table of docs/benchmarks.md holds.
ROWS = {
    "B/32, 128 clips": {"patch": 32, "batch": 128},
    "B/16, 32 clips": {"patch": 16, "batch": 32},
    "B/32, full attention, 128 clips": {"patch": 32, "batch": 128, "encoder": "full_attention"},
    "B/32, mean pooling, 128 clips": {"patch": 32, "batch": 128, "encoder": "mean_pool"},
}


@main.command()
@click.option("--old", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True)
@click.option("--tokens", type=click.IntRange(1), default=24, show_default=True, help="Tokens of a text now.")
@click.option("--old-tokens", type=click.IntRange(1), default=70, show_default=True, help="Tokens there.")
@device_options
def table(old: Path, tokens: int, old_tokens: int, **options: Any) -> None:
    """The Markdown table of docs/benchmarks.md: the step before (--old) and now."""
    device = device_of(options)
    base = {"encoder": "vip", "frames": 12, "texts": 2, "with_frame": True}
    click.echo("| step, two texts and a frame | kernels | GB | ms | expected MFU | kept for backward |")
    click.echo("|---|---|---|---|---|---|")
    for name, changes in ROWS.items():
        settings = base | changes
        now, _ = count_step({**settings, "tokens": tokens}, device)
        before = count_in(old, {**settings, "tokens": old_tokens})
        for scope in now:
            cells = [
                f"{before[scope][key]:{form}} → {now[scope][key]:{form}}{unit}"
                for key, form, unit in (
                    ("kernels", ",", ""),
                    ("gigabytes", ",.0f", ""),
                    ("milliseconds", ".0f", ""),
                    ("mfu_percent", ".0f", "%"),
                    ("saved_gib", ".0f", " GiB"),
                )
            ]
            click.echo(f"| {name}, {scope} | {' | '.join(cells)} |")


@main.command()
@click.option("--size", type=click.Choice(["base", "large"]), default="base", show_default=True)
@click.option("--batch", type=click.IntRange(1), default=128, show_default=True)
@click.option("--plain-batch", type=click.IntRange(1), default=32, show_default=True)
@click.option("--top", type=int, default=12, show_default=True, help="Kinds of kernels listed.")
@device_options
def captions(size: str, batch: int, plain_batch: int, top: int, **options: Any) -> None:
    """A batch of captions, and kernels a caption beside the plain network's with transformers' search."""
    from cost_model.captioner import count, count_plain
    from cost_model.fusion import kernels
    from cost_model.report import most_costly

    device = device_of(options)
    found, recorder = count(size, batch, device)
    plain = count_plain(size, plain_batch)
    rate = batch / found.milliseconds * 1000
    click.echo(
        f"OFA {size}, batch {batch}, a model's figures: {found.kernels:,} kernels, "
        f"{found.gigabytes:,.0f} GB, "
        f"{found.teraflops:.1f} TFLOP, {found.milliseconds:.0f} ms, {rate:,.0f} captions/s"
    )
    each, of_plain = found.kernels / batch, plain / plain_batch
    click.echo(
        f"kernels a caption: {each:.1f}; plain, batch {plain_batch}: {of_plain:.1f} ({plain:,} a batch); "
        f"ratio {of_plain / each:.1f}"
    )
    click.echo("\n".join(most_costly(kernels(recorder.operations, scope="eager"), device, most=top)))


if __name__ == "__main__":
    main()
