"""A bad sample costs itself alone, in every stage and in training, and is told."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bad_samples import bad_samples, claiming, damaged_tars, members_of, with_record, write_members
from clipvip.experiments.demo.world import WEIGHTS
from clipvip.model import ClipVip
from clipvip.pipeline.cli import main as data
from clipvip.pipeline.evaluate.cli import main as evaluate
from clipvip.pipeline.train.command import main as train
from clipvip.shards.errors import DatasetError, Skip
from clipvip.shards.tar.index import ShardFile
from clipvip.shards.tar.reader import Sample, read_samples
from clipvip.shards.tar.writer import write_shard
from commands import printed_by, run
from make_shards import stored_clip
from tiny_clip import make_text_tower
from tiny_ofa import make_ofa

NUM_GOOD = 5
CASES = bad_samples()
NUM_BAD = len(CASES) + 1  # and one whose text is a link


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard of all bad samples, with a good one before, and one of good samples."""
    folder = tmp_path_factory.mktemp("shards")
    good = [stored_clip("good", number, num_frames=3) for number in range(4)]
    write_shard(folder / "000001.tar", good)
    samples = [*CASES.values(), members_of(len(CASES)), members_of(NUM_BAD)]
    write_members(folder / "000000.tar", samples, linked=len(CASES))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    ClipVip.from_clip(WEIGHTS / "clip", temporal_size=2).save_pretrained(folder)
    return folder


def reasons(report: dict[str, Any]) -> dict[str, int]:
    return {reason: row["count"] for reason, row in report["skipped_by_reason"].items()}


@pytest.mark.parametrize("name", CASES)
def test_a_bad_sample_says_why_and_the_next_is_read(name: str, tmp_path: Path) -> None:
    number = list(CASES).index(name)
    samples = [members_of(n) for n in range(number)] + [CASES[name], members_of(number + 1)]
    found = list(read_samples(write_members(tmp_path / "000000.tar", samples)))
    assert [isinstance(sample, Sample) for sample in found[:number]] == [True] * number
    *_, bad, good = found
    assert isinstance(good, Sample) and good.decode([0, 2]).shape == (2, 32, 48, 3)
    if isinstance(bad, Skip):
        assert bad.what == f"bad_{number:05d}" and bad.detail
    else:
        with pytest.raises(DatasetError, match=f"bad_{number:05d}"):
            bad.decode(range(bad.num_frames))


@pytest.mark.slow
def test_every_stage_goes_on_past_bad_samples(shards: Path, model: Path, tmp_path: Path) -> None:
    ofa, clip = make_ofa(tmp_path / "ofa"), make_text_tower(tmp_path / "clip")
    (tmp_path / "q.txt").write_text("".join(f"a red star {n}\n" for n in range(20)))

    counted = printed_by(data, "stats", shards, "--workers", 1)["counts"]
    assert counted["unreadable_shards"] == 0 and counted["unreadable_clips"] >= 10
    captions = ("--model", ofa, "--gpus", 0, "--workers", 1, "--num-beams", 1, "--out", tmp_path / "c")
    report = printed_by(data, "caption", "--shards", shards, *captions)
    # The frames that are damaged are not always the middle one, which is captioned.
    assert report["counts"]["clips"] == NUM_GOOD + NUM_BAD
    assert report["counts"]["captions"] < NUM_GOOD + 6 and report["skipped"] > NUM_BAD - 6
    assert set(reasons(report)) <= {"damaged_sample", "wrong_members", "undecodable_frame", "empty_caption"}

    texts = ("--source", f"s={shards}", "--target", f"q={tmp_path / 'q.txt'}", "--samples", 5)
    report = printed_by(data, "nmi", *texts, "--model", clip, "--out", tmp_path / "n", "--device", "cpu")
    assert report["counts"]["texts"] == NUM_GOOD + NUM_BAD - 1 + 20
    assert reasons(report) == {"unreadable_text": 1}

    encoding = ("--model", model, "--shards", shards, "--device", "cpu", "--num-frames", 3)
    report = printed_by(evaluate, "retrieval", *encoding, "--bootstrap", 0)
    assert report["counts"]["clips"] == NUM_GOOD and report["skipped"] == NUM_BAD
    assert set(reasons(report)) == {"damaged_sample", "wrong_members"}
    pages = ("--index", tmp_path / "i", "--page", tmp_path / "p.html")
    run("search", "a star", *encoding, *pages, program=evaluate)
    found = json.loads((tmp_path / "i" / "report.json").read_text())
    assert found["counts"]["clips"] == NUM_GOOD and found["skipped"] == NUM_BAD
    questions = [{"video": "good_00001", "options": ["a", "b"], "answer": 0}]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, questions)))
    report = printed_by(evaluate, "multiple-choice", *encoding, "--questions", tmp_path / "questions.jsonl")
    assert report["counts"]["clips"] == 1

    merged = printed_by(data, "merge", shards, "--workers", 1, "--out", tmp_path / "merged")
    # Whole samples are copied without a look at them.
    assert merged["counts"]["clips"] == NUM_GOOD + NUM_BAD - 2
    shown = printed_by(
        data, "inspect", shards, "--num", 100, "--workers", 1, "--html", tmp_path / "page.html"
    )
    assert sum(row["problem"] is None for row in shown["clips"]) >= NUM_GOOD


