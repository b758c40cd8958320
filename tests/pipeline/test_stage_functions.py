"""Stages that measure, look at and copy shards, called from Python: the results are the commands'."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import clipvip
from clipvip.experiments.demo.run import WEIGHTS
from clipvip.model import ClipVip
from clipvip.pipeline.cli import main as data
from clipvip.pipeline.evaluate.cli import main as evaluate
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.report import StageReport
from clipvip.pipeline.runtime.stage import StageFailed
from clipvip.pipeline.tools.verify import VerifyReport
from make_shards import make_shard_folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model") / "vip"
    ClipVip.from_clip(WEIGHTS / "clip", temporal_size=2).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return make_shard_folder(tmp_path / "shards", num_shards=2, clips_per_shard=5)


def without_times(content: dict[str, Any]) -> dict[str, Any]:
    """What is printed or reported, as JSON has it, but for what differs from run to run."""
    if "parts" in content:
        return {name: without_times(part) for name, part in content["parts"].items()}
    plain = json.loads(json.dumps(content))
    return {name: value for name, value in plain.items() if name != "this_run"}


def assert_printed(report: StageReport, program: click.Command, *words: object, exit_code: int = 0) -> None:
    """The command `words` prints the report's text, and with --json its content."""
    plain, as_json = (CliRunner().invoke(program, [*map(str, words), *more]) for more in ((), ("--json",)))
    assert (plain.exit_code, as_json.exit_code) == (exit_code, exit_code), plain.output
    assert plain.stdout == f"{report}\n"
    assert without_times(json.loads(as_json.stdout)) == without_times(report.content)


def files_of(folder: Path) -> dict[str, bytes]:
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if path.name != "report.json"}


