"""Shards of video2dataset and img2dataset, as they are, in every stage that reads shards."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from clipvip.experiments.demo.world import WEIGHTS
from clipvip.model import ClipVip
from clipvip.pipeline.cli import main as data
from clipvip.pipeline.evaluate.cli import main as evaluate
from clipvip.pipeline.train.command import main as train
from clipvip.shards.format.captions import read_captions
from commands import error_of, printed_by, run, run_well
from foreign_shards import make_img2dataset, make_video2dataset, video_bytes, write_tar
from outputs import samples
from tiny_clip import make_text_tower
from tiny_ofa import make_ofa


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Six videos in two shards, with a damaged one in a third; four pictures."""
    folder = tmp_path_factory.mktemp("shards")
    videos = make_video2dataset(folder / "videos")
    data = video_bytes(folder)
    members = {"bad": {"mp4": data[:700], "txt": b"lost"}, "000020001": {"mp4": data, "txt": b"a last bird"}}
    write_tar(videos / "00002.tar", members)
    return {"videos": videos, "pictures": make_img2dataset(folder / "pictures")}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    ClipVip.from_clip(WEIGHTS / "clip", temporal_size=2).save_pretrained(folder)
    return folder


def reasons(report: dict[str, Any]) -> dict[str, int]:
    return {reason: row["count"] for reason, row in report["skipped_by_reason"].items()}


