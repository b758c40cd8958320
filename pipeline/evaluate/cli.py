"""`clipvip-eval retrieval`: how well a model finds clips by text and texts by clip.

Options and output; the numbers are made in `retrieval_scores`, clips read and encoded in `clip_embeddings`.
"""

import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

from clipvip import __version__
from clipvip.pipeline.evaluate.actions import actions
from clipvip.pipeline.evaluate.multiple_choice import multiple_choice
from clipvip.pipeline.evaluate.options import clips_options, measuring_options
from clipvip.pipeline.evaluate.output import finish, why_none
from clipvip.pipeline.evaluate.retrieval import score_pairs, table
from clipvip.pipeline.runtime.errors import StageCommand, StageGroup, UserError
from clipvip.pipeline.runtime.report import Report
from clipvip.shards.format.manifest import num_samples
from clipvip.shards.tar.reader import list_shards

if TYPE_CHECKING:
    import numpy as np

    from clipvip.model import ClipVip

RESULT_NAME = "retrieval.json"

_GROUP_EPILOG = """\b
Examples:
  clipvip-eval retrieval --model runs/b32/model --shards test-clips/ --out runs/b32/eval
"""
_EPILOG = """\b
Examples:
  clipvip-eval retrieval --model runs/b32/model --shards test-clips/ --out runs/b32/eval
  clipvip-eval retrieval --model runs/msrvtt/model --shards shards/msrvtt-1ka --dsl --qb-norm
"""


class _Group(StageGroup):
    """`search` stands above this package, and is loaded by name when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), "search"])

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name == "search":
            command: click.Command = import_module("clipvip.pipeline.search.command").search
            return command
        return super().get_command(ctx, name)


@click.group(cls=_Group, epilog=_GROUP_EPILOG)
@click.version_option(__version__, package_name="clipvip")
def main() -> None:
    """Measure a model."""


@main.command(cls=StageCommand, resumable=False, epilog=_EPILOG)
@clips_options
@click.option(
    "--captions", type=click.Path(path_type=Path), help="Folder of captions to search by, not by subtitles."
)
@click.option("--dsl", is_flag=True, help="Also with the dual softmax, which uses all queries at once.")
@click.option("--qb-norm", is_flag=True, help="Also with QB-Norm, the queries being their own bank.")
@click.option(
    "--query-bank",
    type=click.Path(path_type=Path),
    help="Other texts, such as those of training, for --qb-norm: shards, captions, or a file of lines.",
)
@click.option(
    "--all-captions", is_flag=True, help="Search by each caption of clips that have several, all being right."
)
@measuring_options(RESULT_NAME)
def retrieval(
    model_name: str,
    shards: Path,
    out: Path | None,
    captions: Path | None,
    dsl: bool,
    qb_norm: bool,
    query_bank: Path | None,
    all_captions: bool,
    resamples: int,
    num_frames: int | None,
    max_text_tokens: int | None,
    batch_size: int,
    max_pixels: int,
    device: str,
    as_json: bool,
) -> None:
    """Rank all clips for each text and all texts for each clip: R@1, R@5, R@10, median and mean rank.

    A clip is the one right answer to its text; from clip to text the best of its own counts. Frames are evenly
    spread, first to last. A tie with the right answer counts against recall and gives the middle rank.
    """
    started = time.monotonic()
    paths = list_shards(shards)
    if captions is not None and not captions.is_dir():
        raise UserError(f"--captions {captions}: no such folder; make it with 'clipvip-data caption'")
    if all_captions and captions is not None:
        raise UserError("--all-captions: is for the captions of a set's annotations; leave --captions out")
    if query_bank is not None and not qb_norm:
        raise UserError("--query-bank: is the bank of --qb-norm; give that too")
    # torch is imported from here on, so that mistakes above are told at once.
    from clipvip.pipeline.evaluate.embeddings import embed_pairs, load_clip_vip, settings_of
    from clipvip.pipeline.runtime.device import torch_device

    model = load_clip_vip(
        model_name,
        device=torch_device(device),
        num_frames=num_frames,
        max_text_tokens=max_text_tokens,
    )
    pairs = embed_pairs(
        model,
        paths,
        captions=captions,
        batch_size=batch_size,
        all_captions=all_captions,
        total=num_samples(shards),
        max_pixels=max_pixels,
    )
    queries = "captions" if captions is not None or all_captions else "subtitles"
    if len(pairs.texts) == 0:
        raise UserError(f"{shards}: {why_none(pairs.skips)}")
    result = score_pairs(
        pairs,
        queries=queries,
        settings=settings_of(model),
        dsl=dsl,
        qb_norm=qb_norm,
        bank=None if query_bank is None else _bank(model, query_bank),
        resamples=resamples,
        device=model.device,
    )
    for warning in result.get("warnings", ()):
        click.echo(f"Warning: {shards}: {warning}", err=True)
    options = {"model": model_name, "shards": str(shards), "queries": queries, **settings_of(model)}
    num_clips = len(pairs.texts)
    finish(
        Report("retrieval", options, counts={"clips": num_clips}, skips=pairs.skips),
        result,
        table(result),
        as_json=as_json,
        out=out,
        name=RESULT_NAME,
        started=started,
        done=num_clips,
        unit="clips",
    )


def _bank(model: "ClipVip", source: Path) -> "np.ndarray":
    """Embeddings (texts, dim) of a bank of queries."""
    from clipvip.shards.sources.texts import read_texts

    texts = [text for text in read_texts(source) if isinstance(text, str) and text]
    if not texts:
        raise UserError(f"--query-bank {source}: holds no texts")
    return model.encode_text(texts).numpy()


main.add_command(multiple_choice)
main.add_command(actions)

if __name__ == "__main__":
    main()
