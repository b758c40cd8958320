"""How long OFA takes for a caption: our network and search beside the authors' own, or alone on a GPU.

    python benchmarks/captioner_vs_reference.py --reference OFA [--packages DIR] [--rounds 5]
    python benchmarks/captioner_vs_reference.py --device cuda --peak-tflops 989

OFA is a checkout of github.com/OFA-Sys/OFA, branch feature/add_transformers: it is a package called
transformers, so it runs in a process of its own, with the folder DIR before the installed packages (it wants
huggingface-hub<1 and sacremoses: `pip install --target DIR "huggingface-hub<1" sacremoses requests`). All get
the same random weights of ofa-base, the same pixels and the prompt of captioning, and search with 5 beams for
16 tokens and </s>. They take turns; times are of the processor (all threads of a process), so that other work
beside them disturbs little.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import torch

PROMPT_IDS = [0, 99, 473, 5, 2274, 6190, 116, 2]  # " what does the image describe?"
NUM_BEAMS, MAX_LENGTH, NO_REPEAT = 5, 16, 3
SIZES: dict[str, dict[str, Any]] = {
    "base": {},
    "large": {
        "d_model": 1024, "encoder_layers": 12, "decoder_layers": 12, "resnet_type": "resnet152",
        "encoder_attention_heads": 16, "decoder_attention_heads": 16,
        "encoder_ffn_dim": 4096, "decoder_ffn_dim": 4096,
    },
}  # fmt: skip
# A caption at 480 pixels, prompt of 8 tokens, 5 beams, 17 steps with a cache: products only;
# 1 multiply-add = 2.
GFLOP_PER_IMAGE = {"base": 192.9, "large": 512.1}
Search = Callable[[], list[list[int]]]


def random_model(size: str) -> Any:
    """Random weights for which captions run to the limit, as the longest do."""
    from clipvip.model.ofa import OfaConfig, OfaForConditionalGeneration

    torch.manual_seed(0)
    return OfaForConditionalGeneration(OfaConfig(**SIZES[size])).eval()


def our_search(model: Any, pixels: torch.Tensor) -> Search:
    """As `clipvip-data caption` does. The model's parts are taken over."""
    from clipvip.model.ofa.folded import FoldedOfa
    from clipvip.model.ofa.search import BeamSearch, SearchRules

    rules = SearchRules(NUM_BEAMS, MAX_LENGTH, bos=0, pad=1, eos=2)
    network = FoldedOfa(
        model,
        torch.tensor([PROMPT_IDS]),
        image_size=pixels.shape[-1],
        num_steps=rules.num_steps,
        num_beams=NUM_BEAMS,
        dtype=pixels.dtype,
        for_gpu=pixels.device.type == "cuda",
    ).to(pixels.device)
    beam_search = BeamSearch(network.decoder, rules, len(pixels))
    channels_last = pixels.contiguous(memory_format=torch.channels_last)
    network.encoder.resnet.try_fused(channels_last)

    @torch.inference_mode()
    def search() -> list[list[int]]:
        return beam_search(network.encoder(channels_last))

    return search


def plain_search(model: Any, pixels: torch.Tensor, prompt: Sequence[int] = PROMPT_IDS) -> Search:
    """The plain network with transformers' search."""
    from clipvip.model.ofa.captioner import authors_search

    settings, processors = authors_search(model.config, num_beams=NUM_BEAMS, max_length=MAX_LENGTH)
    ids = torch.tensor([prompt] * len(pixels), device=pixels.device)

    @torch.inference_mode()
    def search() -> list[list[int]]:
        found = model.generate(
            input_ids=ids, patch_images=pixels, generation_config=settings, logits_processor=processors
        )
        return _tokens(found.tolist())

    return search


def _tokens(rows: list[list[int]]) -> list[list[int]]:
    """Without start token, </s> and what comes after it."""
    rows = [row[1:] if row[0] == 0 else row for row in rows]
    return [row[: row.index(2)] if 2 in row else row for row in rows]


# The other process: the authors' package, asked by lines of JSON.