def test_verify_names_every_bad_sample(shards: Path) -> None:
    result = run("verify", shards, "--workers", 1, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    named = {row["key"] for row in found["listed"] if row["file"] == "000000.tar"}
    assert named == {f"bad_{number:05d}" for number in range(NUM_BAD)}
    assert not [row for row in found["listed"] if row["file"] == "000001.tar"]


def train_options(shards: Path, out: Path, *, batch_size: int) -> list[object]:
    options: list[object] = [
        "demo",
        "--shards",
        shards,
        "--init",
        WEIGHTS / "clip",
        "--gpus",
        0,
        "--out",
        out,
    ]
    settings = ("pairs=baseline", "epochs=null", "steps=10", f"batch_size={batch_size}", "warmup_fraction=0")
    for section, setting in zip(("loss", "optim", "optim", "optim", "optim"), settings, strict=True):
        options += ["--set", f"{section}.{setting}"]
    return [*options, "--set", "run.workers=0", "--set", "data.num_frames=3"]


def test_training_goes_on_past_bad_samples(shards: Path, tmp_path: Path) -> None:
    report = printed_by(train, *train_options(shards, tmp_path / "run", batch_size=4))
    assert report["counts"]["steps"] == 10
    assert {"damaged_sample", "wrong_members"} <= set(reasons(report))


def test_training_tells_of_a_shard_that_is_damaged(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    data = write_members(folder / "000001.tar", [members_of(number) for number in range(4)]).read_bytes()
    (folder / "000000.tar").write_bytes(bytes([data[0] ^ 1]) + data[1:])
    report = printed_by(train, *train_options(folder, tmp_path / "run", batch_size=2))
    assert report["counts"]["steps"] == 10
    assert set(reasons(report)) == {"unreadable_shard"}
    skipped = (tmp_path / "run" / "skipped.jsonl").read_text()
    assert "damaged tar header at byte 0" in skipped


DAMAGED = damaged_tars(b"\0" * 1024, 0).keys()


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_to_a_tar_is_told_with_its_place(name: str, tmp_path: Path) -> None:
    """The clips before are read; what is lost is never lost in silence."""
    whole = write_members(tmp_path / "000000.tar", [members_of(number) for number in range(3)])
    with ShardFile(whole) as shard:
        spans = list(shard.spans())
    samples = list(read_samples(whole))
    path = tmp_path / "damaged.tar"
    path.write_bytes(damaged_tars(whole.read_bytes(), spans[1].start)[name])
    found: list[Sample | Skip] = []
    message = ""
    try:
        found.extend(read_samples(path))
    except DatasetError as error:
        message = str(error)
    assert found[0] == samples[0]
    assert all(sample in samples for sample in found if isinstance(sample, Sample))
    skips = [sample for sample in found if isinstance(sample, Skip)]
    if message:
        assert message.startswith(f"{path}: not a readable tar file (") and "byte" in message
    else:
        assert found[-1] == samples[2] and skips
    assert len(message.splitlines()) <= 1


def test_a_picture_that_is_too_large_is_left_out_by_the_option(
    shards: Path, model: Path, tmp_path: Path
) -> None:
    encoding = ("--model", model, "--shards", shards, "--device", "cpu", "--bootstrap", 0)
    result = run("retrieval", *encoding, "--max-pixels", 32 * 48 - 1, program=evaluate)
    assert result.exit_code == 1 and "can be used: " in result.stderr
    assert run("retrieval", *encoding, "--max-pixels", 32 * 48, program=evaluate).exit_code == 0


def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    """In a process of its own, of which the most memory is known: 65,500 x 65,500 pixels are 12 GB."""
    bombs = []
    for number, side in enumerate((65_500, 8_000)):
        bombs.append(with_record(claiming(members_of(number), side, side), width=side, height=side))
    write_members(tmp_path / "000000.tar", bombs)
    code = (
        "import sys\n"
        "from clipvip.shards.tar.reader import read_samples\n"
        "from clipvip.shards.errors import DatasetError\n"
        "for sample in read_samples(sys.argv[1]):\n"
        "    try: sample.decode([0]); print('decoded')\n"
        "    except DatasetError as error: print(error)\n"
        "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "000000.tar")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *told, kilobytes = done.stdout.splitlines()
    assert len(told) == 2 and all("claims" in line or "more than" in line for line in told)
    assert int(kilobytes) < 400 << 10


@pytest.mark.parametrize(
    ("extension", "why"), [("mjpg", "KEY.json lacks schema, video_id"), ("mp4", "its video does not decode")]
)
def test_samples_of_other_tools_are_refused_by_what_they_lack(
    extension: str, why: str, tmp_path: Path, model: Path
) -> None:
    """The record is that of another tool, and the pixels are not."""
    folder = tmp_path / "shards"
    folder.mkdir()
    record = json.dumps({"key": "000000000", "caption": "a bird", "status": "success"}).encode()
    write_members(folder / "00000.tar", [{extension: b"x" * 100, "txt": b"a bird", "json": record}] * 3)
    result = run("retrieval", "--model", model, "--shards", folder, "--device", "cpu", program=evaluate)
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert why in line