def test_stats_inspect_and_verify(folders: dict[str, Path], tmp_path: Path) -> None:
    counts = printed_by(data, "stats", folders["videos"], "--out", tmp_path, "--num", 4)["counts"]
    wanted = {
        "shards": 3,
        "clips": 7,
        "videos": 8,
        "frames": 140,
        "unreadable_clips": 1,
        "unreadable_shards": 0,
    }
    assert {name: counts[name] for name in wanted} == wanted
    assert counts["hours"] == pytest.approx(14 / 3600, abs=1e-3)
    counts = printed_by(data, "stats", folders["pictures"])["counts"]
    assert (counts["clips"], counts["frames"], counts["hours"]) == (4, 4, 0)
    shown = printed_by(data, "inspect", folders["videos"], "--num", 9, "--html", tmp_path / "page.html")[
        "clips"
    ]
    assert [row["key"] for row in shown][:4] == ["000000000", "000000001", "000000002", "000010000"]
    assert [row["problem"] is None for row in shown] == [True] * 6 + [False, True]
    assert (tmp_path / "page.html").read_text().count("data:image/jpeg") >= 7
    run_well("verify", folders["pictures"])
    result = run("verify", folders["videos"], "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["problems"] == {"undecodable": 1} and found["listed"][0]["key"] == "bad"
    assert found["counts"]["clips_decoded"] == 7


@pytest.mark.slow
def test_caption(folders: dict[str, Path], tmp_path: Path) -> None:
    ofa = make_ofa(tmp_path / "ofa")
    for name, num_captions in (("videos", 7), ("pictures", 4)):
        out = tmp_path / name
        words = ("--shards", folders[name], "--out", out, "--model", ofa, "--gpus", 0, "--workers", 1)
        report = printed_by(data, "caption", *words, "--num-beams", 1)
        assert report["counts"]["captions"] == num_captions
        assert reasons(report) == ({"damaged_sample": 1} if name == "videos" else {})
    assert list(read_captions(tmp_path / "videos", "00001")) == ["000010000", "000010001", "000010002"]
    run_well("verify", folders["pictures"], "--captions", tmp_path / "pictures")


def test_captions_are_imported(folders: dict[str, Path], tmp_path: Path) -> None:
    """Here from the tables that lie beside the shards."""
    out = tmp_path / "out"
    words = ("import-captions", "--shards", folders["videos"], "--from", folders["videos"], "--out", out)
    assert printed_by(data, *words)["counts"] == {
        "clips": 8, "captions": 6, "shards": 3, "rows": 6, "rows_without_clip": 0,
    }  # fmt: skip


def test_nmi(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "queries.txt").write_text("".join(f"a query {n}\n" for n in range(20)))
    sides = [word for name, folder in folders.items() for word in ("--source", f"{name}={folder}")]
    model = make_text_tower(tmp_path / "clip")
    words = ("--target", f"q={tmp_path / 'queries.txt'}", "--model", model, "--samples", 4, "--device", "cpu")
    run_well("nmi", *sides, *words, "--out", tmp_path / "out")


def test_search_and_retrieval(folders: dict[str, Path], model: Path, tmp_path: Path) -> None:
    for name, num_clips in (("videos", 7), ("pictures", 4)):
        given = ("--model", model, "--shards", folders[name], "--device", "cpu")
        page = tmp_path / f"{name}.html"
        words = ("a bird", *given, "--index", tmp_path / name, "--top", 9, "--page", page)
        found = printed_by(evaluate, "search", *words)
        assert len(found["clips"]) == num_clips
        assert page.read_text().count("data:image/jpeg") >= num_clips
        scored = printed_by(
            evaluate, "retrieval", *given, "--bootstrap", 0, "--out", tmp_path / f"{name}-scores"
        )
        assert reasons(scored) == ({"damaged_sample": 1} if name == "videos" else {})
        assert scored["counts"]["clips"] == num_clips


@pytest.mark.parametrize("name", ["videos", "pictures"])
def test_train(name: str, folders: dict[str, Path], model: Path, tmp_path: Path) -> None:
    settings = [
        "loss.pairs=baseline", "optim.epochs=null", "optim.steps=4", "optim.batch_size=3", "run.workers=0",
        "optim.warmup_fraction=0", "data.num_frames=2", "run.device=cpu",
    ]  # fmt: skip
    words = [word for setting in settings for word in ("--set", setting)]
    given = ("demo", "--shards", folders[name], "--init", WEIGHTS / "clip", "--out", tmp_path / "run")
    report = printed_by(train, *given, "--gpus", 0, *words)
    assert report["counts"]["samples"] == 12
    assert reasons(report) == ({"damaged_sample": 1} if name == "videos" else {})


def test_copies(folders: dict[str, Path], tmp_path: Path) -> None:
    """With captions of others, of which nobody says what made them."""
    videos, captions = folders["videos"], tmp_path / "captions"
    captions.mkdir()
    for stem, keys in (("00000", ["000000000", "000000002"]), ("00001", ["000010001"]), ("00002", [])):
        rows = {"key": keys, "caption": [f"of {key}" for key in keys]}
        table = pyarrow.table(rows, pyarrow.schema(dict.fromkeys(rows, pyarrow.string())))
        pyarrow.parquet.write_table(table, captions / f"{stem}.parquet")
    out = ("--captions", captions, "--captions-out", tmp_path / "merged-captions", "--workers", 1)
    run_well("merge", videos, folders["pictures"], "--out", tmp_path / "all", "--duplicates", "first")
    run_well("subset", videos, "--fraction", 1, "--out", tmp_path / "merged", *out)
    assert list(samples(tmp_path / "merged"))[:4] == ["000000000", "000000001", "000000002", "000010000"]
    assert read_captions(tmp_path / "merged-captions", "000000")["000000002"] == "of 000000002"
    parts = tmp_path / "parts"
    words = ("--part", "train=0.5", "--part", "val=0.5", "--seed", 3, "--out", parts)
    run_well("split", folders["pictures"], *words)
    both = [*samples(parts / "train"), *samples(parts / "val")]
    assert sorted(both) == [f"{number:09d}" for number in range(4)]
    unfinished = tmp_path / "unfinished"
    (unfinished / "_state").mkdir(parents=True)
    refused = run(
        "subset", videos, "--fraction", 1, "--out", tmp_path / "x", "--captions", unfinished, *out[2:]
    )
    assert "no finished captions" in error_of(refused)
