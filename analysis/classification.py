"""Scores of choosing one answer among several: options of a question, or classes of a set of clips.

Scores are larger for a better match. In a tie of right and wrong answers, wrong ones win.
"""

from dataclasses import dataclass

import numpy as np

from clipvip.analysis.bootstrap import Interval, mean_interval, percentiles
from clipvip.analysis.retrieval import similarity_ranks


@dataclass(frozen=True)
class Choice:
    """What the scores of one question choose.

    `right`: every option with the highest score is a right one. `chosen` is the index of that option, the
    answer itself where `right`; None where right and wrong options, or several wrong ones, tie.
    """

    right: bool
    chosen: int | None


def choose_option(scores: np.ndarray, answer: int, right: np.ndarray) -> Choice:
    """Choose among options by `scores` (options,); `right` (options,) marks `answer` and what equals it.

    Raises:
        ValueError: a score that is no number, or an answer that is not among the right options.

    Examples:
        >>> import numpy as np
        >>> from clipvip.analysis import choose_option
        >>> choose_option(np.array([0.2, 0.7, 0.1]), answer=1, right=np.array([False, True, False]))
        Choice(right=True, chosen=1)
    """
    scores, right = np.asarray(scores), np.asarray(right, bool)
    if scores.shape != right.shape or not right[answer]:
        raise ValueError(
            f"option {answer} must be among the right ones, and scores of shape {scores.shape} must have the "
            f"shape {right.shape} of the options"
        )
    if np.isnan(scores).any():
        raise ValueError("a score is NaN")
    best = np.flatnonzero(scores == scores.max())
    if right[best].all():
        return Choice(True, answer)
    return Choice(False, int(best[0]) if len(best) == 1 else None)


@dataclass(frozen=True)
class Confusion:
    """How many clips of the class `label` are nearest to the class `taken_for`."""

    label: int
    taken_for: int
    count: int


@dataclass(frozen=True)
class ClassScores:
    """Accuracies of the classification of clips, as fractions, with intervals where they were asked for.

    `per_class` (classes,) is top-1, NaN for a class without clips, and `mean_per_class` the mean of it.
    """

    top1: float
    top5: float
    mean_per_class: float
    per_class: np.ndarray
    num_clips: np.ndarray
    confusions: list[Confusion]
    intervals: dict[str, Interval]


def class_scores(scores: np.ndarray, labels: np.ndarray, *, resamples: int = 0) -> ClassScores:
    """Accuracies of `scores` (clips, classes) for clips of the classes `labels` (clips,).

    A clip counts for top-k if fewer than k other classes score as high as its own.

    Raises:
        ValueError: a score that is no number, labels that do not fit, or no clips.

    Examples:
        >>> import numpy as np
        >>> from clipvip.analysis import class_scores
        >>> class_scores(np.array([[0.9, 0.1], [0.8, 0.2]]), labels=np.array([0, 1])).top1
        0.5
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    worst = similarity_ranks(scores, labels).worst
    hits = {k: (worst <= k).astype(np.float64) for k in (1, 5)}
    num_clips = np.bincount(labels, minlength=scores.shape[1])
    num_right = np.bincount(labels, weights=hits[1], minlength=scores.shape[1])
    per_class = np.full(scores.shape[1], np.nan)
    np.divide(num_right, num_clips, out=per_class, where=num_clips > 0)
    intervals: dict[str, Interval] = {}
    if resamples:
        intervals = {f"top{k}": mean_interval(found, resamples=resamples) for k, found in hits.items()}
        intervals["mean_per_class"] = per_class_interval(num_right, num_clips, resamples=resamples)
    return ClassScores(
        float(hits[1].mean()),
        float(hits[5].mean()),
        float(np.nanmean(per_class)),
        per_class,
        num_clips,
        most_confused(scores, labels, 5),
        intervals,
    )


def per_class_interval(num_right: np.ndarray, num_clips: np.ndarray, *, resamples: int = 1000) -> Interval:
    """The interval of the mean over classes of `num_right` / `num_clips` (classes,), drawn within each class.

    Drawing n clips with replacement, of which a share p is right, is binomial. Empty classes are left out.
    """
    present = np.asarray(num_clips) > 0
    of, right = np.asarray(num_clips)[present].astype(np.int64), np.asarray(num_right)[present]
    drawn = np.random.default_rng(0).binomial(of, right / of, size=(resamples, len(of)))
    return percentiles((drawn / of).mean(axis=1))


def most_confused(scores: np.ndarray, labels: np.ndarray, number: int) -> list[Confusion]:
    """The pairs (class, what it is taken for) with the most clips; of equals the lower classes first.

    A clip whose own class is not strictly the nearest is taken for the nearest other; of several, the first.
    """
    if scores.shape[1] < 2:
        return []
    scores = np.array(scores)
    rows = np.arange(len(scores))
    own = scores[rows, labels]
    scores[rows, labels] = -np.inf
    others = scores.argmax(axis=1)
    wrong = scores[rows, others] >= own
    pairs, counts = np.unique(np.stack([labels[wrong], others[wrong]], axis=1), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:number]
    return [Confusion(int(pairs[i, 0]), int(pairs[i, 1]), int(counts[i])) for i in order]


def mean_of_prompts(embeds: np.ndarray) -> np.ndarray:
    """The mean (classes, dim) of embeddings (classes, prompts, dim), each of unit length before and after."""
    return _unit(_unit(embeds).mean(axis=1))


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of unit length; a row of zeros stays."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    unit: np.ndarray = rows / np.where(lengths == 0, 1, lengths)
    return unit
