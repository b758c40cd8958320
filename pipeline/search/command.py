"""`clipvip-eval search`: the clips of a shard folder that are nearest to a sentence.

Options and output. The index is `search_index`'s business, the page `search_page`'s.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipvip.pipeline.evaluate.options import clips_options, encoding_options
from clipvip.pipeline.evaluate.output import why_none
from clipvip.pipeline.pages.cards import texts_of
from clipvip.pipeline.runtime.cores import num_cores
from clipvip.pipeline.runtime.errors import StageCommand, UserError
from clipvip.pipeline.runtime.options import json_option, print_result
from clipvip.pipeline.runtime.progress import Progress
from clipvip.pipeline.runtime.report import Report
from clipvip.pipeline.search.index import (
    Encoded,
    Maker,
    Piece,
    Shard,
    is_current,
    load_index,
    nearest,
    require_index,
    shards_of,
    update_index,
)
from clipvip.pipeline.search.page import Found, look_up, search_page
from clipvip.pipeline.tools.inspect import printable
from clipvip.shards.files.atomic import atomic_write_bytes
from clipvip.shards.files.claims import REPORT_NAME
from clipvip.shards.tar.reader import Sample

if TYPE_CHECKING:
    import numpy as np

    from clipvip.model import ClipVip

INDEX_FOLDER = "search"
_MOST_TEXT = 100
_VISION_SETTINGS = ("hidden_act", "image_size", "layer_norm_eps", "num_attention_heads", "patch_size")

_EPILOG = """\b
Examples:
  clipvip-eval search "a dog runs" --model runs/b32/model --shards clips/ --page found.html
  clipvip-eval search "a dog runs" "two men talk" --model runs/b32/model --shards clips/ --top 3 --json