def serve_reference(folder: Path) -> None:
    """Answer each line on stdin, the name of a way to search, by seconds and tokens."""
    from safetensors.torch import load_file
    from transformers.models.ofa.configuration_ofa import OFAConfig  # type: ignore[import-not-found]
    from transformers.models.ofa.generate.sequence_generator import (  # type: ignore[import-not-found]
        SequenceGenerator,
    )
    from transformers.models.ofa.modeling_ofa import OFAModel  # type: ignore[import-not-found]

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    model = OFAModel(OFAConfig(**json.loads((folder / "config.json").read_text()))).eval()
    missing, unexpected = model.load_state_dict(load_file(folder / "weights.safetensors"), strict=False)
    if unexpected or any(not name.endswith(("rp_bucket", "image_position_idx")) for name in missing):
        raise ValueError(f"weights do not fit: {missing} {unexpected}")
    pixels = load_file(folder / "pixels.safetensors")["pixels"]
    ids = torch.tensor([PROMPT_IDS] * len(pixels))
    vocabulary = {str(number): number for number in range(model.config.vocab_size)}
    tokenizer = SimpleNamespace(
        get_vocab=lambda: vocabulary, get_added_vocab=dict, bos_token_id=0, pad_token_id=1, eos_token_id=2,
        unk_token_id=3, add_bos_token=True,
    )  # fmt: skip
    generator = SequenceGenerator(
        tokenizer=tokenizer,
        beam_size=NUM_BEAMS,
        max_len_b=MAX_LENGTH,
        min_len=0,
        no_repeat_ngram_size=NO_REPEAT,
    )
    masks = torch.ones(len(pixels), dtype=torch.bool)

    def generate() -> list[list[int]]:
        found = model.generate(
            ids, patch_images=pixels, num_beams=NUM_BEAMS, max_length=MAX_LENGTH + 2, early_stopping=True,
            no_repeat_ngram_size=NO_REPEAT, use_cache=True,
        )  # fmt: skip
        return _tokens(found.tolist())

    def sequence_generator() -> list[list[int]]:
        inputs = {"input_ids": ids, "patch_images": pixels, "patch_masks": masks}
        found = generator.generate([model], {"net_input": inputs})
        return _tokens([row[0]["tokens"].tolist() for row in found])

    ways = {"generate": generate, "SequenceGenerator": sequence_generator}
    print("ready", flush=True)
    for line in sys.stdin:
        with torch.no_grad():
            seconds, tokens = timed(ways[line.strip()])
        print(json.dumps([seconds, tokens]), flush=True)


def timed(search: Search) -> tuple[float, list[list[int]]]:
    """Seconds of processor time, and what was found."""
    begin = time.process_time()
    tokens = search()
    return time.process_time() - begin, tokens


def start_reference(
    reference: Path, packages: Path | None, folder: Path, threads: int
) -> "subprocess.Popen[str]":
    source = reference / "transformers" / "src"
    if not (source / "transformers" / "models" / "ofa").is_dir():
        raise click.ClickException(
            f"--reference {reference}: no transformers/src/transformers/models/ofa there"
        )
    paths = [str(source.resolve()), *([str(packages.resolve())] if packages else [])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, str(Path(__file__).resolve()), "--serve", str(folder)]
    log = folder / "reference.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "ready":
            return process
    process.wait()
    reason = next((line for line in log.read_text().splitlines() if "Error: " in line), "no reason given")
    raise click.ClickException(f"the reference does not start ({reason}); see --packages")


def ask(process: "subprocess.Popen[str]", way: str) -> tuple[float, list[list[int]]]:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{way}\n")
    process.stdin.flush()
    for line in process.stdout:
        if line.startswith("[["):
            break
        if line.startswith("["):
            seconds, tokens = json.loads(line)
            return seconds, tokens
    raise click.ClickException(f"the reference ended while at {way}")


def compare(
    reference: Path, packages: Path | None, *, images: int, image_size: int, rounds: int, threads: int
) -> None:
    """Take turns on the CPU, and print a table."""
    from safetensors.torch import save_file

    torch.set_num_threads(threads)
    model = random_model("base")
    pixels = torch.rand(images, 3, image_size, image_size) * 2 - 1
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        save_file(state, folder / "weights.safetensors")
        save_file({"pixels": pixels}, folder / "pixels.safetensors")
        (folder / "config.json").write_text(json.dumps({**REFERENCE_CONFIG, **SIZES["base"]}))
        process = start_reference(reference, packages, folder, threads)
        search = our_search(model, pixels)
        search()
        seconds: dict[str, list[float]] = {"clipvip": [], "generate": [], "SequenceGenerator": []}
        tokens: dict[str, list[list[int]]] = {}
        for _ in range(rounds):
            for way, times in seconds.items():
                taken, tokens[way] = timed(search) if way == "clipvip" else ask(process, way)
                times.append(taken / images)
        process.kill()
        process.wait()
    gflop = GFLOP_PER_IMAGE["base"] if image_size == 480 else None
    best = statistics.median(seconds["clipvip"])
    click.echo(
        f"{images} images of {image_size} pixels, {rounds} rounds, {threads} threads; same tokens "
        "as ours in the last column"
    )
    click.echo(
        "| way | CPU seconds per caption | lowest-highest | of ours | GFLOP/s | same |\n|---|---|"
        "---|---|---|---|"
    )
    for way, times in seconds.items():
        median = statistics.median(times)
        rate = f"{gflop / median:.0f}" if gflop else "-"
        same = sum(a == b for a, b in zip(tokens[way], tokens["clipvip"], strict=True))
        span = f"{min(times):.2f}-{max(times):.2f}"
        click.echo(f"| {way} | {median:.2f} | {span} | {median / best:.2f} x | {rate} | {same}/{images} |")


