"""Every command on a store: what it reads and writes there is what it reads and writes in folders."""

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import click
import pytest
from click.testing import Result

from clipvip.pipeline.cli import main as data
from clipvip.pipeline.evaluate.cli import main as evaluate
from clipvip.shards.format.manifest import write_manifest
from clipvip.shards.tar.writer import write_shard
from commands import run, run_to_end, run_well, start
from hub_server import hub_server
from make_shards import make_shard_folder, stored_clip
from s3_server import s3_server, use_s3
from search_folders import make_model
from tiny_ofa import make_ofa

STORE = "s3://bucket"
# What is made piece by piece, and not again.
DATA = data.list_commands(click.Context(data))
RESULTS = {".tar", ".parquet", ".npy", ".safetensors"}
# {in} is where shards, captions, lists and models are, {out} where results go: in the store, or in folders.
COMMANDS = {
    "caption": "caption --shards {in}/clips --out {out} --model {in}/models/ofa --gpus 0 --workers 1"
    " --num-beams 1 --max-length 6",
    "caption frames": "caption --shards {in}/clips --out {out} --model {in}/models/ofa --gpus 0 --workers 1"
    " --num-beams 1 --max-length 6 --frames 3",
    "nmi": "nmi --source said={in}/clips --source seen={in}/clips-captions --target own={in}/texts.txt"
    " --target rows={in}/texts.jsonl --model {in}/models/vip --samples 4 --repeats 2 --device cpu"
    " --out {out}",
    "verify": "verify {in}/clips --captions {in}/clips-captions --workers 2 --out {out}",
    "stats": "stats {in}/clips --captions {in}/clips-captions --workers 2 --out {out}",
    "inspect": "inspect {in}/clips --captions {in}/clips-captions --num 3 --workers 2 --html {out}/page.html",
    "inspect one": "inspect {in}/clips/000001.tar --key video1_00002 --html {out}/page.html",
    "merge": "merge {in}/clips {in}/more --captions {in}/clips-captions --captions {in}/more-captions"
    " --out {out}/clips --captions-out {out}/captions --workers 2",
    "split": "split {in}/clips --part train=0.5 --part val=0.5 --captions {in}/clips-captions --seed 1"
    " --out {out}/clips --captions-out {out}/captions --workers 1",
    "subset": "subset {in}/clips --keys {in}/keys.txt --out {out} --shard-size 2 --workers 1",
    "filter": "filter --shards {in}/clips --captions {in}/clips-captions --model {in}/models/vip"
    " --test own={in}/more --test lines={in}/texts.txt --max-duplicates 4 --min-words 1 --top 0.5"
    " --workers 2 --device cpu --out {out}",
    "subset several": "subset {in}/clips --num 3 --captions {in}/clips-captions"
    " --captions {in}/second-captions"
    " --out {out}/clips --captions-out {out}/one --captions-out {out}/two --workers 1",
    "retrieval": "retrieval --model {in}/models/vip --shards {in}/clips --captions {in}/clips-captions"
    " --qb-norm --query-bank {in}/clips-captions --device cpu --out {out}",
    "multiple-choice": "multiple-choice --model {in}/models/vip --shards {in}/clips"
    " --questions {in}/questions.jsonl --device cpu --out {out}",
    "actions": "actions --model {in}/models/vip --shards {in}/clips --classes {in}/classes.txt"
    " --labels {in}/labels.csv --device cpu --out {out}",
    "search": "search words --model {in}/models/vip --shards {in}/clips --index {out}/index"
    " --page {out}/page.html --device cpu",
}
QUICK = ("verify", "stats", "subset", "retrieval")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that the commands read, in `bucket`."""
    root = tmp_path_factory.mktemp("inputs")
    bucket = root / "bucket"
    models = bucket / "models"
    make_ofa(models / "ofa")
    make_model(models)
    (bucket / "more").mkdir(parents=True)
    make_shard_folder(bucket / "clips", num_shards=3, clips_per_shard=4)
    record = write_shard(bucket / "more" / "000000.tar", [stored_clip("other", n) for n in range(3)])
    write_manifest(bucket / "more", stage="shard", options={}, shards=[record])
    for name in ("clips", "more"):
        captions = bucket / f"{name}-captions"
        run_well(
            "caption", "--shards", bucket / name, "--out", captions, "--model", models / "ofa", "--gpus", 0
        )
    shutil.copytree(bucket / "clips-captions", bucket / "second-captions")
    (bucket / "texts.txt").write_text("".join(f"text {number} of {7 * number}\n" for number in range(20)))
    rows = [json.dumps({"text": f"row {number} says {5 * number}"}) for number in range(20)]
    (bucket / "texts.jsonl").write_text("\n".join(rows))
    (bucket / "keys.txt").write_text("video0_00001\nvideo2_00003\nvideo1_00000\n")
    question = {"video": "video1_00002", "options": ["one", "two", "three"], "answer": 1}
    (bucket / "questions.jsonl").write_text(json.dumps(question))
    (bucket / "classes.txt").write_text("walk\nrun\nfall\n")
    (bucket / "labels.csv").write_text("video,label\nvideo0_00001,walk\nvideo1_00003,fall\n")
    return root


def words_of(name: str, inputs: str | Path, out: str | Path) -> list[str]:
    places = {"in": inputs, "out": out}
    return [word.format(**places) for word in COMMANDS[name].split()]


def run_command(words: list[str]) -> Result:
    return run_well(*words, program=data if words[0] in DATA else evaluate)


def tree(folder: Path, *prefixes: str | Path) -> dict[str, bytes]:
    """Every file below a folder but for locks, with the places of the run taken out.

    Of reports what is said of the run itself.
    """
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.name in ("lock", ".lock") or path.name.startswith("gpu"):
            continue
        text = path.read_bytes()
        for prefix in prefixes:
            text = text.replace(str(prefix).encode(), b"@")
        if path.name == "report.json":
            text = re.sub(rb'"this_run": {[^}]*}', b"", text)
        files[path.relative_to(folder).as_posix()] = text
    assert files, f"{folder}: holds no file"
    return files


QUICK_AND_SLOW = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in COMMANDS]


@pytest.mark.parametrize("name", QUICK_AND_SLOW)
def test_a_command_on_a_store_makes_what_it_makes_in_folders(
    name: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inputs are read where they are, results go where they are asked for; nothing else is left."""
    local, temporary = tmp_path / "local", tmp_path / "temporary"
    store, here = tmp_path / "store", tmp_path / "here"
    for folder in (local, temporary, here):
        folder.mkdir()
    shutil.copytree(inputs / "bucket", store / "bucket")
    here_said = run_command(words_of(name, inputs / "bucket", local))
    expected = tree(local, local, inputs / "bucket")
    monkeypatch.chdir(here)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setenv("TMPDIR", str(temporary))
    with s3_server(store) as address:
        use_s3(monkeypatch, address)
        words = words_of(name, STORE, f"{STORE}/out")
        there_said = run_command(words)
        assert tree(store / "bucket" / "out", f"{STORE}/out", STORE) == expected
        if name in ("caption", "filter", "merge", "split", "subset", "nmi", "search"):
            before = {path: path.stat().st_mtime_ns for path in (store / "bucket" / "out").rglob("*.*")}
            run_command(words)
            assert tree(store / "bucket" / "out", f"{STORE}/out", STORE) == expected
            kept = {path for path, time in before.items() if path.stat().st_mtime_ns == time}
            assert {path.suffix for path in before if path.suffix in RESULTS} <= {
                path.suffix for path in kept
            }
    said = [here_said.stdout.replace(str(local), "@"), there_said.stdout.replace(f"{STORE}/out", "@")]
    assert said[0].replace(str(inputs / "bucket"), "@") == said[1].replace(STORE, "@")
    assert [*here.iterdir(), *temporary.iterdir()] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["caption", "filter", "subset", "merge", "search"])
