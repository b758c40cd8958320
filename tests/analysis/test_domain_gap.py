"""The domain gap: 0 for one domain, 1 for two, the same every time, and clear about what it cannot do."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipvip.analysis.domain_gap import cluster_agreement, domain_gap, draw_samples


def features(num_texts: int, *, shift: float = 0.0, dim: int = 16, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(num_texts, dim)).astype(np.float32)
    values[:, 0] += shift
    return values


def test_one_domain_has_no_gap() -> None:
    gap = domain_gap(features(900, seed=1), features(700, seed=2), samples=300, repeats=5)
    assert len(gap.values) == 5
    assert gap.mean < 0.02


def test_two_domains_far_apart_have_a_gap_of_one() -> None:
    gap = domain_gap(features(400, shift=30), features(300), samples=200, repeats=3)
    assert gap.values == (1.0, 1.0, 1.0) and gap.mean == 1 and gap.std == 0


def test_the_gap_grows_with_the_distance() -> None:
    means = [
        domain_gap(features(600, shift=shift), features(600, seed=5), samples=400, repeats=4).mean
        for shift in (0, 3, 5, 9)
    ]
    assert means == sorted(means) and means[0] < 0.02 and 0.2 < means[1] < 0.95 < means[-1]


def test_the_gap_does_not_care_which_side_is_the_source() -> None:
    one, other = features(2000, shift=4), features(1500, seed=3)
    there, back = (domain_gap(a, b, samples=500, repeats=6) for a, b in ((one, other), (other, one)))
    assert there.mean == pytest.approx(back.mean, abs=0.05)
    exact = cluster_agreement(one[:500], other[:500])
    assert exact == pytest.approx(cluster_agreement(other[:500], one[:500]), abs=0.02)


def test_equal_arguments_give_equal_values_whatever_the_threads() -> None:
    import faiss

    source, target = features(800, shift=2), features(800, seed=9)
    before = faiss.omp_get_max_threads()
    first = domain_gap(source, target, samples=500, repeats=3, seed=4)
    faiss.omp_set_num_threads(2)
    try:
        assert domain_gap(source, target, samples=500, repeats=3, seed=4) == first
        assert faiss.omp_get_max_threads() == 2
    finally:
        faiss.omp_set_num_threads(before)
    assert domain_gap(source, target, samples=500, repeats=3, seed=5) != first


def test_a_value_is_the_agreement_of_its_draw() -> None:
    """What a caller computes who has features of the drawn texts alone."""
    source, target = features(500, shift=3), features(400, seed=2)
    rows = draw_samples(500, samples=100, repeats=3, seed=7, side="source")
    columns = draw_samples(400, samples=100, repeats=3, seed=7, side="target")
    expected = tuple(cluster_agreement(source[rows[n]], target[columns[n]], seed=7 + n) for n in range(3))
    assert domain_gap(source, target, samples=100, repeats=3, seed=7).values == expected


@given(st.integers(1, 200), st.integers(0, 300), st.integers(1, 5), st.integers(0, 2**32))
def test_draws_are_rows_without_repetition(samples: int, more: int, repeats: int, seed: int) -> None:
    num_texts = samples + more
    draws = draw_samples(num_texts, samples=samples, repeats=repeats, seed=seed, side="source")
    assert draws.shape == (repeats, samples)
    assert draws.min() >= 0 and draws.max() < num_texts
    assert all(len(set(row.tolist())) == samples for row in draws)


def test_the_sides_draw_differently() -> None:
    sides = [draw_samples(5000, samples=100, repeats=1, seed=0, side=s) for s in ("source", "target")]  # type: ignore[arg-type]
    assert len(np.intersect1d(*sides)) < 20


@settings(max_examples=25, deadline=None)
@given(
    st.integers(2, 40),
    st.integers(1, 6),
    st.sampled_from([0.0, 1.0, 1e3]),
    st.sampled_from(["arithmetic", "geometric", "min", "max"]),
)
def test_nmi_is_between_zero_and_one(size: int, dim: int, spread: float, normalizer: str) -> None:
    rng = np.random.default_rng(size)
    source, target = (spread * rng.normal(size=(size, dim)) for _ in range(2))
    gap = domain_gap(source, target, samples=size, repeats=1, normalizer=normalizer)  # type: ignore[arg-type]
    assert 0 <= gap.mean <= 1


def test_texts_that_are_all_the_same_have_no_gap() -> None:
    assert domain_gap(np.ones((50, 8)), np.ones((50, 8)), samples=50, repeats=2).mean < 0.05


@pytest.mark.parametrize(
    ("source", "target", "options", "message"),
    [
        (features(10), features(50), {}, "the source has 10 texts, fewer than the 20"),
        (features(50), features(19), {}, "the target has 19 texts, fewer than the 20"),
        (features(50), features(50, dim=8), {}, "features have 16 dimensions, the target's 8"),
        (features(50) * np.nan, features(50), {}, "the source's features hold NaN"),
        (features(50), features(50)[0], {}, "must be"),
        (features(50), features(50), {"repeats": 0}, "repeats = 0"),
        (features(50), features(50), {"samples": 0}, "samples = 0"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    source: np.ndarray, target: np.ndarray, options: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        domain_gap(source, target, **{"samples": 20, "repeats": 1, **options})


def test_without_faiss_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"pip install '\.\[cpu\]'"):
        domain_gap(features(20), features(20), samples=10, repeats=1)
