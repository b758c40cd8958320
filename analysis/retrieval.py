"""Text-video retrieval metrics: recall at 1, 5 and 10, median and mean rank, in both directions.

Scores are larger for a better match. Ranks count from 1. Where the right answer ties with t - 1 others behind
g better ones, its rank may be any from g + 1 to g + t: recall takes the worst, mean and median the middle. So
a model that scores everything alike gets recall 0 until k reaches the size of the gallery, and a mean rank at
chance. The released code counts a tied query several times; without ties the numbers are the same.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Direction = Literal["text_to_video", "video_to_text"]
# Columns (m, dim) -> rows (k, dim) -> their inner products (k, m).
Products = Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]]
RECALLS_AT = (1, 5, 10)

_CHUNK_SCORES = 2**25  # 128 MiB of float32 at a time


@dataclass(frozen=True)
class Ranks:
    """Per query the best and the worst rank that its ties allow: int64 (queries,), from 1."""

    best: np.ndarray
    worst: np.ndarray

    def metrics(self) -> dict[str, float]:
        """`r1`, `r5`, `r10` (fractions of queries), `median_rank`, `mean_rank`."""
        middle = (self.best + self.worst) / 2
        recalls = {f"r{k}": float(np.mean(self.worst <= k)) for k in RECALLS_AT}
        return {**recalls, "median_rank": float(np.median(middle)), "mean_rank": float(np.mean(middle))}


def retrieval_metrics(
    similarity: np.ndarray, labels: np.ndarray | None = None, *, direction: Direction = "text_to_video"
) -> dict[str, float]:
    """Metrics of a similarity matrix (texts, videos); see `Ranks.metrics` for the names.

    `labels` (texts,) is the index of each text's video; without it text i belongs to video i. From video to
    text a video with several texts is matched by the best of its own, against the best text of every other
    video (the protocol of MSVD and CLIP4Clip); videos without a text are left out.

    Raises:
        ValueError: a NaN among the scores, shapes or labels that do not fit, or no query at all.

    Examples:
        >>> import numpy as np
        >>> from clipvip.analysis import retrieval_metrics
        >>> similarity = np.array([[0.9, 0.1], [0.7, 0.2]])  # a row a text, a column a video
        >>> retrieval_metrics(similarity)["r1"]  # the second text is nearer to the first video
        0.5
        >>> retrieval_metrics(similarity, direction="video_to_text")["r1"]
        1.0
    """
    return similarity_ranks(similarity, labels, direction=direction).metrics()


def similarity_ranks(
    similarity: np.ndarray, labels: np.ndarray | None = None, *, direction: Direction = "text_to_video"
) -> Ranks:
    """As `retrieval_metrics`, but the ranks themselves, one per query in order.

    Examples:
        >>> import numpy as np
        >>> from clipvip.analysis import similarity_ranks
        >>> similarity_ranks(np.array([[0.9, 0.1], [0.7, 0.2]])).worst.tolist()
        [1, 2]
    """
    similarity = np.asarray(similarity)
    if similarity.ndim != 2:
        raise ValueError(f"the similarity must be (texts, videos), not of shape {similarity.shape}")
    labels = _checked_labels(labels, *similarity.shape)
    if direction == "text_to_video":
        return _ranks(lambda rows: similarity[rows], labels, num_columns=similarity.shape[1])
    order, starts, videos = _texts_by_video(labels)
    by_video = similarity.T

    def scores(rows: slice) -> np.ndarray:
        return np.maximum.reduceat(by_video[videos[rows]][:, order], starts, axis=1)

    return _ranks(scores, np.arange(len(videos)), num_columns=len(labels))


def embedding_ranks(
    texts: np.ndarray,
    videos: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    direction: Direction = "text_to_video",
    products: Products | None = None,
) -> Ranks:
    """Ranks by the inner product of embeddings `texts` (n, dim) and `videos` (m, dim), chunk by chunk.

    The matrix (n, m) is never held: this takes about 0.4 GB whatever n and m. `labels` and `direction` are as
    in `retrieval_metrics`. Equal rows tie, see `similarities`. `products` computes elsewhere, as on a GPU.

    Raises:
        ValueError: an embedding that is not finite, shapes or labels that do not fit, or no query at all.

    Examples:
        >>> import numpy as np
        >>> from clipvip.analysis import embedding_ranks
        >>> texts, videos = np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)
        >>> embedding_ranks(texts, videos, labels=np.array([0, 1, 1])).metrics()["r5"]
        1.0
    """
    texts, videos = np.asarray(texts), np.asarray(videos)
    if texts.ndim != 2 or videos.ndim != 2 or texts.shape[1] != videos.shape[1]:
        raise ValueError(f"embeddings of shapes {texts.shape} and {videos.shape} do not fit each other")
    for name, embeddings in (("text", texts), ("video", videos)):
        if not np.isfinite(embeddings).all():
            raise ValueError(f"a {name} embedding holds NaN or infinity")
    labels = _checked_labels(labels, len(texts), len(videos))
    if direction == "text_to_video":
        by_videos = _by_distinct(videos, products or _numpy_products)
        return _ranks(lambda rows: by_videos(texts[rows]), labels, num_columns=len(videos))
    order, starts, with_text = _texts_by_video(labels)
    by_texts = _by_distinct(texts[order], products or _numpy_products)

    def scores(rows: slice) -> np.ndarray:
        return np.maximum.reduceat(by_texts(videos[with_text[rows]]), starts, axis=1)

    return _ranks(scores, np.arange(len(with_text)), num_columns=len(texts))


def similarities(texts: np.ndarray, videos: np.ndarray) -> np.ndarray:
    """Inner products (n, m) of `texts` (n, dim) and `videos` (m, dim); equal rows have equal products.

    A matrix product alone does not give that: how it rounds depends on where in the matrix a row is.
    """
    texts, videos = np.asarray(texts), np.asarray(videos)
    firsts, places = _distinct_rows(texts)
    products = _by_distinct(videos, _numpy_products)(texts[firsts])
    return products if len(firsts) == len(texts) else products[places]


def _numpy_products(columns: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return lambda rows: rows @ columns.T


def _by_distinct(columns: np.ndarray, products: Products) -> Callable[[np.ndarray], np.ndarray]:
    """`products`, but those of equal columns are equal."""
    firsts, places = _distinct_rows(columns)
    if len(firsts) == len(columns):
        return products(columns)
    of_distinct = products(columns[firsts])
    return lambda rows: np.take(of_distinct(rows), places, axis=1)


def _distinct_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each distinct row is first, in order, and for each row its place among these. Copies no rows."""
    firsts: list[int] = []
    places: list[int] = []
    place_of: dict[bytes, int] = {}
    for number, row in enumerate(np.ascontiguousarray(rows)):
        digest = hashlib.blake2b(row, digest_size=16).digest()
        place = place_of.setdefault(digest, len(firsts))
        if place == len(firsts):
            firsts.append(number)
        places.append(place)
    return np.array(firsts), np.array(places)