def test_a_command_that_was_killed_goes_on_in_a_store(
    name: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what it had finished, to the bytes of a run that nobody disturbed."""
    local, store = tmp_path / "local", tmp_path / "store"
    (store / "bucket").mkdir(parents=True)
    local.mkdir()
    run_command(words_of(name, inputs / "bucket", local))
    expected = tree(local, local, inputs / "bucket")
    program = "clipvip.pipeline.cli" if name in DATA else "clipvip.pipeline.evaluate.cli"
    with s3_server(store) as address:
        use_s3(monkeypatch, address)
        words = words_of(name, inputs / "bucket", f"{STORE}/out")
        process = start(*words, program=program)
        pieces = {"caption": "*.parquet", "filter": "*.safetensors", "search": "*.safetensors"}
        done_with_one = pieces.get(name, "000000.json")
        while not list((store / "bucket").rglob(done_with_one)):
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert not list((store / "bucket").rglob("report.json"))
        done = {path: path.stat().st_mtime_ns for path in (store / "bucket").rglob("*.*")}
        run_command(words)
    assert tree(store / "bucket" / "out", f"{STORE}/out", inputs / "bucket") == expected
    kept = {path for path, time in done.items() if path.stat().st_mtime_ns == time}
    assert any(path.suffix in RESULTS for path in kept)


@pytest.mark.parametrize("name", QUICK_AND_SLOW)
@pytest.mark.parametrize(
    ("given", "out"), [("s3://bucket/none", "s3://bucket/out"), ("noscheme://x", "noscheme://y")]
)
def test_a_place_of_a_store_that_is_not_there_is_told_in_one_line(
    name: str, given: str, out: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store" / "bucket").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with s3_server(tmp_path / "store") as address:
        use_s3(monkeypatch, address)
        words = words_of(name, given, out)
        result = run(*words, program=data if words[0] in DATA else evaluate)
    assert result.exit_code == 1
    (line,) = result.output.strip().splitlines()
    assert line.startswith("Error: ") and (given in line or out in line), line
    assert [*(tmp_path / "here").iterdir(), *(tmp_path / "store" / "bucket").iterdir()] == []


@pytest.mark.parametrize(
    "name",
    [
        "stats",
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n in ("caption", "nmi", "subset", "retrieval", "search")
        ),
    ],
)
def test_a_bucket_that_is_not_there_to_write_to_is_told_in_one_line(
    name: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store").mkdir()
    with s3_server(tmp_path / "store") as address:
        use_s3(monkeypatch, address)
        words = words_of(name, inputs / "bucket", "s3://none/out")
        result = run(*words, program=data if words[0] in DATA else evaluate)
    assert result.exit_code == 1
    (line,) = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert "s3://none/out" in line, line
    assert list((tmp_path / "store").iterdir()) == []


@pytest.mark.slow
def test_what_is_broken_in_a_store_is_found_removed_and_made_again(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "store" / "bucket" / "out"
    out.parent.mkdir(parents=True)
    with s3_server(tmp_path / "store") as address:
        use_s3(monkeypatch, address)
        words = words_of("subset", inputs / "bucket", f"{STORE}/out")
        run_command(words)
        expected = tree(out)
        (out / "000001.tar").write_bytes(expected["000001.tar"][:-20_000])
        (out / "000000.tar").write_bytes(b"x" + expected["000000.tar"][1:])
        found = run("verify", f"{STORE}/out", "--workers", 1)
        assert (found.exit_code, set(tree(out))) == (1, set(expected))
        assert "checksum_differs" in found.output and "size_differs" in found.output, found.output
        found = run("verify", f"{STORE}/out", "--workers", 1, "--repair")
        assert f"removed {STORE}/out/000000.tar" in found.output, found.output
        assert not list(out.rglob("00000*"))
        run_command(words)
    assert tree(out) == expected


@pytest.mark.slow
def test_shards_and_captions_of_the_hub_are_read(inputs: Path, tmp_path: Path) -> None:
    """In a process of its own, since the Hub's address is read when its library is imported."""
    for name, place in {"local": str(inputs / "bucket"), "hub": "hf://datasets/user/data"}.items():
        words = COMMANDS["merge"].format(**{"in": place, "out": tmp_path / name}).split()
        with hub_server(inputs / "bucket") as variables:
            code, said = run_to_end(*words, env={**os.environ, **variables})
        assert code == 0, said
    assert tree(tmp_path / "hub", tmp_path / "hub") == tree(tmp_path / "local", tmp_path / "local")
    with hub_server(inputs / "bucket") as variables:
        words = ("stats", "hf://datasets/user/data/none")
        code, said = run_to_end(*words, env={**os.environ, **variables})
    assert (code, said) == (1, f"Error: {words[1]}: no such folder of shards")
