"""The command `clipvip-data import-captions`: which row goes to which clip, and what is told of the rest."""

import json
import os
import pickle
import random
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

import clipvip
import commands
from caption_sources import write_lmdb, write_rows
from clipvip.pipeline.import_captions import stage
from clipvip.shards.format.captions import read_caption_file, read_captions
from clipvip.shards.tar.writer import write_shard
from commands import error_of, run, run_well
from make_shards import make_shard_folder, stored_clip
from outputs import content, report, skipped
from resources import need

# Three shards of four clips: video0_00000, whose clip id is video0.0.mp4, to video2_00003.
ROWS = [
    {"key": "video0_00000", "caption": "by key"},
    {"clip_id": "video0.1.mp4", "caption": "by clip id"},
    {"clip_id": "videos/video0.2", "caption": "by clip id without extension"},
    {"key": "another's key", "clip_id": "video1.0.mp4", "captions": ["one", "two", "one"]},
    {"key": "video1_00000", "caption": "three"},
    {"key": "video9_00000", "caption": "of no clip"},
    {"key": "video1_00001", "caption": " "},
    {"caption": "of nobody"},
]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shard_folder(tmp_path_factory.mktemp("world") / "clips", num_shards=3, clips_per_shard=4)


def import_captions(shards: Path, source: Path, out: Path, *options: object) -> Result:
    return run(
        "import-captions", "--shards", shards, "--from", source, "--out", out, "--workers", 1, *options
    )


def captions_in(out: Path) -> dict[str, list[str]]:
    """All captions by key, in the order of files and rows."""
    return {
        key: texts
        for path in sorted(out.glob("*.parquet"))
        for key, texts in read_caption_file(path).all_captions().items()
    }


