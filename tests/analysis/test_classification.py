"""Scores of classification: known answers, ties, and intervals that hold what they are of."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipvip.analysis.classification import (
    Confusion,
    class_scores,
    mean_of_prompts,
    most_confused,
    per_class_interval,
)


def test_known_scores() -> None:
    # Clips of the classes 0 0 0 1 2; class 6 has none.
    labels = np.array([0, 0, 0, 1, 2])
    scores = np.zeros((5, 7))
    scores[0, 0] = 1  # right
    scores[1] = [3, 4, 2, 1, 0, 0, 0]  # second
    scores[2] = [1, 9, 8, 7, 6, 5, 4]  # last
    scores[3, 1] = 1  # right
    scores[4] = [5, 0, 2, 4, 3, 1, 1]  # fourth
    found = class_scores(scores, labels)
    assert found.top1 == pytest.approx(2 / 5)
    assert found.top5 == pytest.approx(4 / 5)
    assert found.mean_per_class == pytest.approx((1 / 3 + 1 + 0) / 3)
    assert found.per_class[:3] == pytest.approx([1 / 3, 1, 0]) and np.isnan(found.per_class[3:]).all()
    assert found.num_clips.tolist() == [3, 1, 1, 0, 0, 0, 0]
    assert found.confusions == [Confusion(0, 1, 2), Confusion(2, 0, 1)]
    assert found.intervals == {}


def test_a_tie_never_helps() -> None:
    found = class_scores(np.zeros((4, 8)), np.array([0, 1, 2, 2]))
    assert (found.top1, found.top5, found.mean_per_class) == (0, 0, 0)
    assert found.confusions == [Confusion(2, 0, 2), Confusion(0, 1, 1), Confusion(1, 0, 1)]
    almost = np.zeros((1, 8))
    almost[0, 5:] = -1
    assert class_scores(almost, np.array([0])).top5 == 1
    with pytest.raises(ValueError, match="NaN"):
        class_scores(np.array([[0.0, np.nan]]), np.array([0]))


@settings(max_examples=50)
@given(st.integers(2, 8), st.integers(1, 30), st.integers(0, 1000))
def test_counts_of_confusions_are_those_of_wrong_clips(num_classes: int, num_clips: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (num_clips, num_classes)).astype(np.float32)
    labels = rng.integers(0, num_classes, num_clips)
    before = scores.copy()
    pairs = most_confused(scores, labels, num_classes**2)
    assert (scores == before).all()
    found = class_scores(scores, labels)
    assert sum(pair.count for pair in pairs) == round(num_clips * (1 - found.top1))
    assert all(pair.label != pair.taken_for for pair in pairs)
    assert [pair.count for pair in pairs] == sorted((pair.count for pair in pairs), reverse=True)


def test_intervals() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 10
    scores = rng.normal(size=(400, 10))
    scores[np.arange(400), labels] += 1.5
    found = class_scores(scores, labels, resamples=1000)
    for name in ("top1", "top5", "mean_per_class"):
        low, high = found.intervals[name]
        assert low < getattr(found, name) < high < low + 0.2
    assert class_scores(scores, labels, resamples=1000).intervals == found.intervals
    # Equal classes of n clips each: the deviation of the mean is sqrt(p (1 - p) / (n classes)).
    low, high = per_class_interval(np.full(50, 10), np.full(50, 20), resamples=4000)
    assert high - low == pytest.approx(2 * 1.96 * (0.25 / 1000) ** 0.5, rel=0.1)
    assert per_class_interval(np.array([3, 0]), np.array([3, 0])) == (1, 1)


def test_the_mean_of_prompts_weighs_them_alike() -> None:
    embeds = np.array([[[2.0, 0.0], [0.0, 7.0]], [[1.0, 0.0], [1.0, 0.0]]])
    expected = np.array([[0.5**0.5, 0.5**0.5], [1.0, 0.0]])
    np.testing.assert_allclose(mean_of_prompts(embeds), expected)
    assert mean_of_prompts(np.array([[[1.0, 0.0], [-1.0, 0.0]]])).tolist() == [[0.0, 0.0]]
