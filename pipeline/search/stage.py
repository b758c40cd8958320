"""The stage `search`: the clips of a shard folder that are nearest to a sentence."""

import hashlib
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING

import click
import numpy as np

from clipvip.pipeline.evaluate.options import ClipsOptions, require_page_folder
from clipvip.pipeline.evaluate.output import why_none
from clipvip.pipeline.pages.cards import Pick, texts_of
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.options import ALSO, PlaceType, opt, options
from clipvip.pipeline.runtime.progress import Progress
from clipvip.pipeline.runtime.report import Report, StageReport, counted
from clipvip.pipeline.runtime.stage import stage
from clipvip.pipeline.search.index import (
    Hit,
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
from clipvip.pipeline.search.page import look_up, search_page
from clipvip.pipeline.tools.inspect import printable
from clipvip.shards.files.atomic import atomic_write_bytes
from clipvip.shards.files.claims import REPORT_NAME
from clipvip.shards.files.hashes import sha256_of_file
from clipvip.shards.files.places import is_file
from clipvip.shards.files.stores import Location, store_errors
from clipvip.shards.tar.reader import Sample

if TYPE_CHECKING:
    from clipvip.model import ClipVip
    from clipvip.pipeline.evaluate.embeddings import ClipEmbeddings, ClipEncoder

INDEX_FOLDER = "search"
_NAME_DIGITS = 12  # of a model's hash, by which a baseline's index in that of the model is named
_MOST_TEXT = 100
_VISION_SETTINGS = ("hidden_act", "image_size", "layer_norm_eps", "num_attention_heads", "patch_size")


@options
class SearchOptions(ClipsOptions):
    """What `search` is asked for."""

    sentences: tuple[str, ...] = opt(argument=True, metavar="[SENTENCE]...", kw_only=False, default=())
    top: int = opt("Clips to show for each sentence.", click.IntRange(1, 10_000), default=10)
    index: Location | None = opt(
        f"Folder for the index; {ALSO}.",
        PlaceType(file_okay=False),
        shown=f"{INDEX_FOLDER}/ in the folder of shards",
        default=None,
    )
    rebuild: bool = opt(
        "Replace an index that another model, or another number of frames, made.", default=False
    )
    page: Location | None = opt(
        "Write a page with frames of the clips to this file.",
        PlaceType(dir_okay=False),
        default=None,
    )
    frames: int = opt("Frames of each clip on the page.", click.IntRange(1, 32), default=4)

    def packages(self) -> dict[str, str]:
        return super().packages() | ({"faiss": "search"} if self.sentences else {})


@dataclass(frozen=True, kw_only=True)
class FoundClip:
    """A clip that was found for a sentence: rank from 1, cosine similarity, where it is, and its text.

    Of one whose record cannot be read, which `problem` says, video and span are None.
    """

    sentence: str
    rank: int
    similarity: float
    shard: str
    key: str
    video_id: str | None
    span_seconds: tuple[float, float] | None
    text: str
    problem: str | None


@dataclass(frozen=True, kw_only=True)
class SearchReport(StageReport):
    """The clips that were found, those of each sentence best first; by baselines under their names."""

    clips: list[FoundClip] = field(default_factory=list)
    baselines: dict[str, list[FoundClip]] = field(default_factory=dict)


@stage(
    SearchOptions,
    "clipvip-eval search",
    '"a dog runs" --model runs/b32/model --shards clips/ --page found.html',
    '"a dog runs" "two men talk" --model runs/b32/model --shards clips/ --top 3 --json',
)
def search(options: SearchOptions) -> SearchReport:
    """Find the clips that are nearest to each SENTENCE, by the cosine similarity of their embeddings.

    The first search encodes all clips into an index beside the shards; later ones encode only shards that are
    new or have changed. Without a sentence the index is brought up to date and no more is done.

    Raises:
        UserError, DatasetError, CheckpointError: what was given cannot be used, or is of another model.

    Examples:
        >>> import clipvip
        >>> report = clipvip.search("a dog runs", model="runs/b32/model", shards="test-clips", top=3)
        >>> [clip.rank for clip in report.clips]
        [1, 2, 3]
    """
    queries = [" ".join(sentence.split()) for sentence in options.sentences]
    page = options.page
    if not all(queries):
        raise UserError("a SENTENCE is blank; give some words")
    if page is not None and not queries:
        raise UserError(f"--page {page}: give a SENTENCE to find")
    require_page_folder(page)
    wanted = shards_of(options.shards)
    models = options.load_models(needs_tokenizer=bool(queries))
    index = options.index or options.shards / INDEX_FOLDER
    found = []  # by each model, for each sentence
    num_clips = 0
    for name, model in models.items():
        maker = maker_of(model)
        folder = index
        if name != options.model:
            folder = index / f"baseline-{maker.model_sha256[:_NAME_DIGITS]}-{maker.num_frames}"
        pieces, vectors = _embeddings(name, model, queries, folder, wanted, maker, options)
        if not queries:
            continue
        num_clips = sum(len(piece.keys) for piece in pieces)
        if not num_clips:
            skips = [skip for piece in pieces for skip in piece.skips]
            raise UserError(f"{options.shards}: {why_none(skips)}")
        found.append(nearest(pieces, vectors, top=options.top, use_gpu=options.device != "cpu"))
    if not queries:
        return SearchReport(content={"clips": []}, text="")
    answers = list(zip(queries, zip(*found, strict=True), strict=True))
    picks = look_up([hit for of_model in found for hits in of_model for hit in hits])
    if page is not None:
        shown = search_page(
            answers, picks, models=list(models), num_clips=num_clips, num_frames=options.frames
        )
        atomic_write_bytes(page, shown)
        num_shown = sum(len(hits) for _, of_models in answers for hits in of_models)
        click.echo(f"search: {counted(num_shown, 'clips')} -> {page}", err=True)
    clips: dict[str, list[FoundClip]] = {name: [] for name in models}
    lines = []
    for sentence, of_models in answers:
        for name, hits in zip(models, of_models, strict=True):
            by = "" if name == options.model else f", by {name}"
            lines.append(f'"{sentence}"{by}: {len(hits):,} of {counted(num_clips, "clips")}')
            for rank, hit in enumerate(hits, start=1):
                clips[name].append(_found_clip(sentence, rank, hit, picks[hit]))
                lines.append(_line(clips[name][-1], hit.similarity))
    text = "\n".join(map(printable, lines))
    told = {name: list(map(asdict, some)) for name, some in clips.items()}
    of_model, by_model = told.pop(options.model), clips.pop(options.model)
    content = {"clips": of_model} | ({"baselines": told} if told else {})
    return SearchReport(content=content, text=text, clips=by_model, baselines=clips)


def _embeddings(
    name: str,
    model: "ClipVip",
    queries: list[str],
    folder: Location,
    shards: Sequence[Shard],
    maker: Maker,
    options: SearchOptions,
) -> tuple[list[Piece], np.ndarray]:
    """The index in `folder`, brought up to date, and the embeddings (sentences, dim) of the sentences."""
    from clipvip.pipeline.evaluate.embeddings import embed_texts

    require_index(folder, maker, rebuild=options.rebuild)
    encoder = options.encoder(model)
    vectors = embed_texts(encoder, queries, show_progress=False)
    if not np.isfinite(vectors).all():
        raise UserError(f"{name}: the sentences' embeddings hold NaN or infinity; its weights may be damaged")
    return bring_up_to_date(folder, shards, maker, encoder, model=name), vectors


def maker_of(model: "ClipVip") -> Maker:
    """What an index made by a model says of it."""
    return Maker(fingerprint(model), model.config.scored_frames, int(model.config.projection_dim))


def fingerprint(model: "ClipVip") -> str:
    """A hash of all that a clip's embedding depends on but its pixels: parameters and other settings."""
    from clipvip.model.config import CLIP_NORMALIZATION
    from clipvip.pipeline.domain_gap.encoder import model_fingerprint

    config = model.config
    settings = {
        "encoder": config.encoder,
        "num_frame_heads": config.num_frame_heads,
        **{name: getattr(config.vision_config, name) for name in _VISION_SETTINGS},
    }
    if config.normalization != CLIP_NORMALIZATION:  # other than CLIP's
        settings["normalization"] = asdict(config.normalization)
    content = json.dumps([model_fingerprint(model, None), settings], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def bring_up_to_date(
    folder: Location, shards: Sequence[Shard], maker: Maker, encoder: "ClipEncoder", *, model: str
) -> list[Piece]:
    """Encode what is missing in the index, and say so; nothing is written to one that is complete.

    `model` is what its report calls the model. Raises as `update_index`.
    """
    from clipvip.pipeline.evaluate.embeddings import embed_by_shard, embed_clips

    started = time.monotonic()
    found = load_index(folder, shards, maker)
    if is_current(folder, shards, found) and is_file(folder / REPORT_NAME):
        return [piece for piece in found if piece is not None]
    missing = [shard for shard, piece in zip(shards, found, strict=True) if piece is None]
    counts_known = [shard.num_clips for shard in missing]
    total = None if None in counts_known else sum(count or 0 for count in counts_known)
    encoder = replace(encoder, total=total, shows_progress=False)
    hash_of = cache(sha256_of_file)
    # Written again at the end: where it is missing, a build was cut short.
    with store_errors(folder):
        (folder / REPORT_NAME).unlink(missing_ok=True)
    with ExitStack() as stack:
        progress = stack.enter_context(Progress("clips", total=total, unit="clips"))

        def choose(sample: Sample) -> str:
            progress.add(1)
            return sample.key

        ahead = embed_by_shard(encoder, [shard.path for shard in missing], choose, before=hash_of)
        stack.enter_context(closing(ahead))

        def encode(path: Location) -> "ClipEmbeddings[str]":
            """As `ahead` has it, unless another run has made or removed pieces meanwhile."""
            made = next((made for of_path, made in ahead if of_path == path), None)
            return embed_clips(encoder, [path], choose) if made is None else made

        pieces = update_index(folder, shards, maker, encode, hash_of)
    for shard, piece in zip(shards, pieces, strict=True):
        if piece.shard_sha256 != shard.sha256:
            click.echo(
                f"{shard.path}: not the file that the manifest lists; run 'clipvip-data verify'", err=True
            )
    counts: dict[str, int | float] = {"shards": len(pieces), "clips": sum(len(p.keys) for p in pieces)}
    options = {"model": model, "num_frames": maker.num_frames}
    report = Report("search", options, counts, skips=[skip for piece in pieces for skip in piece.skips])
    done = sum(len(piece.keys) for piece, before in zip(pieces, found, strict=True) if before is None)
    click.echo(report.finish(folder, started=started, done_now=done, unit="clips"), err=True)
    return pieces


def _found_clip(sentence: str, rank: int, hit: Hit, pick: Pick) -> FoundClip:
    return FoundClip(
        sentence=sentence,
        rank=rank,
        similarity=round(hit.similarity, 6),
        shard=hit.shard.name,
        key=hit.key,
        video_id=pick.record.video_id if pick.record else None,
        span_seconds=pick.record.span_seconds if pick.record else None,
        # Of a clip that has several, the first.
        text=next((text for _, text in texts_of(pick)), ""),
        problem=pick.problem or None,
    )


def _line(clip: FoundClip, similarity: float) -> str:
    where = clip.problem or ""
    if clip.span_seconds:
        start, end = clip.span_seconds
        where = f"{start:.2f} to {end:.2f} s of {clip.video_id}"
    text = clip.text if len(clip.text) <= _MOST_TEXT else clip.text[: _MOST_TEXT - 1] + "…"
    return f"{clip.rank:5,}  {similarity:7.4f}  {clip.key}  {where}  {text}"