def test_retrieval(model: str, shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "eval"
    report = clipvip.retrieval(model=model, shards=shards, dsl=True, device="cpu", bootstrap=20, out=out)
    written = json.loads((out / "retrieval.json").read_text())
    words = ("retrieval", "--model", model, "--shards", shards, "--dsl", "--device", "cpu", "--bootstrap", 20)
    assert_printed(report, evaluate, *words, "--out", out)
    assert json.loads((out / "retrieval.json").read_text()) == written
    assert asdict(report.text_to_video) == written["metrics"]["plain"]["text_to_video"]
    assert report.video_to_text.r5 == written["metrics"]["plain"]["video_to_text"]["r5"]
    assert set(report.scores.metrics) == {"plain", "dsl"} and report.scores.metrics["dsl"].note is not None
    assert report.counts == {"clips": 10} and report.scores.num_clips == 10


def test_multiple_choice(model: str, shards: Path, tmp_path: Path) -> None:
    lines = [{"video": f"video1_{n:05d}", "options": ["a", "b", "c"], "answer": n % 3} for n in range(4)]
    questions = tmp_path / "questions.jsonl"
    questions.write_text("\n".join(map(json.dumps, lines)))
    report = clipvip.multiple_choice(model=model, shards=shards, questions=questions, device="cpu")
    words = ("--model", model, "--shards", shards, "--questions", questions, "--device", "cpu")
    assert_printed(report, evaluate, "multiple-choice", *words)
    assert report.scores.num_questions == 4
    assert report.scores.accuracy == report.content["result"]["accuracy"] == report.scores.num_right / 4
    assert sum(place.answer for place in report.scores.places) == 4


def test_actions(model: str, shards: Path, tmp_path: Path) -> None:
    classes, labels = tmp_path / "classes.txt", tmp_path / "labels.jsonl"
    classes.write_text("walking\nrunning\n")
    rows = [{"video": f"video0_{n:05d}", "label": ("walking", "running")[n % 2]} for n in range(5)]
    labels.write_text("\n".join(map(json.dumps, rows)))
    report = clipvip.actions(
        model=model, shards=shards, classes=classes, labels=labels, prompts=("a {}",), device="cpu"
    )
    words = ("--model", model, "--shards", shards, "--classes", classes, "--labels", labels)
    assert_printed(report, evaluate, "actions", *words, "--prompt", "a {}", "--device", "cpu")
    assert report.classes == ["walking", "running"] and list(report.scores.num_clips) == [3, 2]
    assert report.scores.top1 == report.content["result"]["top1"]
    with pytest.raises(UserError, match=r"put \{\} where the class is to stand"):
        clipvip.actions(model=model, shards=shards, classes=classes, prompts=("no place",))


def test_search(model: str, shards: Path, tmp_path: Path) -> None:
    index, page = tmp_path / "index", tmp_path / "found.html"
    options = clipvip.SearchOptions(
        sentences=("a dog", "rain  falls"),
        model=model,
        shards=shards,
        top=3,
        index=index,
        page=page,
        device="cpu",
    )
    report = clipvip.search(options)
    before = page.read_bytes()
    words = ("--model", model, "--shards", shards, "--top", 3, "--index", index, "--page", page)
    assert_printed(report, evaluate, "search", "a dog", "rain falls", *words, "--device", "cpu")
    assert page.read_bytes() == before
    assert [(clip.sentence, clip.rank) for clip in report.clips] == [
        (sentence, rank) for sentence in ("a dog", "rain falls") for rank in (1, 2, 3)
    ]
    assert [asdict(clip) for clip in report.clips] == report.content["clips"]
    best = report.clips[0]
    assert best.key.startswith(f"{best.video_id}_") and best.text.startswith("words of clip")
    # Without a sentence the command has nothing to say.
    report = clipvip.search(model=model, shards=shards, index=index, device="cpu")
    assert (report.clips, report.text, report.content) == ([], "", {"clips": []})
    result = CliRunner().invoke(evaluate, ["search", *map(str, (*words[:4], *words[6:8])), "--device", "cpu"])
    assert (result.exit_code, result.output) == (0, "")


def test_inspect(shards: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    report = clipvip.inspect(shard=shards, num=3, html=page, workers=1)
    before = page.read_bytes()
    assert_printed(report, data, "inspect", shards, "--num", 3, "--html", page, "--workers", 1)
    assert page.read_bytes() == before
    assert [clip.key for clip in report.clips] == [clip["key"] for clip in report.content["clips"]]
    assert report.clips[0].record is not None and report.clips[0].record.width == 48
    (clip,) = clipvip.inspect(shard=shards, keys=("video1_00002",)).clips
    assert (clip.path.name, clip.problem, report.damage) == ("000001.tar", "", [])


def test_stats(shards: Path, tmp_path: Path) -> None:
    report = clipvip.stats(folder=shards, out=tmp_path / "a", num=2, workers=1)
    words = ("stats", shards, "--out", tmp_path / "b", "--num", 2, "--workers", 1)
    assert_printed(report, data, *words)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert (report.num_videos, report.tally.frames.total, report.skipped) == (2, 90, {})


def test_verify(shards: Path, tmp_path: Path) -> None:
    report = clipvip.verify(folder=shards, decode="2", workers=1)
    assert_printed(report, data, "verify", shards, "--decode", 2, "--workers", 1)
    assert report.counts["clips_decoded"] == 4 and not report.findings.counts
    (shards / "000001.tar").write_bytes(b"no tar" * 1000)
    with pytest.raises(StageFailed, match="--repair removes what is broken") as failure:
        clipvip.verify(folder=shards, decode="none", workers=1, out=tmp_path / "out")
    found = failure.value.report
    assert json.loads((tmp_path / "out/verify.json").read_text()) == found.content
    assert_printed(found, data, "verify", shards, "--decode", "none", "--workers", 1, exit_code=1)
    assert isinstance(found, VerifyReport)
    assert found.broken == ["000001.tar"] and found.removed == []
    assert {problem.kind for problem in found.findings.listed} == set(found.findings.counts)


def test_merge(shards: Path, tmp_path: Path) -> None:
    report = clipvip.merge(folders=(shards,), out=tmp_path / "a", shard_size=4, workers=1)
    words = ("merge", shards, "--shard-size", 4, "--workers", 1)
    assert_printed(report, data, *words, "--out", tmp_path / "a")
    planned = clipvip.merge(folders=(shards, shards), out=tmp_path / "c", duplicates="first", dry_run=True)
    assert planned.counts == {"clips": 10, "clips_to_choose_from": 20} and not (tmp_path / "c").exists()
    assert CliRunner().invoke(data, [*map(str, words), "--out", str(tmp_path / "b")]).exit_code == 0
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    with pytest.raises(UserError, match="folders: give at least one"):
        clipvip.merge(folders=(), out=tmp_path / "d")
    with pytest.raises(UserError, match="--captions and --captions-out go together"):
        clipvip.merge(folders=(shards,), out=tmp_path / "d", captions=(tmp_path,))


def test_split(shards: Path, tmp_path: Path) -> None:
    report = clipvip.split(
        folder=shards, out=tmp_path / "a", parts=(("one", 0.5), ("two", 0.5)), seed=1, workers=1
    )
    words = ("split", shards, "--part", "one=0.5", "--part", "two=0.5", "--seed", 1, "--workers", 1)
    assert_printed(report, data, *words, "--out", tmp_path / "a")
    assert {name: part.counts["clips"] for name, part in report.parts.items()} == {"one": 5, "two": 5}
    assert CliRunner().invoke(data, [*map(str, words), "--out", str(tmp_path / "b")]).exit_code == 0
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    for parts in ((("one", 1.5),), (("a/b", 0.5),)):
        with pytest.raises(UserError, match="write NAME=FRACTION"):
            clipvip.split(folder=shards, out=tmp_path / "c", parts=parts)


def test_subset(shards: Path, tmp_path: Path) -> None:
    report = clipvip.subset(folder=shards, out=tmp_path / "a", num=4, seed=7, workers=1)
    words = ("subset", shards, "--num", 4, "--seed", 7, "--workers", 1)
    assert_printed(report, data, *words, "--out", tmp_path / "a")
    assert report.counts["clips"] == 4
    assert CliRunner().invoke(data, [*map(str, words), "--out", str(tmp_path / "b")]).exit_code == 0
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    with pytest.raises(UserError, match="give one of --num, --fraction"):
        clipvip.subset(folder=shards, out=tmp_path / "c")
