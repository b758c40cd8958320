"""How near a clip is to its texts, by a model: the embeddings of clips are those of a search index."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from clipvip.pipeline.filter.table import ClipTable, read_table, table_path, write_table
from clipvip.pipeline.filter.texts import read_texts
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.progress import Progress
from clipvip.pipeline.search.index import Piece, Shard
from clipvip.shards.errors import DatasetError
from clipvip.shards.files.stores import Location

if TYPE_CHECKING:
    from clipvip.model import ClipVip
    from clipvip.pipeline.evaluate.embeddings import ClipEncoder


@dataclass(frozen=True)
class Scoring:
    """A model as scores depend on it: `made_of` is a hash of its weights, tokenizer, frames and tokens."""

    encoder: "ClipEncoder"
    name: str
    made_of: str

    @classmethod
    def by(cls, encoder: "ClipEncoder", name: str, maker: str) -> "Scoring":
        """`maker` is what made the clips' embeddings."""
        from clipvip.pipeline.domain_gap.encoder import model_fingerprint

        model: ClipVip = encoder.model
        text = f"{maker} {model_fingerprint(model, model.tokenizer)} {model.config.scored_text_tokens}"
        return cls(encoder, name, hashlib.sha256(text.encode()).hexdigest())


def known_table(out: Location, shard: Shard) -> ClipTable:
    """The table of a shard, which is measured; a DatasetError where it was damaged since."""
    found = read_table(table_path(out, shard.path.stem))
    if found is None:
        path = table_path(out, shard.path.stem)
        raise DatasetError(f"{path}: damaged; run the command again, which makes it anew")
    return found


def score_shards(
    out: Location, shards: Sequence[Shard], pieces: Sequence[Piece], captions: Sequence[Location], by: Scoring
) -> int:
    """Put scores into the tables of the shards that have none of this model; returns of how many clips."""
    num_scored = 0
    with Progress("scores", total=len(shards), unit="shards") as progress:
        for shard, piece in zip(shards, pieces, strict=True):
            table = known_table(out, shard)
            if table.made_of.get("scores") != by.made_of:
                columns = _scores_of(table, shard, piece, captions, by)
                table = table.with_family("scores", by.made_of, columns)
                write_table(table_path(out, shard.path.stem), table)
                num_scored += len(table.keys)
            progress.add(1)
    return num_scored


def _scores_of(
    table: ClipTable, shard: Shard, piece: Piece, captions: Sequence[Location], by: Scoring
) -> Mapping[str, np.ndarray]:
    """The cosine of each clip with its texts and captions; of several the mean, NaN of none."""
    from clipvip.pipeline.evaluate.embeddings import embed_texts

    rows = {key: row for row, key in enumerate(piece.keys)}
    places = {key: place for place, key in enumerate(table.keys)}
    known = [t for t in read_texts(shard.path, shard.sha256, captions) if t.key in rows and t.key in places]
    distinct = list(dict.fromkeys(chain.from_iterable((*clip.texts, *clip.captions) for clip in known)))
    found = {name: np.full(len(table.keys), np.nan, np.float32) for name in ("score", "caption_score")}
    if not distinct:
        return found
    vectors = piece.vectors()
    embeds = embed_texts(by.encoder, distinct, show_progress=False)
    if not np.isfinite(embeds).all():
        raise UserError(f"{by.name}: embeddings of texts hold NaN or infinity; its weights may be damaged")
    number = {text: n for n, text in enumerate(distinct)}
    for clip in known:
        for name, texts in (("score", clip.texts), ("caption_score", clip.captions)):
            if texts:
                products = embeds[[number[text] for text in texts]] @ vectors[rows[clip.key]]
                found[name][places[clip.key]] = products.mean()
    return found