"""


@click.command("search", cls=StageCommand, epilog=_EPILOG)
@click.argument("sentences", metavar="[SENTENCE]...", nargs=-1)
@clips_options
@click.option("--top", type=click.IntRange(1, 10_000), default=10, show_default=True,
              help="Clips to show for each sentence.")  # fmt: skip
@click.option("--index", "index_folder", type=click.Path(file_okay=False, path_type=Path),
              show_default=f"{INDEX_FOLDER}/ in the folder of shards",
              help="Folder for the index.")  # fmt: skip
@click.option("--rebuild", is_flag=True,
              help="Replace an index that another model, or another number of frames, made.")  # fmt: skip
@click.option("--page", "page_path", type=click.Path(dir_okay=False, path_type=Path),
              help="Write a page with frames of the clips to this file.")  # fmt: skip
@click.option("--frames", type=click.IntRange(1, 32), default=4, show_default=True,
              help="Frames of each clip on the page.")  # fmt: skip
@json_option
@encoding_options
def search(
    sentences: tuple[str, ...],
    model_name: str,
    shards: Path,
    top: int,
    index_folder: Path | None,
    rebuild: bool,
    page_path: Path | None,
    frames: int,
    as_json: bool,
    num_frames: int | None,
    max_text_tokens: int | None,
    batch_size: int,
    max_pixels: int,
    device: str,
) -> None:
    """Find the clips that are nearest to each SENTENCE, by the cosine similarity of their embeddings.

    The first search encodes all clips into an index beside the shards; later ones encode only shards that are new
    or have changed. Without a sentence the index is brought up to date and that is all.
    """
    queries = [" ".join(sentence.split()) for sentence in sentences]
    if not all(queries):
        raise UserError("a SENTENCE is blank; give some words")
    if page_path is not None and not (queries and page_path.parent.is_dir()):
        reason = f"no such folder as {page_path.parent}; make it" if queries else "give a SENTENCE to find"
        raise UserError(f"--page {page_path}: {reason}")
    wanted = shards_of(shards)
    # torch is imported from here on, so that mistakes above are told at once.
    from clipvip.pipeline.evaluate.embeddings import load_clip_vip
    from clipvip.pipeline.runtime.device import torch_device

    model = load_clip_vip(
        model_name,
        device=torch_device(device),
        num_frames=num_frames,
        max_text_tokens=max_text_tokens,
        needs_tokenizer=bool(queries),
    )
    maker = Maker(fingerprint(model), model.config.scored_frames, int(model.config.projection_dim))
    folder = index_folder or shards / INDEX_FOLDER
    require_index(folder, maker, rebuild=rebuild)
    vectors = _encode_sentences(model, model_name, queries)
    pieces = _bring_up_to_date(
        folder, wanted, maker, model, model_name, batch_size=batch_size, max_pixels=max_pixels
    )
    num_clips = sum(len(piece.keys) for piece in pieces)
    if not num_clips and queries:
        skips = [skip for piece in pieces for skip in piece.skips]
        raise UserError(f"{shards}: {why_none(skips)}")
    answers = look_up(nearest(pieces, vectors, top=top)) if queries else []
    found = list(zip(queries, answers, strict=True))
    if queries or as_json:
        rows = [{"sentence": sentence, **_row(clip)} for sentence, answer in found for clip in answer]
        text = "\n".join(_lines(sentence, answer, num_clips) for sentence, answer in found)
        print_result({"clips": rows}, text, as_json=as_json)
    if page_path is not None:
        html = search_page(queries, answers, num_clips=num_clips, num_frames=frames, workers=num_cores())
        atomic_write_bytes(page_path, html)
        click.echo(f"search: {sum(map(len, answers)):,} clips -> {page_path}", err=True)


def fingerprint(model: "ClipVip") -> str:
    """A hash of all that a clip's embedding depends on, but for its pixels: parameters, and settings that are none."""
    from clipvip.pipeline.domain_gap.encoder import model_fingerprint

    config = model.config
    settings = {
        "encoder": config.encoder,
        "num_frame_heads": config.num_frame_heads,
        **{name: getattr(config.vision_config, name) for name in _VISION_SETTINGS},
    }
    content = json.dumps([model_fingerprint(model, None), settings], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _encode_sentences(model: "ClipVip", name: str, sentences: Sequence[str]) -> "np.ndarray":
    """Embeddings (sentences, dim)."""
    import numpy as np

    from clipvip.pipeline.evaluate.embeddings import embed_texts

    vectors = embed_texts(model, sentences, show_progress=False)
    if not np.isfinite(vectors).all():
        raise UserError(f"{name}: the sentences' embeddings hold NaN or infinity; its weights may be damaged")
    return vectors


def _bring_up_to_date(
    folder: Path,
    shards: Sequence[Shard],
    maker: Maker,
    model: "ClipVip",
    model_name: str,
    *,
    batch_size: int,
    max_pixels: int,
) -> list[Piece]:
    """Encode what is missing in the index, and say so; nothing is written to one that is complete."""
    from clipvip.pipeline.evaluate.embeddings import embed_clips

    started = time.monotonic()
    found = load_index(folder, shards, maker)
    if is_current(folder, shards, found) and (folder / REPORT_NAME).is_file():
        return [piece for piece in found if piece is not None]
    missing = [shard.num_clips for shard, piece in zip(shards, found, strict=True) if piece is None]
    total = None if None in missing else sum(count or 0 for count in missing)
    made: list[Piece] = []
    # Written again at the end: where it is missing, a build was cut short.
    (folder / REPORT_NAME).unlink(missing_ok=True)
    with Progress("clips", total=total, unit="clips") as progress:

        def choose(sample: Sample) -> str:
            progress.add(1)
            return sample.key

        def encode(path: Path) -> Encoded:
            clips = embed_clips(
                model, [path], choose, batch_size=batch_size, max_pixels=max_pixels, show_progress=False
            )
            return Encoded(clips.about, clips.videos, clips.skips)

        pieces = update_index(folder, shards, maker, encode, on_done=made.append)
    for shard, piece in zip(shards, pieces, strict=True):
        if piece.shard_sha256 != shard.sha256:
            click.echo(
                f"{shard.path}: not the file that the manifest lists; run 'clipvip-data verify'", err=True
            )
    counts: dict[str, int | float] = {
        "shards": len(pieces),
        "clips": sum(len(piece.keys) for piece in pieces),
    }
    options = {"model": model_name, "num_frames": maker.num_frames}
    report = Report(
        "search", options, counts=counts, skips=[skip for piece in pieces for skip in piece.skips]
    )
    done = sum(len(piece.keys) for piece in made)
    report.write(folder, seconds=time.monotonic() - started, done_now=done, unit="clips")
    click.echo(report.summary(folder), err=True)
    return pieces


def _lines(sentence: str, answer: Sequence[Found], num_clips: int) -> str:
    lines = [f'"{sentence}": {len(answer):,} of {num_clips:,} clips', *map(_line, answer)]
    return "\n".join(map(printable, lines))


def _row(found: Found) -> dict[str, Any]:
    clip = found.clip
    return {
        "rank": found.rank,
        "similarity": round(found.similarity, 6),
        "shard": clip.path.name,
        "key": clip.key,
        "video_id": clip.record.video_id if clip.record else None,
        "span_seconds": clip.record.span_seconds if clip.record else None,
        "text": _text(found),
        "problem": clip.problem or None,
    }


def _line(found: Found) -> str:
    clip, text = found.clip, _text(found)
    if clip.record:
        start, end = clip.record.span_seconds
        where = f"{start:.2f} to {end:.2f} s of {clip.record.video_id}"
    else:
        where = clip.problem
    text = text if len(text) <= _MOST_TEXT else text[: _MOST_TEXT - 1] + "…"
    return f"{found.rank:5,}  {found.similarity:7.4f}  {clip.key}  {where}  {text}"


def _text(found: Found) -> str:
    """The subtitle of a clip, or the first sentence of one that has several."""
    return next((text for _, text in texts_of(found.clip)), "")
