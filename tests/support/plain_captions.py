"""The loss of samples with several captions by its definition, in plain loops over numbers of float64."""

import math

import torch
from torch import Tensor

from clipvip.model.variants import Term


def texts_of(rows: dict[str, Tensor], letter: str, mask: Tensor) -> list[list[list[float]]]:
    """Of each sample what it has of an input: of captions those that are there, of frames where any is."""
    if letter == "C":
        return [rows["C"][i][mask[i]].tolist() for i in range(len(mask))]
    there = mask.any(1) if letter == "F" else torch.ones(len(mask), dtype=torch.bool)
    return [[rows[letter][i].tolist()] if there[i] else [] for i in range(len(mask))]


def dot(x: list[float], y: list[float], scale: float) -> float:
    return math.exp(scale) * sum(a * b for a, b in zip(x, y, strict=True))


def mean_over_samples(of_samples: list[list[float]]) -> float:
    """Of each sample the mean counts once; samples with nothing do not."""
    means = [sum(some) / len(some) for some in of_samples if some]
    return sum(means) / len(means) if means else 0.0


def plain_softmax(rows: dict[str, Tensor], mask: Tensor, scale: float, term: Term) -> float:
    """A term of the loss, in loops; captions (batch, several, dim) with a mask (batch, several)."""
    anchors, positives = (texts_of(rows, letter, mask) for letter in (term.anchor, term.positives))
    # A sample that lacks one side is in neither; its further negatives are.
    both = [bool(a and p) for a, p in zip(anchors, positives, strict=True)]
    others = texts_of(rows, term.negatives, mask) if term.negatives else [[]] * len(both)
    found: list[list[float]] = []
    for i in range(len(both)):
        found.append([])
        for anchor in anchors[i] if both[i] else []:
            below = [
                math.exp(dot(anchor, text, scale))
                for j in range(len(both))
                if j != i
                for text in [*(positives[j] if both[j] else []), *others[j]]
            ]
            for right in positives[i]:
                own = math.exp(dot(anchor, right, scale))
                found[i].append(-math.log(own / (own + sum(below))))
    return mean_over_samples(found)


def plain_sigmoid(rows: dict[str, Tensor], mask: Tensor, scale: float, bias: float, term: Term) -> float:
    """As `plain_softmax`, of the sigmoid loss."""
    firsts, seconds = (texts_of(rows, letter, mask) for letter in (term.anchor, term.positives))
    both = [i for i in range(len(mask)) if firsts[i] and seconds[i]]
    total = 0.0
    for i in both:
        for j in both:
            sign = 1 if i == j else -1
            logits = [sign * (dot(a, b, scale) + bias) for a in firsts[i] for b in seconds[j]]
            values = [math.log1p(math.exp(-logit)) for logit in logits]
            total += sum(values) / len(values)
    return total / max(len(both), 1)
