"""`clipvip-eval benchmark`: the numbers of each test alone, in the paper's tables, beside the paper's."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

import commands
from clipvip.model import ClipVip
from clipvip.pipeline.evaluate.cli import main
from clipvip.shards.tar.reader import list_shards, read_shard
from commands import error_of
from make_shards import make_shard_folder
from tiny_clip import make_clip
from zero_shot_files import write_zero_shot_files

run = partial(commands.run, program=main)
run_well = partial(commands.run_well, program=main)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    ClipVip.from_clip(make_clip(folder / "clip"), num_frames=4).save_pretrained(folder / "vip")
    make_shard_folder(folder / "shards", num_shards=2)
    keys = [sample.key for path in list_shards(folder / "shards") for sample in read_shard(path)]
    write_zero_shot_files(folder, keys)
    return folder


def write_data(path: Path, tests: Any) -> Path:
    path.write_text(yaml.safe_dump(tests))
    return path


def rows_of(markdown: str) -> dict[str, list[str]]:
    """The rows of all tables by their first cells."""
    lines = [line for line in markdown.splitlines() if line.startswith("| ")]
    return {cells[0]: cells[1:] for line in lines if (cells := line.strip("| ").split(" | "))}


def test_the_numbers_are_those_of_the_tests_alone(folder: Path, tmp_path: Path) -> None:
    shards, vip, clip = str(folder / "shards"), str(folder / "vip"), str(folder / "clip")
    tests = {
        "hmdb51": {
            "shards": shards,
            "classes": str(folder / "classes.txt"),
            "labels": str(folder / "labels.csv"),
        },
        "msrvtt_mc": {"shards": shards, "questions": str(folder / "questions.jsonl")},
        "didemo": {"shards": shards, "model": clip},
        "msrvtt": {"shards": shards},
    }
    common = ["--device", "cpu", "--bootstrap", 200]
    data, out = write_data(tmp_path / "tests.yaml", tests), tmp_path / "out"
    result = run_well("benchmark", *common, "--data", data, "--model", vip, "--out", out)
    found = json.loads((out / "benchmark.json").read_text())["tests"]
    assert list(found) == ["msrvtt", "didemo", "hmdb51", "msrvtt_mc"]  # in the order of the tables

    words = {
        "msrvtt": ["retrieval", "--model", vip, "--dsl"],
        "didemo": ["retrieval", "--model", clip, "--dsl"],
        "hmdb51": ["actions", "--model", vip, "--prompt", "a person {}", "--classes", folder / "classes.txt",
                   "--labels", folder / "labels.csv"],
        "msrvtt_mc": ["multiple-choice", "--model", vip, "--questions", folder / "questions.jsonl"],
    }  # fmt: skip
    for name, (command, *more) in words.items():
        run_well(command, *common, *more, "--shards", shards, "--out", tmp_path / name)
        (path,) = [path for path in (tmp_path / name).glob("*.json") if path.name != "report.json"]
        alone = json.loads(path.read_text())
        assert json.loads((out / name / path.name).read_text()) == alone
        assert {key: alone[key] for key in found[name] if key != "paper"} == {
            key: value for key, value in found[name].items() if key != "paper"
        }
    assert found["msrvtt"]["paper"]["CLIP-ViP B/32"]["r1"] == 50.1
    assert found["hmdb51"]["paper"]["CLIP-ViP"] == 44.8

    tables = (out / "tables.md").read_text()
    rows = rows_of(tables)
    metrics = found["msrvtt"]["metrics"]
    for name, kind in ((vip, "plain"), (f"{vip}, DSL", "dsl")):
        shown = metrics[kind]["text_to_video"]
        low, high = (f"{100 * end:.1f}" for end in shown["intervals"]["r1"])
        tables_of_msrvtt = rows_of(tables.split("## ")[1])
        assert tables_of_msrvtt[name][:2] == [f"{100 * shown['r1']:.1f}", f"{low} to {high}"]
    assert rows["CLIP-ViP"][0::2] == ["44.8", "90.3", "the paper"]
    assert f"{100 * found['hmdb51']['top1']:.1f}" == rows[vip][0]
    assert f"not the published test: {found['msrvtt']['num_clips']} clips of 1,000" in tables
    assert "MSR-VTT 1k-A, text to video (Tables 5 and 6 of the paper)" in result.output


def test_a_baseline_is_a_row_of_each_table(folder: Path, tmp_path: Path) -> None:
    tests = {"lsmdc": {"shards": str(folder / "shards")}}
    data, clip = write_data(tmp_path / "tests.yaml", tests), str(folder / "clip")
    result = run_well(
        "benchmark", "--device", "cpu", "--data", data, "--model", folder / "vip", "--baseline", clip
    )
    lines = result.output.splitlines()
    assert sum(line.startswith(clip) for line in lines) == 2  # also with DSL
    assert any(line.startswith("CLIP-ViP B/16, DSL") and "30.7" in line for line in lines)


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        ({"msrvt": {"shards": "s"}}, "no test is called 'msrvt'; did you mean 'msrvtt'"),
        ({"msrvtt": {"shard": "s"}}, "msrvtt: has no 'shard'; did you mean 'shards'?"),
        ({"msrvtt": {"shards": 3}}, "msrvtt.shards: give a text"),
        ({"hmdb51": {"shards": "s", "classes": "c", "prompts": "p"}}, "hmdb51.prompts: give a list of texts"),
        ({"lsmdc_mc": {"shards": "s"}}, "lsmdc_mc: lacks questions"),
        ({"lsmdc_mc": None}, "lsmdc_mc: give it shards, questions"),
        ({"msrvtt": {"shards": "s"}}, "msrvtt: names no model; give --model, or a model there"),
        ([], "give a section for each test"),
        ("a: [", "not YAML"),
    ],
)
def test_mistakes_in_the_file_are_one_line(tmp_path: Path, tests: Any, message: str) -> None:
    data = write_data(tmp_path / "tests.yaml", tests)
    if isinstance(tests, str):
        data.write_text(tests)
    said = error_of(run("benchmark", "--data", data, "--out", tmp_path / "out"))
    assert message in said and str(data) in said
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    assert "nowhere.yaml" in error_of(run("benchmark", "--data", tmp_path / "nowhere.yaml", "--model", "x"))
