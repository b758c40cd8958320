"""`clipvip-data convert-ofa`: a published fairseq checkpoint of OFA -> a folder that `caption` loads.

Options only: the work is `clipvip.model.ofa.convert`.
"""

from pathlib import Path

import click

from clipvip.pipeline.runtime.errors import StageCommand

_EPILOG = """\b
Examples:
  clipvip-data convert-ofa caption_large_best_clean.pt --vocab ofa-large/ --out ofa-caption/
"""


@click.command(cls=StageCommand, resumable=False, epilog=_EPILOG)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--vocab",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder with OFA's vocab.json and merges.txt, as every OFA model on the hub has them.",
)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder for the model; must be new."
)
@click.option(
    "--image-size",
    type=click.IntRange(16, 672),
    show_default="480, as all caption checkpoints",
    help="Side in pixels that images are resized to.",
)
def command(checkpoint: Path, vocab: Path, out: Path, image_size: int | None) -> None:
    """Turn CHECKPOINT, an OFA model as fairseq saves it (caption_large_best_clean.pt), into a model folder."""
    from clipvip.model.ofa.convert import convert_fairseq  # torch takes a while to import

    config = convert_fairseq(checkpoint, out, vocabulary=vocab, image_size=image_size)
    click.echo(
        f"convert-ofa: width {config.d_model}, {config.encoder_layers} and {config.decoder_layers} layers, "
        f"images of {config.image_size} pixels -> {out}"
    )
