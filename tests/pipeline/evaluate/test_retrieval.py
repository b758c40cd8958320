"""`clipvip-eval retrieval`: the numbers that the model's own embeddings give, and no clip unaccounted."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

import commands
from clipvip.analysis.rescoring import dual_softmax, querybank_norm
from clipvip.analysis.retrieval import Direction, embedding_ranks, retrieval_metrics, similarities
from clipvip.media.sampling import uniform_indices
from clipvip.model import ClipVip
from clipvip.pipeline.evaluate.cli import main
from clipvip.pipeline.evaluate.embeddings import ClipEncoder, embed_pairs, load_clip_vip
from clipvip.pipeline.evaluate.retrieval import Scoring, all_metrics, chance, torch_products
from clipvip.pipeline.runtime.errors import UserError
from clipvip.shards.tar.reader import list_shards, read_shard
from clipvip.shards.tar.writer import write_shard
from make_shards import make_captioned_folder, make_shard_folder, stored_clip
from tiny_clip import make_clip, tiny_tokenizer

run = partial(commands.run, "retrieval", "--device", "cpu", program=main)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    vip = ClipVip.from_clip(str(make_clip(folder / "clip")))
    vip.save_pretrained(folder / "vip")
    tiny_tokenizer().save_pretrained(folder / "vip")
    return folder / "vip"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shard_folder(tmp_path_factory.mktemp("clips"), num_shards=2, clips_per_shard=5)


def embeddings(model: Path, shards: Path, *, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Texts and videos, one clip at a time and straight from the model."""
    vip = ClipVip.from_pretrained(model).eval()
    samples = [sample for path in list_shards(shards) for sample in read_shard(path)]
    with torch.inference_mode():
        texts = [vip.encode_text([sample.subtitle]).numpy()[0] for sample in samples]
        videos = [
            vip.encode_video([sample.decode(uniform_indices(sample.num_frames, num_frames))]).numpy()[0]
            for sample in samples
        ]
    return np.stack(texts), np.stack(videos)


def assert_metrics(found: dict, expected: dict[str, float]) -> None:
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    recalls = [expected[name] for name in ("r1", "r5", "r10")]
    assert found["mean_recall"] == pytest.approx(sum(recalls) / 3)
    for name, (low, high) in found["intervals"].items():
        assert low - 1e-9 <= found[name] <= high + 1e-9 or name == "median_rank"


