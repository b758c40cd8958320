"""Retrieval metrics: the reference's numbers without ties, fair ones with ties, and no NaN gets through."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file

from clipvip.analysis import retrieval
from clipvip.analysis.retrieval import (
    Direction,
    embedding_ranks,
    retrieval_metrics,
    similarities,
    similarity_ranks,
)

NAMES = {"R1": "r1", "R5": "r5", "R10": "r10", "MedianR": "median_rank", "MeanR": "mean_rank"}
DIRECTIONS: dict[str, Direction] = {"t2v": "text_to_video", "v2t": "video_to_text"}


@pytest.fixture(scope="module")
def results(goldens_dir: Path) -> dict:
    return json.loads((goldens_dir / "metrics.json").read_text())["results"]


@pytest.fixture(scope="module")
def arrays(goldens_dir: Path) -> dict[str, np.ndarray]:
    return load_file(goldens_dir / "metrics.safetensors")


@pytest.mark.parametrize("column", DIRECTIONS)
def test_without_ties_the_metrics_are_the_references(results: dict, arrays: dict, column: str) -> None:
    found = retrieval_metrics(arrays["square50/sim"], direction=DIRECTIONS[column])
    expected = results["square50"][column]["clip_vip"]
    assert found == pytest.approx({NAMES[name]: value for name, value in expected.items()}, abs=1e-12)
    assert found == retrieval_metrics(arrays["square50/sim"].T if column == "v2t" else arrays["square50/sim"])


@pytest.mark.parametrize("column", DIRECTIONS)
@pytest.mark.parametrize("name", ["ties30", "duplicates40", "constant4"])
def test_ties_lose_recall_and_take_the_middle_rank(
    results: dict, arrays: dict, name: str, column: str
) -> None:
    found = retrieval_metrics(arrays[f"{name}/sim"], direction=DIRECTIONS[column])
    for golden, ours in NAMES.items():
        rule = "independent_pessimistic" if golden.startswith("R") else "independent_midrank"
        assert found[ours] == pytest.approx(results[name][column][rule][golden], abs=1e-12), ours


def test_several_texts_per_video(results: dict, arrays: dict) -> None:
    similarity, labels = arrays["multi_even/sim"], arrays["multi_even/label"]
    expected = results["multi_even"]["t2v"]["clip_vip_compute_metrics_multi"]
    found = retrieval_metrics(similarity, labels)
    assert found == pytest.approx({NAMES[name]: value for name, value in expected.items()}, abs=1e-12)
    expected = results["multi_even"]["v2t"]["clip4clip"]  # in percent
    found = retrieval_metrics(similarity, labels, direction="video_to_text")
    for golden, ours in NAMES.items():
        scale = 100 if golden in {"R1", "R5", "R10"} else 1
        assert found[ours] * scale == pytest.approx(expected[golden], abs=1e-9), ours


def test_uneven_texts_with_ties(results: dict, arrays: dict) -> None:
    similarity, labels = arrays["multi_uneven_ties/sim"], arrays["multi_uneven_ties/label"]
    expected = results["multi_uneven_ties"]["t2v"]
    found = retrieval_metrics(similarity, labels)
    assert found["r1"] == pytest.approx(expected["independent_pessimistic"]["R1"], abs=1e-12)
    assert found["mean_rank"] == pytest.approx(expected["independent_midrank"]["MeanR"], abs=1e-12)
    # from video to text: the same as ranking the golden's matrix of the best text per video, one text each
    best = arrays["multi_uneven_ties/v2t_max_over_captions"]
    for direction in DIRECTIONS.values():  # it has videos in rows or in columns, by convention of its maker
        candidate = retrieval_metrics(best, direction=direction)
        if candidate == retrieval_metrics(similarity, labels, direction="video_to_text"):
            break
    else:
        pytest.fail("neither orientation of the best-text matrix gives these metrics")


@pytest.mark.parametrize("direction", DIRECTIONS.values())
@pytest.mark.parametrize("size", [1, 2, 8, 11, 100])
def test_a_model_that_scores_everything_alike_is_at_chance_or_below(size: int, direction: Direction) -> None:
    found = retrieval_metrics(np.full((size, size), 0.3), direction=direction)
    for k in (1, 5, 10):
        assert found[f"r{k}"] <= min(1.0, k / size)
    assert found["mean_rank"] == found["median_rank"] == (size + 1) / 2


@pytest.mark.parametrize("position", [(3, 3), (0, 5), (5, 0)])
@pytest.mark.parametrize("direction", DIRECTIONS.values())
def test_nan_is_refused(arrays: dict, position: tuple[int, int], direction: Direction) -> None:
    with pytest.raises(ValueError, match="NaN"):
        retrieval_metrics(arrays["nan6/sim"], direction=direction)
    similarity = np.eye(6)
    similarity[position] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        retrieval_metrics(similarity, direction=direction)


@pytest.mark.parametrize(
    ("shape", "labels", "message"),
    [
        ((3, 2), None, "give `labels`"),
        ((0, 0), None, "nothing to retrieve"),
        ((3, 2), [0, 1], "labels must be 3 whole numbers"),
        ((3, 2), [0.0, 1.0, 1.0], "labels must be 3 whole numbers"),
        ((3, 2), [0, 1, 2], "labels run from 0 to 2, videos to 1"),
        ((3, 2), [0, -1, 1], "labels run from -1"),
        ((3,), None, r"must be \(texts, videos\)"),
    ],
)
def test_what_does_not_fit_is_refused(shape: tuple[int, ...], labels: list | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        retrieval_metrics(np.zeros(shape), None if labels is None else np.array(labels))


_MATRICES = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.sampled_from([0.0, 0.5, 1.0]),
)


@given(_MATRICES, st.randoms(use_true_random=False))
def test_ranks_agree_with_sorting_by_hand(similarity: np.ndarray, random: object) -> None:
    num_texts, num_videos = similarity.shape
    labels = np.array([random.randrange(num_videos) for _ in range(num_texts)])  # type: ignore[attr-defined]
    ranks = similarity_ranks(similarity, labels)
    for text in range(num_texts):
        order = sorted(-similarity[text])
        right = -similarity[text, labels[text]]
        assert ranks.best[text] == order.index(right) + 1
        assert ranks.worst[text] == num_videos - order[::-1].index(right)
    ranks = similarity_ranks(similarity, labels, direction="video_to_text")
    used = sorted(set(labels.tolist()))
    for row, video in enumerate(used):
        groups = [max(similarity[labels == other, video]) for other in used]
        assert ranks.best[row] == 1 + sum(score > groups[row] for score in groups)
        assert ranks.worst[row] == sum(score >= groups[row] for score in groups)


@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_metrics_do_not_depend_on_the_order_of_the_pairs(size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    similarity = rng.integers(0, 4, (size, size)).astype(np.float32)
    shuffled = rng.permutation(size)
    assert retrieval_metrics(similarity) == pytest.approx(
        retrieval_metrics(similarity[shuffled][:, shuffled])
    )


@pytest.mark.parametrize("direction", DIRECTIONS.values())
def test_embeddings_in_chunks_rank_as_the_whole_matrix(
    monkeypatch: pytest.MonkeyPatch, direction: Direction
) -> None:
    rng = np.random.default_rng(0)
    # whole numbers, so that every order of summation gives the same scores, and ties are exact
    texts = rng.integers(-3, 4, (57, 6)).astype(np.float32)
    videos = rng.integers(-3, 4, (23, 6)).astype(np.float32)
    labels = rng.integers(0, 23, 57)
    whole = similarity_ranks(texts @ videos.T, labels, direction=direction)
    monkeypatch.setattr(retrieval, "_CHUNK_SCORES", 100)
    for ranks in (
        embedding_ranks(texts, videos, labels, direction=direction),
        similarity_ranks(texts @ videos.T, labels, direction=direction),
    ):
        assert (ranks.best == whole.best).all() and (ranks.worst == whole.worst).all()


@pytest.mark.parametrize("dim", [5, 64])
def test_equal_embeddings_tie_wherever_they_are(dim: int) -> None:
    rng = np.random.default_rng(1)
    once = rng.standard_normal((2, 31, dim)).astype(np.float32)
    places = rng.permutation(np.repeat(np.arange(31), 3))
    texts, videos = once[:, places]
    found = similarities(texts, videos)
    np.testing.assert_allclose(found, texts @ videos.T, rtol=1e-4, atol=1e-5)
    firsts = np.array([list(places).index(place) for place in places])
    assert (found == found[firsts][:, firsts]).all()
    for direction in DIRECTIONS.values():
        ranks = embedding_ranks(texts, videos, direction=direction)
        assert (ranks.worst - ranks.best == 2).all()


def test_embeddings_that_are_not_finite_are_refused() -> None:
    texts, videos = np.ones((2, 3)), np.ones((2, 3))
    videos[1, 2] = np.inf
    with pytest.raises(ValueError, match="a video embedding holds NaN"):
        embedding_ranks(texts, videos)
    with pytest.raises(ValueError, match="do not fit each other"):
        embedding_ranks(texts, videos[:, :2])
