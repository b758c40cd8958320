"""DSL against the reference, QB-Norm against its formula, and both against over- and underflow."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from clipvip.analysis.rescoring import dual_softmax, querybank_norm
from clipvip.analysis.retrieval import retrieval_metrics

NAMES = {"R1": "r1", "R5": "r5", "R10": "r10", "MedianR": "median_rank", "MeanR": "mean_rank"}


@pytest.fixture(scope="module")
def arrays(goldens_dir: Path) -> dict[str, np.ndarray]:
    return load_file(goldens_dir / "metrics.safetensors")


@pytest.mark.parametrize("name", ["square50", "ties30", "duplicates40", "constant4"])
def test_dsl_is_the_references(arrays: dict[str, np.ndarray], name: str) -> None:
    similarity = arrays[f"{name}/sim"]
    before = similarity.copy()
    found = dual_softmax(similarity)
    assert found.dtype == similarity.dtype
    np.testing.assert_allclose(found, arrays[f"{name}/dsl"], atol=1e-6, rtol=0)
    assert (similarity == before).all()


def test_metrics_after_dsl_are_the_references(goldens_dir: Path, arrays: dict[str, np.ndarray]) -> None:
    golden = json.loads((goldens_dir / "metrics.json").read_text())["results"]["square50"]["dsl"]
    similarity = arrays["square50/sim"].astype(np.float64)
    found = {
        "t2v": retrieval_metrics(dual_softmax(similarity)),
        "v2t_as_the_reference_does": retrieval_metrics(dual_softmax(similarity), direction="video_to_text"),
        "v2t_with_its_own_prior": retrieval_metrics(dual_softmax(similarity.T)),
    }
    for name, metrics in found.items():
        expected = {NAMES[key]: value for key, value in golden[name].items()}
        assert metrics == pytest.approx(expected, abs=1e-12), name


def test_querybank_norm_is_the_formula() -> None:
    rng = np.random.default_rng(0)
    similarity, bank = rng.uniform(-1, 1, (30, 12)), rng.uniform(-1, 1, (7, 12))
    for top in (1, 2):
        activated = {int(item) for row in bank for item in np.argsort(-row)[:top]}
        expected = np.exp(20 * similarity)
        for row in expected:
            if int(row.argmax()) in activated:
                row /= np.exp(20 * bank).sum(axis=0)
        np.testing.assert_allclose(np.exp(querybank_norm(similarity, bank, top=top)), expected, rtol=1e-9)


def test_querybank_norm_takes_a_hub_down() -> None:
    """An item that is everyone's best answer loses to the right ones once it is normalised."""
    similarity = np.full((5, 6), 0.1) + 0.3 * np.eye(5, 6)
    similarity[:, 5] = 0.45  # the hub
    labels = np.arange(5)
    assert retrieval_metrics(similarity, labels)["r1"] == 0
    assert retrieval_metrics(querybank_norm(similarity), labels)["r1"] == 1


def test_own_queries_as_bank_normalise_every_row() -> None:
    similarity = np.random.default_rng(1).uniform(-1, 1, (9, 9))
    inverted = np.exp(20 * similarity) / np.exp(20 * similarity).sum(axis=0)
    np.testing.assert_allclose(np.exp(querybank_norm(similarity)), inverted, rtol=1e-9)


def test_large_scores_stay_finite() -> None:
    similarity = np.array([[1.0, -1.0], [-1.0, 1.0]], np.float32) * 50
    assert np.isfinite(dual_softmax(similarity)).all()
    assert np.isfinite(querybank_norm(similarity)).all()


@pytest.mark.parametrize("rescore", [dual_softmax, querybank_norm])
def test_unusable_scores_are_refused(rescore) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="NaN"):
        rescore(np.array([[np.nan, 0.0]]))
    with pytest.raises(ValueError, match="matrix"):
        rescore(np.zeros(3))


def test_a_bank_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="the bank has scores of 2 items"):
        querybank_norm(np.zeros((3, 4)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="top = 5"):
        querybank_norm(np.zeros((3, 4)), top=5)