def test_the_metrics_are_those_of_the_models_embeddings(tmp_path: Path, model: Path, shards: Path) -> None:
    result = run(
        *("--model", model, "--shards", shards, "--out", tmp_path / "out", "--dsl", "--qb-norm"),
        *("--num-frames", 4, "--batch-size", 3),
    )
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "out/retrieval.json").read_text())
    vip = load_clip_vip(str(model), device=torch.device("cpu"), num_frames=4)
    pairs = embed_pairs(ClipEncoder(vip, batch_size=3), list_shards(shards))
    texts, videos = pairs.texts, pairs.videos
    for found, expected in zip((texts, videos), embeddings(model, shards, num_frames=4), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    similarity = similarities(texts, videos)
    by_name = {
        "plain": (similarity, similarity.T),
        "dsl": (dual_softmax(similarity), dual_softmax(similarity).T),
        "qb_norm": (querybank_norm(similarity), querybank_norm(similarity.T)),
    }
    for name, (by_text, by_video) in by_name.items():
        found = written["metrics"][name]
        assert_metrics(found["text_to_video"], retrieval_metrics(by_text))
        assert_metrics(found["video_to_text"], retrieval_metrics(by_video))
    assert "all queries" in written["metrics"]["dsl"]["note"] and "note" not in written["metrics"]["plain"]
    ranks = {"median_rank": 5.5, "mean_rank": 5.5}
    assert written["chance"] == pytest.approx(
        {"r1": 0.1, "r5": 0.5, "r10": 1.0, "mean_recall": 1.6 / 3, **ranks}
    )
    assert written["num_queries"] == 10 and written["num_skipped"] == 0
    rows = {line[:24].strip(): line[24:].split() for line in result.stdout.splitlines()}
    recall = f"{100 * written['metrics']['plain']['text_to_video']['r5']:.1f}"
    assert rows["text to video"][1] == recall
    assert rows["chance"] == ["10.0", "50.0", "100.0", "53.3", "5.5", "5.5"]
    assert "text to video, DSL*" in rows and "video to text, QB-Norm*" in rows


def test_few_clips_are_warned_of(tmp_path: Path, model: Path, shards: Path) -> None:
    """Of ten clips R@10 is 100 for any model."""
    result = run("--model", model, "--shards", shards, "--out", tmp_path / "few", "--bootstrap", 0)
    assert result.exit_code == 0
    (line,) = (line for line in result.stderr.splitlines() if "Warning" in line)
    assert f"Warning: {shards}: only 10 clips to search: chance alone has R@10 100%" in line
    (written,) = json.loads((tmp_path / "few" / "retrieval.json").read_text())["warnings"]
    assert written in line
    enough = make_shard_folder(tmp_path / "enough", num_shards=2, clips_per_shard=10)
    result = run("--model", model, "--shards", enough, "--out", tmp_path / "out", "--bootstrap", 0)
    assert result.exit_code == 0 and "Warning" not in result.stderr
    assert "warnings" not in json.loads((tmp_path / "out" / "retrieval.json").read_text())


def test_again_gives_the_same_bytes(tmp_path: Path, model: Path, shards: Path) -> None:
    written = []
    for _ in range(2):
        assert run("--model", model, "--shards", shards, "--out", tmp_path).exit_code == 0
        written.append((tmp_path / "retrieval.json").read_bytes())
    assert written[0] == written[1]


def test_clips_without_text_or_with_damage_are_counted(tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    clips = [stored_clip("v", number) for number in range(4)]
    clips.append(stored_clip("silent", 0, subtitle=" "))
    broken = stored_clip("broken", 0)
    object.__setattr__(broken, "pixels", b"\0" * len(broken.pixels))
    write_shard(folder / "000000.tar", [*clips, broken])
    result = run("--model", model, "--shards", folder, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "skipped 2: damaged_sample 1, empty_text 1" in result.stdout
    assert json.loads((tmp_path / "out/retrieval.json").read_text())["num_queries"] == 4
    skipped = (tmp_path / "out/skipped.jsonl").read_text().splitlines()
    assert {json.loads(line)["what"] for line in skipped} == {"silent_00000", "broken_00000"}


def test_captions_can_be_the_queries(tmp_path: Path, model: Path, shards: Path) -> None:
    captions = tmp_path / "captions"
    captions.mkdir()
    for path in list_shards(shards):
        keys = [sample.key for sample in read_shard(path)][1:]
        same = {"model": ["ofa"] * len(keys), "revision": [""] * len(keys), "options": ["{}"] * len(keys)}
        columns = {"key": keys, "caption": [f"a picture of {key}" for key in keys], **same}
        pyarrow.parquet.write_table(pyarrow.table(columns), captions / f"{path.stem}.parquet")
    result = run("--model", model, "--shards", shards, "--captions", captions)
    assert result.exit_code == 0, result.output
    assert "8 clips, searched by their captions" in result.stdout
    assert "skipped 2: missing_caption 2" in result.stdout


def test_perfect_and_random_embeddings() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 32)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    perfect = all_metrics(rows, rows, how=Scoring(True, True, resamples=0))
    assert all(perfect[name].text_to_video.r1 == 1 for name in ("plain", "dsl", "qb_norm"))
    blind = all_metrics(rows, np.roll(rows, 150, axis=0)[rng.permutation(300)], how=Scoring(resamples=0))
    assert blind["plain"].video_to_text.mean_rank == pytest.approx(chance(300)["mean_rank"], rel=0.1)
    rows[3] = np.nan
    with pytest.raises(UserError, match="a text embedding holds NaN"):
        all_metrics(rows, rows, how=Scoring(resamples=0))


def test_mistakes_are_one_line(tmp_path: Path, model: Path, shards: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    damaged = shutil.copytree(model, tmp_path / "damaged")
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    silent = tmp_path / "silent"
    silent.mkdir()
    write_shard(silent / "000000.tar", [stored_clip("v", 0, subtitle=" ")])
    cases = [
        (["--model", model, "--shards", tmp_path / "nowhere"], "nowhere: no such folder of shards"),
        (["--model", model, "--shards", empty], "holds no shards"),
        (["--model", tmp_path / "nothing", "--shards", shards], "nothing"),
        (["--model", damaged, "--shards", shards], "damaged"),
        (["--model", model, "--shards", silent], "none of 1 clip can be used: empty_text 1"),
        (["--model", model, "--shards", shards, "--captions", tmp_path / "x"], "no such folder"),
    ]
    for arguments, message in cases:
        out = tmp_path / "out"
        result = run(*arguments, "--out", out)
        assert result.exit_code == 1 and isinstance(result.exception, SystemExit), (message, result.exception)
        errors = [line for line in result.output.splitlines() if line.startswith("Error: ")]
        assert len(errors) == 1 and message in errors[0], result.output
        assert not out.exists()


def test_several_captions_of_a_clip_are_refused_or_each_a_query(tmp_path: Path, model: Path) -> None:
    texts = [["red one", "a red one"], ["blue"], ["green", "grass", "leaf"]]
    shards = make_captioned_folder(tmp_path / "clips", texts)
    refused = run("--model", model, "--shards", shards)
    assert refused.exit_code == 1
    assert "clips0_00000 has 2 captions" in refused.output and "--all-captions" in refused.output
    result = run("--model", model, "--shards", shards, "--all-captions", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "3 clips, searched by 6 captions" in result.stdout and "\nretrieval: 3 clips -> " in result.stdout
    written = json.loads((tmp_path / "out/retrieval.json").read_text())
    assert (written["num_queries"], written["num_clips"]) == (6, 3)
    vip = ClipVip.from_pretrained(model).eval()
    by_text = vip.encode_text([text for of_clip in texts for text in of_clip]).numpy()
    (path,) = list_shards(shards)
    frames = [sample.decode(uniform_indices(sample.num_frames, 12)) for sample in read_shard(path)]
    similarity = by_text @ vip.encode_video(frames).numpy().T
    labels = np.array([0, 0, 1, 2, 2, 2])
    for direction in ("text_to_video", "video_to_text"):
        expected = retrieval_metrics(similarity, labels, direction=direction)
        assert_metrics(written["metrics"]["plain"][direction], expected)


def test_clips_with_the_same_caption_tie(tmp_path: Path, model: Path) -> None:
    texts = [["the same words"] if number % 4 else [f"picture {number}"] for number in range(53)]
    shards = make_captioned_folder(tmp_path / "clips", texts)
    options = ["--model", model, "--shards", shards, "--batch-size", 5, "--out", tmp_path / "out"]
    result = run(*options, "--dsl", "--qb-norm")
    assert result.exit_code == 0 and "texts that repeat another: 38" in result.stdout, result.output
    # From clip to text the 39 clips of one sentence never have their answer alone among the first ten.
    written = json.loads((tmp_path / "out/retrieval.json").read_text())["metrics"]
    assert set(written) == {"plain", "dsl", "qb_norm"}
    for metrics in written.values():
        assert metrics["video_to_text"]["r10"] <= 14 / 53
        assert metrics["video_to_text"]["mean_rank"] >= 39 / 53 * 20


@pytest.mark.parametrize("direction", ["text_to_video", "video_to_text"])
def test_a_device_gives_the_same_ranks(direction: Direction) -> None:
    rng = np.random.default_rng(0)
    # whole numbers, so that every order of summation gives the same scores, and ties are exact
    texts, videos = (rng.integers(-3, 4, (count, 6)).astype(np.float32) for count in (57, 23))
    labels = rng.integers(0, 23, 57)
    expected = embedding_ranks(texts, videos, labels, direction=direction)
    for device in {"cpu", "cuda" if torch.cuda.is_available() else "cpu"}:
        products = torch_products(torch.device(device))
        found = embedding_ranks(texts, videos, labels, direction=direction, products=products)
        assert (found.best == expected.best).all() and (found.worst == expected.worst).all()


def test_a_paragraph_is_one_query(tmp_path: Path, model: Path) -> None:
    shards = make_captioned_folder(tmp_path / "clips", [["first.", "then."], ["only."]], "paragraph")
    result = run("--model", model, "--shards", shards)
    assert result.exit_code == 0, result.output
    assert "2 clips, searched by their subtitles" in result.stdout


def test_a_bank_of_other_queries_changes_qb_norm(tmp_path: Path, model: Path, shards: Path) -> None:
    (tmp_path / "bank.txt").write_text("words of clip 3 of video0\nwords of clip 1 of video1\n")
    options = ["--model", model, "--shards", shards, "--qb-norm", "--bootstrap", 0, "--out"]
    assert run(*options, tmp_path / "a").exit_code == 0
    assert run(*options, tmp_path / "b", "--query-bank", tmp_path / "bank.txt").exit_code == 0
    found = [json.loads((tmp_path / name / "retrieval.json").read_text())["metrics"] for name in "ab"]
    assert found[0]["plain"] == found[1]["plain"]
    assert found[0]["qb_norm"]["text_to_video"] != found[1]["qb_norm"]["text_to_video"]
    assert run("--model", model, "--shards", shards, "--query-bank", tmp_path / "bank.txt").exit_code == 1
