"""`clipvip-data convert-released`: a checkpoint of the paper's authors as a model folder."""

from pathlib import Path

import click

from clipvip.pipeline.runtime.errors import StageCommand
from clipvip.pipeline.runtime.options import LocalName

_EPILOG = """\b
Examples:
  clipvip-data convert-released pretrain_clipvip_base_32.pt --out clip-vip-b32/
"""


@click.command(cls=StageCommand, resumable=False, name="convert-released", epilog=_EPILOG)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--out",
    "out",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder for the model; must be new or empty.",
)
@click.option(
    "--tokenizer",
    type=LocalName(),
    default="openai/clip-vit-base-patch32",
    show_default=True,
    help="CLIP folder or hub name whose tokenizer goes with the model; 'none' for no tokenizer.",
)
def command(checkpoint: Path, out: Path, tokenizer: str) -> None:
    """Turn CHECKPOINT, such as pretrain_clipvip_base_32.pt, into a folder that from_pretrained loads.

    The checkpoint is read with weights_only=True: it may hold tensors and nothing else.
    """
    from clipvip.model.weights import convert_released  # torch, only now

    convert_released(checkpoint, out, tokenizer=None if tokenizer == "none" else tokenizer)
    click.echo(f"{checkpoint} -> {out}")
