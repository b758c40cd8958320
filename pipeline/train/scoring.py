"""Retrieval scores of a model on a split, computed by all processes of a run together."""

from typing import Any

import numpy as np
import torch

from clipvip.model import ClipVip
from clipvip.pipeline.evaluate.embeddings import ClipEncoder, PairEmbeddings, embed_pairs, settings_of
from clipvip.pipeline.evaluate.retrieval import score_pairs
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.train.distributed import gather_objects
from clipvip.pipeline.train.loading import ADVICE
from clipvip.pipeline.train.step import Job
from clipvip.shards.files.stores import Location
from clipvip.shards.format.manifest import num_samples
from clipvip.shards.tar.reader import list_shards


def score_split(job: Job, model: ClipVip, folder: Location) -> dict[str, Any]:
    """The scores of a split, in every process."""
    mine = list_shards(folder)[job.place.rank :: job.place.world_size]
    total = num_samples(folder)
    encoder = ClipEncoder(
        model,
        job.recipe.evaluation.clips_at_once,
        total=None if total is None else total // job.place.world_size,
        shows_progress=False,
        workers=job.recipe.run.workers,
        precision=job.precision,
        advice=ADVICE,
    )
    with torch.random.fork_rng([]):
        pairs = embed_pairs(encoder, mine)
    joined = _join(gather_objects(pairs, place=job.place))
    if not len(joined.texts):
        raise UserError(f"{folder}: no clip of it has both frames and a text; nothing can be scored")
    return score_pairs(joined, queries="subtitles", settings=settings_of(model)).as_dict()


def _join(parts: list[PairEmbeddings]) -> PairEmbeddings:
    """The embeddings of all processes as those of one."""
    used = [part for part in parts if len(part.texts)] or parts[:1]
    starts = np.cumsum([0, *(len(part.videos) for part in used[:-1])])
    return PairEmbeddings(
        np.concatenate([part.texts for part in used]),
        np.concatenate([part.videos for part in used]),
        np.concatenate([part.labels + start for part, start in zip(used, starts, strict=True)]),
        [sentence for part in used for sentence in part.sentences],
        [skip for part in parts for skip in part.skips],
    )
