"""Search by a plain CLIP, as the model and as a baseline beside it."""

import json
from pathlib import Path

import numpy as np
import pytest

import clipvip
from clipvip.pipeline.search.index import INDEX_NAME
from commands import error_of
from html_page import HtmlPage
from plain_clip import shards_by_hand, texts_by_hand
from search_folders import expected, run, run_well
from tiny_clip import make_clip

SENTENCES = ["a dog runs", "rain falls"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("plain") / "clip", seed=5)


def by_hand(plain: Path, shards: Path, sentence: str, *, num_frames: int) -> list[tuple[str, float]]:
    """Key and similarity of all clips, the best first, by transformers' embeddings of single frames."""
    keys, _, videos = shards_by_hand(plain, shards, num_frames=num_frames)
    scores = videos @ texts_by_hand(plain, [sentence]).numpy()[0]
    return [(keys[row], float(scores[row])) for row in np.argsort(-scores)]


def assert_found(rows: list[dict], wanted: list[tuple[str, float]]) -> None:
    assert [row["key"] for row in rows] == [key for key, _ in wanted]
    assert [row["similarity"] for row in rows] == pytest.approx([score for _, score in wanted], abs=1e-5)


def test_a_plain_clip_finds_what_its_own_embeddings_say(plain: Path, shards: Path) -> None:
    rows = json.loads(run_well(*SENTENCES, "--model", plain, "--shards", shards, "--json").stdout)["clips"]
    for sentence in SENTENCES:
        found = [row for row in rows if row["sentence"] == sentence]
        assert_found(found, by_hand(plain, shards, sentence, num_frames=12)[:10])


def test_a_baseline_stands_beside_the_model(model: Path, plain: Path, shards: Path, tmp_path: Path) -> None:
    options = [*SENTENCES, "--model", model, "--shards", shards, "--top", 3]
    alone = json.loads(run_well(*options, "--json").stdout)
    index = {path: path.stat().st_mtime_ns for path in (shards / "search").iterdir()}
    beside = [*options, "--baseline", plain, "--page", tmp_path / "found.html"]
    both = json.loads(run_well(*beside, "--json").stdout)
    assert both["clips"] == alone["clips"]
    for sentence in SENTENCES:  # on the four frames of the model
        found = [row for row in both["baselines"][str(plain)] if row["sentence"] == sentence]
        assert_found(found, by_hand(plain, shards, sentence, num_frames=4)[:3])
    assert all(path.stat().st_mtime_ns == time for path, time in index.items())

    # The second time nothing is encoded, and the table and the page show both.
    result = run_well(*beside)
    assert result.stderr.count("search:") == 1 and "-> " + str(tmp_path / "found.html") in result.stderr
    lines = result.stdout.splitlines()
    assert (
        lines[0] == '"a dog runs": 3 of 12 clips' and lines[4] == f'"a dog runs", by {plain}: 3 of 12 clips'
    )
    assert len(lines) == 2 * 2 * 4
    assert lines[1].split()[2] == expected(model, shards, "a dog runs")[0][1]
    assert lines[5].split()[2] == by_hand(plain, shards, "a dog runs", num_frames=4)[0][0]
    page = (tmp_path / "found.html").read_text()
    assert page.count(f"<h3>{plain}</h3>") == page.count(f"<h3>{model}</h3>") == 2
    assert HtmlPage(page.encode()).text.count("rank 1") == 4


def test_its_index_is_its_own_and_made_once(model: Path, plain: Path, shards: Path) -> None:
    run_well("--model", model, "--baseline", plain, "--shards", shards)
    (folder,) = (path for path in (shards / "search").iterdir() if path.is_dir())
    assert folder.name.startswith("baseline-") and (folder / INDEX_NAME).is_file()
    made = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert run_well("a", "--model", model, "--baseline", plain, "--shards", shards).stderr == ""
    # Another number of frames is another index of the baseline, where the model's is made anew.
    run_well("--model", model, "--baseline", plain, "--shards", shards, "--num-frames", 3, "--rebuild")
    assert sum(path.is_dir() for path in (shards / "search").iterdir()) == 2
    assert all(path.stat().st_mtime_ns == time for path, time in made.items())


def test_from_python(model: Path, plain: Path, shards: Path) -> None:
    report = clipvip.search("rain falls", model=model, shards=shards, baselines=[plain], top=2, device="cpu")
    (found,) = report.baselines.values()
    assert [clip.key for clip in found] == [
        key for key, _ in by_hand(plain, shards, "rain falls", num_frames=4)[:2]
    ]
    assert len(report.clips) == 2


def test_a_baseline_that_is_none_is_told_before_anything_is_encoded(
    model: Path, shards: Path, tmp_path: Path
) -> None:
    line = error_of(run("a", "--model", model, "--shards", shards, "--baseline", tmp_path / "none"))
    assert "none: no such model folder" in line
    assert not (shards / "search").exists()
