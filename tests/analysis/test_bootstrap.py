"""Intervals of retrieval scores."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipvip.analysis.bootstrap import mean_interval, rank_intervals
from clipvip.analysis.retrieval import Ranks


def test_the_interval_of_a_proportion_is_the_normal_one() -> None:
    values = np.arange(1000) < 300
    low, high = mean_interval(values, resamples=4000)
    spread = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
    assert (low, high) == pytest.approx((0.3 - spread, 0.3 + spread), abs=0.004)


def test_equal_ranks_have_no_width() -> None:
    ranks = Ranks(np.full(50, 3), np.full(50, 3))
    found = rank_intervals(ranks, resamples=20)
    assert found["r1"] == (0, 0) and found["r5"] == (1, 1) and found["r10"] == (1, 1)
    assert found["median_rank"] == found["mean_rank"] == (3, 3)
    assert found["mean_recall"] == pytest.approx((2 / 3, 2 / 3))


def test_the_seed_decides() -> None:
    worst = np.random.default_rng(0).integers(1, 40, 300)
    ranks = Ranks(worst, worst)
    assert rank_intervals(ranks, seed=1) == rank_intervals(ranks, seed=1)
    assert rank_intervals(ranks, seed=1) != rank_intervals(ranks, seed=2)


def test_chunks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    worst = np.random.default_rng(0).integers(1, 40, 300)
    whole = rank_intervals(Ranks(worst, worst), resamples=50)
    monkeypatch.setattr("clipvip.analysis.bootstrap._CHUNK_DRAWS", 1000)
    chunked = rank_intervals(Ranks(worst, worst), resamples=50)
    assert chunked.keys() == whole.keys()
    assert all(chunked[name] == pytest.approx(whole[name]) for name in whole)


@settings(max_examples=50)
@given(ranks=st.lists(st.tuples(st.integers(1, 30), st.integers(0, 5)), min_size=1, max_size=40))
def test_an_interval_is_ordered_and_within_what_there_is(ranks: list[tuple[int, int]]) -> None:
    best = np.array([rank for rank, _ in ranks])
    worst = np.array([rank + ties for rank, ties in ranks])
    for name, (low, high) in rank_intervals(Ranks(best, worst), resamples=30).items():
        assert low <= high, name
        assert low >= 0 and high <= (35 if name.endswith("rank") else 1)


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        mean_interval(np.array([]))
    with pytest.raises(ValueError, match="nothing to draw"):
        mean_interval(np.array([1.0]), resamples=0)
