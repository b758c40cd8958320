"""With --json, standard output holds the result as one JSON object, and nothing else."""

import json
from pathlib import Path
from typing import Any

import click
import pytest

import commands
from clipvip.experiments.demo.world import WEIGHTS
from clipvip.model import ClipVip
from clipvip.pipeline.cli import main as data
from clipvip.pipeline.evaluate.cli import main as evaluate
from clipvip.pipeline.train.command import main as train
from commands import run_well
from make_shards import make_captioned_folder, make_shard_folder
from outputs import report
from stage_commands import caption_command, nmi_command, shard_command


def run(program: click.Command, *arguments: object) -> dict[str, Any]:
    result = run_well(*arguments, "--json", program=program)
    content = json.loads(result.stdout)
    assert isinstance(content, dict)
    return content


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return make_shard_folder(tmp_path / "shards", num_shards=2, clips_per_shard=6)


def test_shard_prints_its_report(tmp_path: Path) -> None:
    content = run(data, *shard_command(tmp_path), "--out", tmp_path / "out")
    assert content == report(tmp_path / "out")
    assert content["counts"]["clips"] == 96 and content["skipped"] == 16


@pytest.mark.slow
def test_caption_prints_its_report(tmp_path: Path) -> None:
    content = run(data, *caption_command(tmp_path), "--out", tmp_path / "out")
    assert content == report(tmp_path / "out") and content["counts"]["captions"] == 30


@pytest.mark.slow
def test_nmi_prints_its_report_with_the_result(tmp_path: Path) -> None:
    content = run(data, *nmi_command(tmp_path), "--out", tmp_path / "out")
    assert content == report(tmp_path / "out")
    assert content["result"]["gaps"] == json.loads((tmp_path / "out" / "nmi.json").read_text())["gaps"]


def test_what_looks_at_shards_prints_what_it_finds(shards: Path, tmp_path: Path) -> None:
    verified = run(data, "verify", shards, "--workers", 1, "--out", tmp_path / "verify")
    assert verified == json.loads((tmp_path / "verify" / "verify.json").read_text())
    counted = run(data, "stats", shards, "--workers", 1, "--out", tmp_path / "stats")
    assert counted == json.loads((tmp_path / "stats" / "stats.json").read_text())
    shown = run(data, "inspect", shards, "--num", 4, "--workers", 1, "--html", tmp_path / "page.html")
    assert len(shown["clips"]) == 4


def test_what_makes_folders_of_shards_prints_their_reports(shards: Path, tmp_path: Path) -> None:
    subset = ("subset", shards, "--num", 5, "--workers", 1, "--out", tmp_path / "few")
    assert run(data, *subset, "--dry-run") == {
        "stage": "subset",
        "counts": {"clips": 5, "clips_to_choose_from": 12},
    }
    assert not (tmp_path / "few").exists()
    assert run(data, *subset) == report(tmp_path / "few")
    merge = ("merge", tmp_path / "few", "--workers", 1, "--out", tmp_path / "merged")
    assert run(data, *merge, "--dry-run")["counts"] == {"clips": 5, "clips_to_choose_from": 5}
    assert run(data, *merge) == report(tmp_path / "merged")
    parts = ("--part", "a=0.5", "--part", "b=0.5", "--seed", 1, "--workers", 1, "--out", tmp_path / "parts")
    planned = run(data, "split", shards, *parts, "--dry-run")["parts"]
    made = run(data, "split", shards, *parts)["parts"]
    assert made == {name: report(tmp_path / "parts" / name) for name in ("a", "b")}
    assert [planned[name]["counts"]["clips"] for name in made] == [6, 6]
    assert [report["counts"]["clips"] for report in made.values()] == [6, 6]


def test_training_prints_its_report_and_the_scores_of_the_test_split(shards: Path, tmp_path: Path) -> None:
    test = make_captioned_folder(tmp_path / "test", [[f"words {number}"] for number in range(4)])
    arguments: list[object] = [
        "demo",
        "--shards",
        shards,
        "--test",
        test,
        "--gpus",
        0,
        "--out",
        tmp_path / "run",
    ]
    arguments += ["--init", WEIGHTS / "clip"]
    settings = ("loss.pairs=baseline", "optim.batch_size=6", "optim.epochs=1", "run.workers=0")
    for setting in settings:
        arguments += ["--set", setting]
    planned = run(train, *arguments, "--dry-run")
    assert not (tmp_path / "run").exists()
    assert planned["counts"]["steps"] == planned["counts"]["steps_per_epoch"] == 2
    assert planned["sources"]["clips"] == {"shards": 2, "samples": 12, "samples_per_batch": 6}
    assert planned["goes_on_from"] is None
    found = run(train, *arguments)
    assert found.pop("result") == json.loads((tmp_path / "run" / "test.json").read_text())
    assert found == report(tmp_path / "run")
    assert found["options"] == planned["options"] and found["counts"]["steps"] == 2


def test_damage_is_printed_and_ends_in_one(shards: Path) -> None:
    (shards / "000000.tar").write_bytes(b"no tar" * 1000)
    result = commands.run("verify", shards, "--workers", 1, "--json")
    assert result.exit_code == 1 and json.loads(result.stdout)["counts"]["problems"] > 0
    assert "Error: " in result.stderr and "Error: " not in result.stdout


def test_measures_print_the_same_with_and_without_a_folder(shards: Path, tmp_path: Path) -> None:
    ClipVip.from_clip(WEIGHTS / "clip", temporal_size=2).save_pretrained(tmp_path / "model")
    options = ("retrieval", "--model", tmp_path / "model", "--shards", shards, "--bootstrap", 0)
    written = run(evaluate, *options, "--out", tmp_path / "eval")
    assert written == report(tmp_path / "eval")
    assert written["result"]["metrics"]["plain"]["text_to_video"]["r1"] >= 0
    del written["this_run"]
    printed = run(evaluate, *options)
    del printed["this_run"]
    assert printed == written
    assert not (tmp_path / "out").exists()
