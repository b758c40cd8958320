"""The command `clipvip-data caption`, from shards to captions, with what can go wrong on the way."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from caption_runs import BAD, CLIPS_PER_SHARD, MARKUP, NUM_SHARDS, caption
from clipvip.model.ofa.captioner import Captioner
from clipvip.pipeline.cli import main
from clipvip.shards.format.captions import read_captions
from clipvip.shards.tar.reader import list_shards, read_shard
from clipvip.shards.tar.writer import write_shard
from html_page import HtmlPage
from make_shards import stored_clip
from outputs import content, report
from tiny_ofa import make_ofa


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
    captions = read_captions(undisturbed, "000001")
    assert len(captions) == CLIPS_PER_SHARD
    for caption_text in captions.values():
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
        (shards, out, model, ("--gpus", "99"), "--gpus 99: torch finds"),
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


@pytest.mark.slow
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
