"""Frame indices: exact to the reference in test mode, sound on every length in training."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipvip.media.sampling import jittered_indices, middle_index, uniform_indices


@pytest.fixture(scope="module")
def golden(goldens_dir: Path) -> dict:
    return json.loads((goldens_dir / "frame_sampling.json").read_text())


def test_uniform_indices_are_the_references(golden: dict) -> None:
    compared = 0
    for table in (golden["val"], golden["val_extra"]):
        for num_frames, by_total in table.items():
            for total, expected in by_total.items():
                if int(total) > 0:  # for an empty clip the reference gives frame -1
                    assert uniform_indices(int(total), int(num_frames)).tolist() == expected
                    compared += 1
    assert compared > 100


def test_middle_index_is_the_references(golden: dict) -> None:
    for total, expected in golden["middle_frame"].items():
        if int(total) > 0:
            assert middle_index(int(total)) == expected


def test_uniform_indices_keep_the_references_float_rounding(golden: dict) -> None:
    for case in golden["float_vs_integer_floor"]["first"]:
        num_frames, total = case["num_frm"], case["total"]
        exact = np.arange(num_frames) * (total - 1) // (num_frames - 1)
        differing = np.flatnonzero(uniform_indices(total, num_frames) != exact)
        assert differing.tolist() == case["positions"]


def test_jittered_ends_cover_the_references_range(golden: dict) -> None:
    """Every start and end that the reference can draw is drawn, and no other, where it is sound."""
    for num_frames, total in [(4, 13), (8, 100), (12, 100), (12, 13)]:
        case = golden["train_enumerated"][str(num_frames)][str(total)]
        draws = [jittered_indices(total, num_frames, np.random.default_rng(seed)) for seed in range(600)]
        for column, name in [(0, "start_range"), (-1, "end_range")]:
            low, high = case[name]
            assert {int(draw[column]) for draw in draws} == set(range(low, high + 1))


def test_jittered_spacing_between_its_ends_is_the_references(golden: dict) -> None:
    for case in golden["train_seeded"]:
        expected = case["indices"]
        total, num_frames = case["total"], case["num_frm"]
        for seed in range(400):
            drawn = jittered_indices(total, num_frames, np.random.default_rng(seed)).tolist()
            if (drawn[0], drawn[-1]) == (expected[0], expected[-1]):
                assert drawn == expected
                break


@given(st.integers(1, 5000), st.integers(1, 80), st.integers(0, 2**32 - 1))
def test_indices_are_sorted_in_range_and_complete(num_total: int, num_frames: int, seed: int) -> None:
    for indices in (
        uniform_indices(num_total, num_frames),
        jittered_indices(num_total, num_frames, np.random.default_rng(seed)),
    ):
        assert indices.shape == (num_frames,) and indices.dtype == np.int64
        assert (np.diff(indices) >= 0).all()
        assert indices[0] >= 0 and indices[-1] < num_total


def test_jitter_depends_on_the_generator_alone() -> None:
    first, again, other = (jittered_indices(300, 12, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()


@pytest.mark.parametrize(("num_total", "num_frames"), [(0, 12), (-3, 12), (10, 0), (10, -1)])
def test_nothing_to_sample_is_refused(num_total: int, num_frames: int) -> None:
    with pytest.raises(ValueError, match="frame"):
        uniform_indices(num_total, num_frames)
    with pytest.raises(ValueError, match="frame"):
        jittered_indices(num_total, num_frames, np.random.default_rng(0))


def test_the_middle_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="frame"):
        middle_index(0)
