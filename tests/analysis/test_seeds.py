"""Means over seeds and their intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from clipvip.analysis.seeds import Estimate, are_apart, difference, estimate


def test_the_interval_is_students() -> None:
    # By tables: t(0.975, 2) = 4.3027; the standard deviation of 1, 2, 3 is 1.
    found = estimate([1.0, 2.0, 3.0])
    assert found.mean == 2.0 and found.count == 3
    assert found.low == pytest.approx(2 - 4.3027 / 3**0.5, abs=1e-4)
    assert found.high == pytest.approx(2 + 4.3027 / 3**0.5, abs=1e-4)


def test_one_seed_has_no_interval() -> None:
    assert estimate([5.0]) == Estimate(5.0, None, None, 1)
    assert not are_apart(estimate([5.0]), estimate([1.0]))


def test_no_seeds_or_unpaired_ones_are_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        estimate([])
    with pytest.raises(ValueError, match="cannot be paired"):
        difference([1.0, 2.0], [1.0])


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(3.0, 2.0, (4000, 4))
    found = [estimate(row) for row in draws]
    share = np.mean([one.low < 3.0 < one.high for one in found])  # type: ignore[operator]
    assert 0.94 < share < 0.96


def test_what_seeds_share_falls_out_of_a_difference() -> None:
    worlds = np.array([0.0, 10.0, 20.0])
    found = difference(worlds + np.array([1.0, 1.1, 0.9]), worlds)
    assert found.mean == pytest.approx(1.0)
    assert found.low is not None and found.low > 0.7
    assert not are_apart(estimate(worlds + 1), estimate(worlds))


@given(arrays(np.float64, st.integers(2, 6), elements=st.floats(-100, 100)), st.floats(-50, 50))
def test_a_shift_moves_the_interval_and_nothing_else(values: np.ndarray, shift: float) -> None:
    one, other = estimate(values), estimate(values + shift)
    assert one.low is not None and other.low is not None
    assert other.mean == pytest.approx(one.mean + shift, abs=1e-9)
    assert other.low == pytest.approx(one.low + shift, abs=1e-7)


def test_intervals_that_touch_are_not_apart() -> None:
    assert are_apart(Estimate(2, 1.5, 2.5, 3), Estimate(1, 0.5, 1.4, 3))
    assert not are_apart(Estimate(2, 1.4, 2.5, 3), Estimate(1, 0.5, 1.4, 3))
