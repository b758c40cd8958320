"""`clipvip-data convert-released`, `-openclip` and `-ofa`: published checkpoints as model folders."""

from pathlib import Path

import click

from clipvip.pipeline.runtime.errors import StageCommand
from clipvip.pipeline.runtime.options import LocalName

_PATH = click.Path(path_type=Path)
_RELEASED_EPILOG = """\b
Examples:
  clipvip-data convert-released pretrain_clipvip_base_32.pt --out clip-vip-b32/
"""
_OPENCLIP_EPILOG = """\b
Examples:
  clipvip-data convert-openclip open_clip_model.safetensors --out clip/ \\
      --architecture open_clip_config.json
  clipvip-data convert-openclip metaclip_b32_400m.pt --out clip/ \\
      --architecture ViT-B-32-quickgelu
"""
_OFA_EPILOG = """\b
Examples:
  clipvip-data convert-ofa caption_large_best_clean.pt --vocab ofa-large/ --out ofa-caption/
"""


@click.command(cls=StageCommand, resumable=False, epilog=_RELEASED_EPILOG)
@click.argument("checkpoint", type=_PATH)
@click.option("--out", required=True, type=_PATH, help="Folder for the model; must be new or empty.")
@click.option(
    "--tokenizer",
    type=LocalName(),
    default="openai/clip-vit-base-patch32",
    show_default=True,
    help="CLIP folder or hub name whose tokenizer goes with the model; 'none' for no tokenizer.",
)
def released(checkpoint: Path, out: Path, tokenizer: str) -> None:
    """Turn CHECKPOINT, such as pretrain_clipvip_base_32.pt, into a folder that from_pretrained loads.

    The checkpoint is read with weights_only=True: it may hold tensors and nothing else.
    """
    from clipvip.model.weights import convert_released

    convert_released(checkpoint, out, tokenizer=None if tokenizer == "none" else tokenizer)
    click.echo(f"{checkpoint} -> {out}")


@click.command(cls=StageCommand, resumable=False, epilog=_OPENCLIP_EPILOG)
@click.argument("checkpoint", type=_PATH)
@click.option(
    "--architecture",
    required=True,
    type=LocalName(),
    help="OpenCLIP's name of the architecture, such as ViT-B-16, or its configuration as a JSON file.",
)
@click.option("--out", required=True, type=_PATH, help="Folder for the model; must be new or empty.")
@click.option(
    "--tokenizer",
    type=LocalName(),
    default="openai/clip-vit-base-patch32",
    show_default=True,
    help="CLIP folder or hub name whose tokenizer goes with the model, or OpenCLIP's "
    "bpe_simple_vocab_16e6.txt.gz; 'none' for no tokenizer.",
)
def openclip(checkpoint: Path, architecture: str, out: Path, tokenizer: str) -> None:
    """Turn CHECKPOINT, an OpenCLIP model (.safetensors, .bin or .pt), into a CLIP folder for --init.

    The checkpoint is read with weights_only=True: it may hold tensors and nothing else.

    Models of OpenAI, MetaCLIP and DFN compute quick GELU: give the name that ends in -quickgelu (OpenAI's own
    files are known by themselves). Give the open_clip_config.json beside a model where there is one: only
    that says by which mean its pixels are normalised, which in some is not CLIP's.
    """
    from clipvip.model.openclip import convert_openclip

    kind = convert_openclip(
        checkpoint, out, architecture=architecture, tokenizer=None if tokenizer == "none" else tokenizer
    )
    gelu = "quick" if kind.quick_gelu else "exact"
    click.echo(
        f"{checkpoint} -> {out}: images of {kind.vision.image_size} pixels, patches of "
        f"{kind.vision.patch_size}, {kind.embed_dim} dimensions, {gelu} GELU"
    )


@click.command(cls=StageCommand, resumable=False, epilog=_OFA_EPILOG)
@click.argument("checkpoint", type=_PATH)
@click.option(
    "--vocab",
    required=True,
    type=_PATH,
    help="Folder with OFA's vocab.json and merges.txt, as every OFA model on the hub has them.",
)
@click.option("--out", required=True, type=_PATH, help="Folder for the model; must be new or empty.")
@click.option(
    "--image-size",
    type=click.IntRange(16, 672),
    show_default="480, as all caption checkpoints",
    help="Side in pixels that images are resized to.",
)
def ofa(checkpoint: Path, vocab: Path, out: Path, image_size: int | None) -> None:
    """Turn CHECKPOINT, an OFA model as fairseq saves it (caption_large_best_clean.pt), into a model
    folder."""
    from clipvip.model.ofa.convert import convert_fairseq

    config = convert_fairseq(checkpoint, out, vocabulary=vocab, image_size=image_size)
    click.echo(
        f"convert-ofa: width {config.d_model}, {config.encoder_layers} and {config.decoder_layers} layers, "
        f"images of {config.image_size} pixels -> {out}"
    )
