"""The command `clipvip-data caption`, from shards to captions, with what can go wrong on the way."""

import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from clipvip.media.jpeg import encode_jpeg
from clipvip.model.ofa.captioner import Captioner
from clipvip.pipeline.caption import work as caption_work
from clipvip.pipeline.caption.command import gpu_batch_size
from clipvip.pipeline.cli import main
from clipvip.pipeline.runtime.errors import UserError
from clipvip.shards.format.captions import read_captions
from clipvip.shards.format.manifest import write_manifest
from clipvip.shards.tar.reader import list_shards, read_shard
from clipvip.shards.tar.writer import write_shard
from html_page import HtmlPage
from make_shards import stored_clip
from tiny_ofa import make_ofa

NUM_SHARDS = 4
CLIPS_PER_SHARD = 6
BAD = "video2_00003"
MARKUP = '<script>alert("x")</script> & more'


def caption(shards: Path, out: Path, model: Path | str, *options: str) -> Result:
    arguments = ["caption", "--shards", shards, "--out", out, "--model", model, "--gpus", "0", *options]
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def start(shards: Path, out: Path, model: Path, *options: str) -> "subprocess.Popen[str]":
    """The command in a process group of its own, so that all of it can be killed."""
    command = [
        sys.executable,
        "-c",
        "from clipvip.pipeline.cli import main; main()",
        "caption",
        "--gpus",
        "0",
    ]
    command += ["--shards", str(shards), "--out", str(out), "--model", str(model), *options]
    return subprocess.Popen(
        command, start_new_session=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def content(out: Path) -> dict[str, bytes]:
    """Every file of an output but the report, which alone may differ from run to run."""
    files = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    del files["report.json"]
    return files


def report(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "report.json").read_text())
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_ofa(tmp_path_factory.mktemp("model") / "tiny-ofa")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of coloured blocks, three frames each; the middle frame of one is damaged."""
    folder = tmp_path_factory.mktemp("shards")
    random = np.random.default_rng(0)
    records = []
    for shard in range(NUM_SHARDS):
        clips = []
        for number in range(CLIPS_PER_SHARD):
            blocks = random.integers(0, 256, (3, 3, 4, 3), dtype=np.uint8)
            frames = np.kron(blocks, np.ones((1, 16, 16, 1), np.uint8))
            jpegs = [encode_jpeg(frame, quality=95) for frame in frames]
            clip = stored_clip(f"video{shard}", number, num_frames=3, subtitle=MARKUP)
            if clip.clip.key == BAD:
                jpegs[1] = b"\x00" * len(jpegs[1])
            clips.append(
                replace(clip, pixels=b"".join(jpegs), frame_bytes=tuple(map(len, jpegs)), width=64, height=48)
            )
        records.append(write_shard(folder / f"{shard:06d}.tar", clips))
    write_manifest(folder, stage="shard", options={}, shards=records)
    return folder


@pytest.fixture(scope="module")
def undisturbed(shards: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "captions"
    result = caption(shards, out, model, "--workers", "1")
    assert result.exit_code == 0, result.output
    return out


def test_each_clip_has_the_caption_of_its_middle_frame(undisturbed: Path, shards: Path, model: Path) -> None:
    captioner = Captioner(model, device=torch.device("cpu"), batch_size=1)
    different = set()
    for path in list_shards(shards):
        found = read_captions(undisturbed, path.stem)
        samples = {sample.key: sample for sample in read_shard(path) if sample.key != BAD}
        assert list(found) == list(samples)
        for key, sample in samples.items():
            assert found[key] == captioner.caption([sample.decode([1])[0]])[0]
            different.add(found[key])
    assert len(different) > 4


def test_what_made_the_captions_is_told(undisturbed: Path, model: Path) -> None:
    manifest = json.loads((undisturbed / "manifest.json").read_text())
    assert manifest["stage"] == "caption"
    assert [row["name"] for row in manifest["shards"]] == [f"{n:06d}.parquet" for n in range(NUM_SHARDS)]
    assert [row["samples"] for row in manifest["shards"]] == [6, 6, 5, 6]
    options = manifest["options"]
    assert options["model"] == "tiny-ofa"
    assert len(options["model_sha256"]) == 64
    assert {name: options[name] for name in ("num_beams", "max_length", "image_size", "dtype", "prompt")} == {
        "num_beams": 5,
        "max_length": 16,
        "image_size": 64,
        "dtype": "float32",
        "prompt": " what does the image describe?",
    }


def test_a_frame_that_does_not_decode_is_counted_and_listed(undisturbed: Path) -> None:
    rows = [json.loads(line) for line in (undisturbed / "skipped.jsonl").read_text().splitlines()]
    assert [(row["reason"], row["what"]) for row in rows] == [("undecodable_frame", BAD)]
    found = report(undisturbed)
    assert found["counts"] == {"clips": 24, "captions": 23, "shards": 4}
    assert found["skipped"] == 1
    captions = [text for n in range(NUM_SHARDS) for text in read_captions(undisturbed, f"{n:06d}").values()]
    lengths = [len(text.split()) for text in captions]
    assert found["caption_words"]["mean"] == pytest.approx(np.mean(lengths), abs=1e-3)
    assert (found["caption_words"]["min"], found["caption_words"]["max"]) == (min(lengths), max(lengths))
    duplicates = found["duplicates"]
    assert duplicates["distinct_captions"] == len(set(captions))
    assert duplicates["clips_that_share_a_caption"] == sum(captions.count(text) > 1 for text in captions)
    assert all(captions.count(row["caption"]) == row["count"] > 1 for row in duplicates["most_frequent"])
    assert found["this_run"]["captions"] == 23


def test_the_page_shows_samples_and_needs_no_other_file(undisturbed: Path) -> None:
    page = HtmlPage((undisturbed / "report.html").read_bytes())
    assert page.tags.count("img") == 23
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert page.text.count(MARKUP) == 23
    for caption_text in read_captions(undisturbed, "000001").values():
        assert caption_text in page.text


@pytest.mark.slow
def test_workers_and_batch_size_do_not_change_the_bytes(
    undisturbed: Path, shards: Path, model: Path, tmp_path: Path
) -> None:
    assert caption(shards, tmp_path / "out", model, "--workers", "2", "--batch-size", "5").exit_code == 0
    assert content(tmp_path / "out") == content(undisturbed)


def test_running_again_makes_only_what_is_missing(
    undisturbed: Path, shards: Path, model: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(undisturbed, tmp_path / "out"))
    (out / "000001.parquet").unlink()
    whole = (out / "000002.parquet").read_bytes()
    (out / "000002.parquet").write_bytes(whole[:-10])
    (out / ".000003.parquet.partial").write_bytes(b"half")
    before = (out / "000000.parquet").stat().st_mtime_ns
    assert caption(shards, out, model, "--workers", "1").exit_code == 0
    assert content(out) == content(undisturbed)
    assert report(out)["this_run"]["captions"] == 11
    assert (out / "000000.parquet").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_shard_that_was_made_again_is_captioned_again(
    undisturbed: Path, shards: Path, model: Path, tmp_path: Path
) -> None:
    changed, out = Path(shutil.copytree(shards, tmp_path / "shards")), tmp_path / "out"
    shutil.copytree(undisturbed, out)
    clips = [stored_clip("other", number, num_frames=3) for number in (0, 1, 0)]
    write_shard(changed / "000001.tar", clips)
    (changed / "manifest.json").unlink()
    assert caption(changed, out, model, "--workers", "1").exit_code == 0
    assert list(read_captions(out, "000001")) == ["other_00000", "other_00001"]
    assert report(out)["this_run"]["captions"] == 2
    # The third clip has the key of the first.
    assert report(out)["skipped_by_reason"]["duplicate_key"]["count"] == 1


@pytest.mark.slow
def test_a_kill_and_a_second_run_give_the_same_bytes(
    undisturbed: Path, shards: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = start(shards, out, model, "--workers", "1")
    deadline = time.monotonic() + 60
    while not (out / "000000.parquet").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert (out / "000000.parquet").exists()
    assert not (out / "manifest.json").exists()
    assert caption(shards, out, model, "--workers", "1").exit_code == 0
    assert content(out) == content(undisturbed)


def test_two_runs_at_once_are_refused(undisturbed: Path, shards: Path, model: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(undisturbed, tmp_path / "out"))
    before = content(out)
    with (out / "_state/lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = caption(shards, out, model)
    assert result.exit_code == 1
    assert "another run is writing here" in result.output
    assert content(out) == before


def test_other_options_or_another_model_are_refused(
    undisturbed: Path, shards: Path, model: Path, tmp_path: Path
) -> None:
    other = make_ofa(tmp_path / "tiny-ofa", seed=1)
    before = content(undisturbed)
    cases: list[tuple[Path, tuple[str, ...], str]] = [
        (model, ("--num-beams", "1"), "num_beams: 5 there, 1 asked"),
        (model, ("--max-length", "8"), "max_length"),
        (model, ("--prompt", " what?"), "prompt"),
        (model, ("--image-size", "32"), "image_size"),
        (other, (), "model_sha256"),
    ]
    for folder, options, message in cases:
        result = caption(shards, undisturbed, folder, *options)
        assert result.exit_code == 1
        assert message in result.output
        assert len(result.output.strip().splitlines()) == 1
        assert content(undisturbed) == before


def test_bad_input_is_one_line_and_writes_nothing(shards: Path, model: Path, tmp_path: Path) -> None:
    out, nothing = tmp_path / "out", tmp_path / "nothing"
    copies = {}
    for name in ("vocab.json", "merges.txt", "model.safetensors", "config.json"):
        copies[name] = Path(shutil.copytree(model, tmp_path / f"without-{name}"))
        (copies[name] / name).unlink()
    shape = Path(shutil.copytree(model, tmp_path / "shape"))
    config = json.loads((model / "config.json").read_text())
    (shape / "config.json").write_text(json.dumps(config | {"encoder_ffn_dim": 64}))
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "000000.parquet").write_bytes(b"someone else's")
    cases: list[tuple[Path, Path, Path, tuple[str, ...], str]] = [
        (nothing, out, model, (), "no such folder of shards"),
        (tmp_path, out, model, (), "holds no shards"),
        (shards, shards, model, (), "folder of the shards"),
        (shards, out, nothing, (), "no such folder"),
        (shards, out, shape, (), "shape"),
        (shards, out, model, ("--gpus", "99"), "--gpus 99: this machine shows"),
        (shards, out, model, ("--image-size", "500"), "96 pixels at most"),
        (shards, foreign, model, (), "not of an earlier run"),
        *((shards, out, copy, (), str(copy)) for copy in copies.values()),
    ]
    shards_before = {path: path.read_bytes() for path in shards.iterdir()}
    for source, target, folder, options, message in cases:
        result = caption(source, target, folder, *options)
        assert result.exit_code == 1, (message, result.output)
        assert message in result.output
        assert len(result.output.strip().splitlines()) == 1, result.output
        assert not out.exists()
    assert [path.name for path in foreign.iterdir()] == ["000000.parquet"]
    assert {path: path.read_bytes() for path in shards.iterdir()} == shards_before


def test_a_shard_that_is_no_tar_is_one_line(shards: Path, model: Path, tmp_path: Path) -> None:
    broken, out = Path(shutil.copytree(shards, tmp_path / "shards")), tmp_path / "out"
    (broken / "000001.tar").write_bytes(b"no tar\n" * 100)
    result = caption(broken, out, model)
    assert result.exit_code == 1
    assert "000001.tar: has 700 bytes" in result.output
    assert len(result.output.strip().splitlines()) == 1, result.output
    assert not out.exists()
    (broken / "manifest.json").unlink()
    result = caption(broken, out, model, "--workers", "1")
    assert result.exit_code == 1
    last = result.output.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    assert "000001.tar: not a readable tar file" in last
    assert not (out / "manifest.json").exists()
    assert not (out / "000001.parquet").exists()
    assert not list(out.glob(".*"))


@pytest.mark.slow
def test_shards_of_bad_frames_alone_are_told(model: Path, tmp_path: Path) -> None:
    shards, out = tmp_path / "shards", tmp_path / "out"
    shards.mkdir()
    clips = [stored_clip("video", number) for number in range(3)]
    write_shard(shards / "000000.tar", [replace(c, pixels=b"\x00" * len(c.pixels)) for c in clips])
    result = caption(shards, out, model, "--workers", "1")
    assert result.exit_code == 1
    assert "no frame could be captioned" in result.output
    assert report(out)["skipped_by_reason"]["undecodable_frame"]["count"] == 3
    assert read_captions(out, "000000") == {}


def test_each_worker_has_a_gpu_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caption_work, "CLAIM_SECONDS", 0.3)
    (tmp_path / "_state").mkdir()
    with (tmp_path / "_state/gpu0.lock").open("ab") as of_another_worker:
        fcntl.flock(of_another_worker, fcntl.LOCK_EX)
        assert [caption_work.claim_gpu(tmp_path, 3) for _ in range(2)] == [1, 2]
        with pytest.raises(UserError, match="all 3 GPUs are taken"):
            caption_work.claim_gpu(tmp_path, 3)
    assert caption_work.claim_gpu(tmp_path, 3) == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_many_kills_and_a_last_run_give_the_same_bytes(
    undisturbed: Path, shards: Path, model: Path, tmp_path: Path, seed: int
) -> None:
    started = time.monotonic()
    assert caption(shards, tmp_path / "timed", model, "--workers", "1").exit_code == 0
    seconds, moments, out = time.monotonic() - started, random.Random(seed), tmp_path / "out"
    for attempt in range(4):
        process = start(shards, out, model, "--workers", "2")
        try:
            process.communicate(timeout=moments.uniform(0.5, 2.0) * seconds)
        except subprocess.TimeoutExpired:
            # Every other time only the parent: its workers must not go on writing.
            os.killpg(process.pid, signal.SIGKILL) if attempt % 2 else process.kill()
            process.communicate()
    assert caption(shards, out, model, "--workers", "1").exit_code == 0
    assert content(out) == content(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("cause", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_dies_loses_nothing(shards: Path, model: Path, tmp_path: Path, cause: int) -> None:
    """One that was killed is replaced; a crash is told in one line."""
    out = tmp_path / "out"
    process = start(shards, out, model, "--workers", "1", "--num-beams", "50")
    deadline = time.monotonic() + 60
    while not (out / "000000.parquet").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    # At once: on a quiet machine the other shards take less than half a second together.
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [child for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    assert len(workers) == 1
    os.kill(int(workers[0]), cause)
    _, errors = process.communicate(timeout=120)
    assert "Traceback" not in errors
    if cause == signal.SIGKILL:
        assert process.returncode == 0, errors
    else:
        assert process.returncode == 1
        assert "run it again" in errors.strip().splitlines()[-1]
        assert not list(out.glob(".*"))
        assert caption(shards, out, model, "--workers", "1", "--num-beams", "50").exit_code == 0
    assert len(list(out.glob("*.parquet"))) == NUM_SHARDS


@pytest.mark.parametrize(("gib", "frames"), [(0, 32), (11, 32), (15.8, 64), (39.5, 256), (79.2, 256)])
def test_a_larger_gpu_gets_larger_batches(gib: float, frames: int) -> None:
    assert gpu_batch_size(int(gib * 2**30)) == frames


def test_a_shard_without_a_sample_is_told_of_by_every_command(
    shards: Path, model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    shutil.copy(shards / "000000.tar", folder)
    (folder / "000001.tar").write_bytes(bytes(10_240))
    result = caption(folder, tmp_path / "captions", model, "--workers", "1")
    assert result.exit_code == 0, result.output
    skipped = [
        json.loads(line) for line in (tmp_path / "captions" / "skipped.jsonl").read_text().splitlines()
    ]
    assert skipped == [{"reason": "empty_shard", "what": "000001.tar", "detail": "holds no samples"}]
    checked = CliRunner().invoke(
        main, ["verify", str(folder), "--captions", str(tmp_path / "captions"), "--json"]
    )
    (problem,) = json.loads(checked.stdout)["listed"]
    assert problem["kind"] == "empty_shard" and problem["file"] == "000001.tar"
    assert checked.exit_code == 1
    told = CliRunner().invoke(main, ["stats", str(folder), "--json"])
    assert json.loads(told.stdout)["counts"]["unreadable_shards"] == 1