def test_rows_go_to_their_clips_and_the_others_are_told(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = import_captions(shards, write_rows(tmp_path / "rows.jsonl", ROWS), out, "--made-by", "people")
    assert result.exit_code == 0, result.output
    assert captions_in(out) == {
        "video0_00000": ["by key"],
        "video0_00001": ["by clip id"],
        "video0_00002": ["by clip id without extension"],
        "video1_00000": ["one", "two", "three"],
    }
    assert read_captions(out, "000001") == {"video1_00000": "one"}
    found = report(out)
    assert found["counts"] == {"clips": 12, "captions": 6, "shards": 3, "rows": 8, "rows_without_clip": 3}
    without = [f"video{n}" for n in ("0_00003", "1_00001", "1_00002", "1_00003")]
    without += [f"video2_{n:05d}" for n in range(4)]
    assert skipped(out) == [
        *(("missing_caption", key) for key in without),
        ("no_such_clip", "video9_00000"),
        ("empty_caption", "video1_00001"),
        ("bad_row", "rows.jsonl, line 8"),
    ]
    content = read_caption_file(out / "000000.parquet", with_origins=True)
    (origin,) = content.origins
    assert origin.model == "people" and json.loads(origin.options)["imported"] == ["rows.jsonl"]
    run_well("verify", shards, "--captions", out)
    assert "one" in (out / "report.html").read_text()


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.parquet", "rows.json", "rows.jsonl", "lmdb"])
def test_each_kind_gives_the_same_captions(name: str, shards: Path, tmp_path: Path) -> None:
    texts = {f"video{n}.{k}.mp4": f"clip {k} of {n}" for n in range(3) for k in range(4)}
    if name == "lmdb":
        need("lmdb")
        values = [text.encode() if n % 2 else pickle.dumps(text) for n, text in enumerate(texts.values())]
        source = write_lmdb(tmp_path / name, dict(zip(texts, values, strict=True)))
    else:
        rows = [{"image_id": clip_id, "caption": text} for clip_id, text in texts.items()]
        source = write_rows(tmp_path / name, rows)
    clipvip.import_captions(shards=shards, sources=[source], out=tmp_path / "out", workers=1)
    expected = {f"video{n}_{k:05d}": [f"clip {k} of {n}"] for n in range(3) for k in range(4)}
    assert captions_in(tmp_path / "out") == expected


def test_an_id_of_several_clips_is_nobodys(tmp_path: Path) -> None:
    """Clip ids are unique by custom only; a key goes before a clip id."""
    (tmp_path / "clips").mkdir()
    for shard, video in enumerate(("a", "b")):
        clips = [stored_clip(video, number) for number in range(2)]
        records = [c.record.model_copy(update={"clip_id": f"{n}.mp4"}) for n, c in enumerate(clips)]
        called = [replace(clip, record=record) for clip, record in zip(clips, records, strict=True)]
        write_shard(tmp_path / "clips" / f"{shard:06d}.tar", called)
    rows = [{"id": "0.mp4", "caption": "x"}, {"id": "a_00001", "caption": "y"}]
    result = import_captions(tmp_path / "clips", write_rows(tmp_path / "r.jsonl", rows), tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert captions_in(tmp_path / "out") == {"a_00001": ["y"]}
    assert ("ambiguous_id", "0.mp4") in skipped(tmp_path / "out")


def test_two_spellings_of_a_name_are_one(tmp_path: Path) -> None:
    """As files of macOS and of others have "é"."""
    (tmp_path / "clips").mkdir()
    clip = stored_clip("cafe", 0)
    record = clip.record.model_copy(update={"clip_id": "caf\u00e9.0.mp4"})
    write_shard(tmp_path / "clips" / "000000.tar", [replace(clip, record=record)])
    rows = write_rows(tmp_path / "r.jsonl", [{"clip_id": "cafe\u0301.0.mp4", "caption": "x"}])
    assert import_captions(tmp_path / "clips", rows, tmp_path / "out").exit_code == 0
    assert captions_in(tmp_path / "out") == {"cafe_00000": ["x"]}


def test_two_files_and_several_processes(shards: Path, tmp_path: Path) -> None:
    first = write_rows(tmp_path / "a.jsonl", ROWS[:4])
    second = write_rows(tmp_path / "b.jsonl", ROWS[4:])
    outs = [tmp_path / "one", tmp_path / "two"]
    for out, workers in zip(outs, (1, 2), strict=True):
        sources = ("--from", first, "--from", second)
        run_well("import-captions", "--shards", shards, *sources, "--out", out, "--workers", workers)
    assert content(outs[0]) == content(outs[1])
    assert captions_in(outs[0])["video1_00000"] == ["one", "two", "three"]


def test_a_run_goes_on_where_another_was_stopped(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_rows(tmp_path / "rows.jsonl", ROWS)
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "out"
    assert import_captions(shards, source, undisturbed).exit_code == 0
    with monkeypatch.context() as patch:
        write = stage.write_file

        def stop_at_the_second(task: stage.WriteTask) -> tuple[int, int]:
            if task.number == 1:
                raise KeyboardInterrupt
            return write(task)

        patch.setattr(stage, "write_file", stop_at_the_second)
        assert import_captions(shards, source, out).exit_code == 130
    assert [path.name for path in sorted(out.glob("*.parquet"))] == ["000000.parquet"]
    first = (out / "000000.parquet").stat().st_mtime_ns
    planned = json.loads(import_captions(shards, source, out, "--dry-run", "--json").stdout)
    assert planned["counts"] == {"shards": 3, "shards_done": 1}
    with monkeypatch.context() as patch:
        patch.setattr(stage, "list_clips", None)  # what was found out is kept
        assert import_captions(shards, source, out).exit_code == 0
    assert content(out) == content(undisturbed)
    assert import_captions(shards, source, out).exit_code == 0  # again: nothing changes
    assert content(out) == content(undisturbed)
    assert (out / "000000.parquet").stat().st_mtime_ns == first
    (out / "000001.parquet").unlink()
    assert import_captions(shards, source, out).exit_code == 0
    assert content(out) == content(undisturbed)
    other = write_rows(tmp_path / "rows.jsonl", ROWS[:2])
    assert "made with other options" in error_of(import_captions(shards, other, out))
    assert content(out) == content(undisturbed)


def test_a_shard_that_was_changed_is_captioned_again(shards: Path, tmp_path: Path) -> None:
    clips = Path(shutil.copytree(shards, tmp_path / "clips"))
    (clips / "manifest.json").unlink()
    rows = [*ROWS, {"key": "new_00000", "caption": "of the new shard"}]
    source = write_rows(tmp_path / "rows.jsonl", rows)
    assert import_captions(clips, source, tmp_path / "out").exit_code == 0
    write_shard(clips / "000002.tar", [stored_clip("new", 0, num_frames=2)])
    assert import_captions(clips, source, tmp_path / "out").exit_code == 0
    assert captions_in(tmp_path / "out")["new_00000"] == ["of the new shard"]
    assert import_captions(clips, source, tmp_path / "other").exit_code == 0
    assert content(tmp_path / "out") == content(tmp_path / "other")


@pytest.mark.slow
def test_kills_and_a_last_run_give_the_same_bytes(tmp_path: Path) -> None:
    shards = make_shard_folder(tmp_path / "clips", num_shards=40, clips_per_shard=8)
    rows = [{"key": f"video{n}_{k:05d}", "caption": f"{k} of {n}"} for n in range(40) for k in range(7)]
    words = ("import-captions", "--shards", shards, "--from", write_rows(tmp_path / "rows.jsonl", rows))
    started = time.monotonic()
    assert commands.start(*words, "--out", tmp_path / "undisturbed").wait() == 0
    seconds, moments, out = time.monotonic() - started, random.Random(0), tmp_path / "out"
    for _ in range(6):
        process = commands.start(*words, "--out", out)
        time.sleep(moments.uniform(0.3, 1) * seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert commands.start(*words, "--out", out).wait() == 0
    assert content(out) == content(tmp_path / "undisturbed")


def test_what_cannot_be_used_ends_in_one_line(shards: Path, tmp_path: Path) -> None:
    need("lmdb")
    strangers = write_rows(tmp_path / "strangers.jsonl", [{"key": "nobody", "caption": "x"}])
    code = write_lmdb(tmp_path / "code_db", {"video0.0.mp4": pickle.dumps(os.system)})
    fields = write_rows(tmp_path / "fields.csv", [{"name": "video0_00000", "said": "x"}])
    for source, message in (
        (tmp_path / "absent", "no such file or folder of captions"),
        (
            strangers,
            "no row belongs to a clip: a clip is video0_00000 (clip id video0.0), a row is about 'nobody'",
        ),
        (code, "its value is a pickle that asks for STACK_GLOBAL, which may run code"),
        (fields, "no row has an id and a caption"),
    ):
        assert message in error_of(import_captions(shards, source, tmp_path / f"out-{source.name}"))
    assert not list((tmp_path / "out-code_db").glob("*.parquet"))
    left = {path.name for path in (tmp_path / "out-code_db" / "_state").iterdir()}
    assert left == {"options.json", "lock"}
    out = tmp_path / "out"
    assert (
        import_captions(shards, fields, out, "--id-column", "name", "--caption-column", "said").exit_code == 0
    )
    assert captions_in(out) == {"video0_00000": ["x"]}
    assert "is the folder of the shards" in error_of(import_captions(shards, fields, shards))
    (tmp_path / "damaged").mkdir()
    whole = (shards / "000000.tar").read_bytes()
    (tmp_path / "damaged" / "000000.tar").write_bytes(whole[: len(whole) // 2])
    rows = write_rows(tmp_path / "rows.jsonl", ROWS)
    assert "not a readable tar file" in error_of(import_captions(tmp_path / "damaged", rows, tmp_path / "o"))


def test_several_captions_stay_when_shards_are_copied(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert import_captions(shards, write_rows(tmp_path / "rows.jsonl", ROWS), out).exit_code == 0
    copied = tmp_path / "copied"
    options = ("--captions", out, "--captions-out", tmp_path / "copied-captions", "--workers", 1)
    run_well("subset", shards, "--fraction", 1, "--out", copied, *options)
    assert captions_in(tmp_path / "copied-captions") == captions_in(out)
    shown = json.loads(
        run_well("inspect", shards, "--captions", out, "--key", "video1_00000", "--json").stdout
    )
    assert shown["clips"][0]["captions"] == ["one", "two", "three"]
    counted = json.loads(run_well("stats", shards, "--captions", out, "--workers", 1, "--json").stdout)
    assert counted["captions"]["captions"] == 6