def _checked_labels(labels: np.ndarray | None, num_texts: int, num_videos: int) -> np.ndarray:
    if num_texts == 0 or num_videos == 0:
        raise ValueError(f"{num_texts} texts and {num_videos} videos: there is nothing to retrieve")
    if labels is None:
        if num_texts != num_videos:
            raise ValueError(
                f"{num_texts} texts for {num_videos} videos: give `labels`, the index of each text's video"
            )
        return np.arange(num_texts)
    labels = np.asarray(labels)
    if labels.shape != (num_texts,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be {num_texts} whole numbers, not {labels.dtype} {labels.shape}")
    if labels.min() < 0 or labels.max() >= num_videos:
        raise ValueError(f"labels run from {labels.min()} to {labels.max()}, videos to {num_videos - 1}")
    return labels


def _texts_by_video(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The order that groups texts by video, where each group starts, and the video of each group.

    Of the labels 2, 0, 2: the order 1, 0, 2; groups that start at 0 and 1, of the videos 0 and 2.
    """
    order = np.argsort(labels, kind="stable")
    videos, starts = np.unique(labels[order], return_index=True)
    return order, starts, videos


def _ranks(scores: Callable[[slice], np.ndarray], positives: np.ndarray, *, num_columns: int) -> Ranks:
    """Rank column `positives[i]` in row i of the matrix whose rows `scores` gives."""
    best = np.empty(len(positives), np.int64)
    worst = np.empty(len(positives), np.int64)
    size = max(1, _CHUNK_SCORES // num_columns)
    for first in range(0, len(positives), size):
        rows = slice(first, first + size)
        chunk = scores(rows)
        # np.min hands a NaN on; a comparison below would silently count it as a worse match.
        if np.isnan(chunk.min()):
            raise ValueError("the scores hold NaN; the model or its input is broken")
        right = np.take_along_axis(chunk, positives[rows, None], axis=1)
        num_better = np.count_nonzero(chunk > right, axis=1)
        best[rows] = num_better + 1
        worst[rows] = num_better + np.count_nonzero(chunk == right, axis=1)
    return Ranks(best, worst)
