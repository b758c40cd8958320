"""Scores changed before ranking by what the other queries score: DSL and QB-Norm.

Both look at all queries at once: their numbers do not compare with those of a search for one query.
"""

import numpy as np


def dual_softmax(similarity: np.ndarray, *, scale: float = 100.0) -> np.ndarray:
    """DSL at test time: `similarity * softmax(scale * similarity)`, the softmax over texts, per video.

    The released code ranks both directions by this one matrix. DSL itself (CAMoE, arXiv 2109.04290) takes a
    softmax over videos from video to text: give the transposed matrix for that.

    Args:
        similarity: (texts, videos), cosines.

    Returns:
        (texts, videos), of the same dtype where that is floating.

    Examples:
        >>> import numpy as np
        >>> from clipvip.analysis import dual_softmax, retrieval_metrics
        >>> similarity = np.array([[0.9, 0.1], [0.6, 0.5]])  # (texts, videos)
        >>> retrieval_metrics(similarity)["r1"], retrieval_metrics(dual_softmax(similarity))["r1"]
        (0.5, 1.0)
    """
    similarity = _matrix(similarity)
    logits = scale * similarity
    prior = np.exp(logits - logits.max(axis=0))
    prior /= prior.sum(axis=0)
    return similarity * prior


def querybank_norm(
    similarity: np.ndarray, bank_similarity: np.ndarray | None = None, *, beta: float = 20.0, top: int = 1
) -> np.ndarray:
    """QB-Norm (Bogolin et al., CVPR 2022), dynamic inverted softmax: tone down items that answer everything.

    An item's score is divided by the sum of exp(beta * score) over a bank of queries, but only for queries
    whose best item is among the `top` best of some bank query. Returned is the logarithm of
    exp(beta * s) / sum(exp(beta * s_bank)), which does not underflow; scores compare within a row only.

    Args:
        similarity: (queries, items), cosines.
        bank_similarity: (bank queries, items), as a rule of training queries. Without it the queries
            are their own bank, and then every row is normalised.

    Returns:
        (queries, items), of the same dtype where that is floating.

    Examples:
        >>> import numpy as np
        >>> from clipvip.analysis import querybank_norm, retrieval_metrics
        >>> similarity = np.array([[0.8, 0.1], [0.9, 0.8]])  # (texts, videos): the first video answers all
        >>> retrieval_metrics(similarity)["r1"], retrieval_metrics(querybank_norm(similarity))["r1"]
        (0.5, 1.0)
    """
    similarity = _matrix(similarity)
    bank = similarity if bank_similarity is None else _matrix(bank_similarity)
    if bank.shape[1] != similarity.shape[1]:
        raise ValueError(
            f"the bank has scores of {bank.shape[1]} items, the similarity of {similarity.shape[1]}; score "
            "both against the same items"
        )
    if not 1 <= top <= bank.shape[1]:
        raise ValueError(f"{top = }: give 1 to {bank.shape[1]}, the number of items")
    peak = beta * bank.max(axis=0)
    log_sum = peak + np.log(np.exp(beta * bank - peak).sum(axis=0))
    activated = np.zeros(bank.shape[1], bool)
    activated[np.argpartition(-bank, top - 1, axis=1)[:, :top]] = True
    scores = beta * similarity
    rows = activated[similarity.argmax(axis=1)]
    scores[rows] -= log_sum
    return scores


def _matrix(scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores)
    if scores.ndim != 2 or 0 in scores.shape:
        raise ValueError(f"scores must be a matrix with rows and columns, not of shape {scores.shape}")
    if np.isnan(scores).any():
        raise ValueError("the scores hold NaN; the model or its input is broken")
    return scores if np.issubdtype(scores.dtype, np.floating) else scores.astype(np.float64)