# The fields of a published config.json that the reference's class needs besides its defaults.
REFERENCE_CONFIG = {
    "vocab_size": 59457, "d_model": 768, "encoder_layers": 6, "decoder_layers": 6, "encoder_ffn_dim": 3072,
    "decoder_ffn_dim": 3072, "encoder_attention_heads": 12, "decoder_attention_heads": 12,
    "resnet_type": "resnet101", "use_cache": True, "attn_scale_factor": 2.0, "normformer": True,
    "encoder_normalize_before": True, "decoder_normalize_before": True, "layernorm_embedding": True,
    "patch_layernorm_embedding": True, "code_layernorm_embedding": True, "add_type_embedding": True,
    "share_decoder_input_output_embed": True, "image_bucket_size": 42, "token_bucket_size": 256,
    "code_image_size": 128, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
    "forced_eos_token_id": None,
}  # fmt: skip


def alone_on_gpu(batch_sizes: list[int], *, rounds: int, peak_tflops: float) -> None:
    """Ours in bfloat16, base and large, and what part of the GPU's peak that is."""
    click.echo(
        f"{torch.cuda.get_device_name()}, bfloat16, 480 pixels, {NUM_BEAMS} beams, {MAX_LENGTH} "
        "tokens and </s>"
    )
    click.echo(
        "| size | batch | captions per second | lowest-highest | TFLOP/s | of peak |\n|---|---|---|"
        "---|---|---|"
    )
    for size, gflop in GFLOP_PER_IMAGE.items():
        for batch_size in batch_sizes:
            pixels = torch.rand(batch_size, 3, 480, 480, device="cuda", dtype=torch.bfloat16) * 2 - 1
            search = our_search(random_model(size), pixels)
            search()
            rates = []
            for _ in range(rounds):
                torch.cuda.synchronize()
                begin = time.perf_counter()
                search()
                torch.cuda.synchronize()
                rates.append(batch_size / (time.perf_counter() - begin))
            median = statistics.median(rates)
            tflops = median * gflop / 1000
            span = f"{min(rates):.0f}-{max(rates):.0f}"
            click.echo(
                f"| {size} | {batch_size} | {median:.0f} | {span} | {tflops:.1f} | "
                f"{tflops / peak_tflops:.1%} |"
            )


@click.command()
@click.option("--reference", type=click.Path(path_type=Path), help="Checkout of OFA-Sys/OFA.")
@click.option(
    "--packages", type=click.Path(path_type=Path), help="Folder with packages that the reference wants."
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--images", default=2, show_default=True, help="Images at once, on the CPU.")
@click.option("--image-size", default=480, show_default=True, help="On the CPU.")
@click.option("--batch-sizes", default="8,32,128", show_default=True, help="On the GPU.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--peak-tflops", default=989.0, show_default=True, help="The GPU's, dense bfloat16.")
@click.option("--serve", type=click.Path(path_type=Path), hidden=True)
def main(reference: Path | None, packages: Path | None, device: str, images: int, image_size: int,
         batch_sizes: str,
         rounds: int, threads: int, peak_tflops: float, serve: Path | None) -> None:  # fmt: skip
    """Compare with the authors' code on the CPU, or measure ours on a GPU."""
    if serve is not None:
        serve_reference(serve)
    elif device == "cuda":
        alone_on_gpu([int(size) for size in batch_sizes.split(",")], rounds=rounds, peak_tflops=peak_tflops)
    elif reference is None:
        raise click.UsageError("give --reference, or --device cuda")
    else:
        compare(reference, packages, images=images, image_size=image_size, rounds=rounds, threads=threads)


if __name__ == "__main__":
    main()
