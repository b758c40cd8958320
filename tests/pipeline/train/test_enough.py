"""What is looked at before the first step: whether the samples that can be used are enough."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from batch_plans import batches, plan_of, write_some_captions
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.train.enough import check_samples, look_at
from clipvip.shards.format.captions import write_captions
from clipvip.shards.tar.writer import write_shard
from make_shards import make_shard_folder, stored_clip


def test_usable_samples_are_counted_before_the_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_shard_folder(tmp_path / "clips", num_shards=1, clips_per_shard=8)
    stored = [stored_clip("v", number, subtitle="" if number < 3 else " ") for number in range(8)]
    write_shard(folder / "000000.tar", stored)
    source = {"shards": str(folder)}
    with pytest.raises(UserError) as caught:
        check_samples(plan_of({"clips": source}, tmp_path, batch_size=4))
    assert str(caught.value) == (
        "source clips: 3 of its 8 samples can be used (empty_subtitle 5), and a batch takes 4 of them; "
        "train on captions alone (--set loss.pairs=V-C), or lower optim.batch_size, or give more data"
    )
    check_samples(plan_of({"clips": source}, tmp_path, batch_size=3))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "Warning: source clips: 5 of the 8 samples checked cannot be used (empty_subtitle 5)"
    )
    check_samples(plan_of({"clips": source}, tmp_path, batch_size=3), warns=False)
    captions = tmp_path / "captions"
    captions.mkdir()
    write_captions(captions / "000000.parquet", [(f"v_{n:05d}", "a sight") for n in range(2)])
    source["captions"] = str(captions)
    with pytest.raises(UserError, match=r"2 of its 8 samples can be used \(missing_caption 6\)"):
        check_samples(plan_of({"clips": source}, tmp_path, batch_size=3, pairs="V-C"))
    check_samples(plan_of({"clips": source}, tmp_path, batch_size=3, pairs="d"))
    _, without = capsys.readouterr().err.splitlines()
    assert "6 of the 8 samples checked have no caption" in without


def test_captions_that_name_none_of_a_shards_clips_are_told_of(
    clips: Path, tokenizer: CLIPTokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of earlier versions, or of others, that do not say which shard they were made of."""
    captions = write_some_captions(tmp_path / "captions", set())
    write_captions(captions / "000001.parquet", [("other_00000", "words")])
    source = {"shards": str(clips), "captions": str(captions)}
    plan = plan_of({"clips": source}, tmp_path, pairs="d", batch_size=21)
    check_samples(plan)
    warning = capsys.readouterr().err
    assert "7 of the 21 samples checked have no caption" in warning
    assert "captions_of_another_shard 1" in warning
    (chunk,) = batches(plan, tokenizer, steps=range(1))[0]
    (note,) = chunk.skips
    assert (note.reason, note.what) == ("captions_of_another_shard", "000001.parquet")
    assert chunk.num_rows_without_caption == 7


def test_shards_that_are_given_twice_are_told_of(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = tmp_path / "again"
    shutil.copytree(clips, again)
    check_samples(plan_of({"clips": {"shards": [str(clips), str(again / "000001.tar")]}}, tmp_path))
    assert "shards given more than once: 1; " in capsys.readouterr().err


def test_looking_at_a_large_data_set_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_shard_folder(tmp_path / "clips", num_shards=6, clips_per_shard=5)
    write_shard(folder / "000005.tar", [stored_clip("video5", number, subtitle=" ") for number in range(5)])
    plan = plan_of({"clips": {"shards": str(folder)}}, tmp_path)
    assert (look := look_at(plan.parts[0])).num_seen == 30 and look.lost == {"empty_subtitle": 5}
    monkeypatch.setattr("clipvip.pipeline.train.enough._MOST_SAMPLES", 9)
    monkeypatch.setattr("clipvip.pipeline.train.enough._MOST_SHARDS", 3)
    assert (look := look_at(plan.parts[0])).num_seen == 9 and look.lost == {"empty_subtitle": 3}
    with pytest.raises(UserError, match=r"6 of the 9 samples checked \(of 30\) can be used"):
        check_samples(plan_of({"clips": {"shards": str(folder)}}, tmp_path, batch_size=21))


def spoil_pictures(folder: Path, *, every: int, num_clips: int) -> None:
    """Damage the frames of all clips but each `every`th; records and texts stay right."""
    whole = [stored_clip("v", number) for number in range(num_clips)]
    clips = [
        clip if every and number % every == 0 else replace(clip, pixels=bytes(len(clip.pixels)))
        for number, clip in enumerate(whole)
    ]
    write_shard(folder / "000000.tar", clips)


@pytest.mark.parametrize("most_decoded", [64, 8])
def test_pictures_that_are_damaged_are_found_before_the_first_step(
    most_decoded: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipvip.pipeline.train.enough._MOST_DECODED", most_decoded)
    folder = tmp_path / "clips"
    folder.mkdir()
    source = {"clips": {"shards": str(folder)}}
    spoil_pictures(folder, every=3, num_clips=16)
    check_samples(plan_of(source, tmp_path, batch_size=4))
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be used (damaged_sample " in line and line.startswith("Warning: source clips: ")
    spoil_pictures(folder, every=0, num_clips=16)
    with pytest.raises(UserError, match=r"whose pictures were decoded are damaged \(damaged_sample \d+\)"):
        check_samples(plan_of(source, tmp_path, batch_size=4))
    spoil_pictures(folder, every=1, num_clips=16)
    check_samples(plan_of(source, tmp_path, batch_size=4))
    assert not capsys.readouterr().err


def test_a_shard_without_samples_is_told_of(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "clips"
    shutil.copytree(clips, folder)
    (folder / "manifest.json").unlink()
    (folder / "000003.tar").write_bytes(bytes(10_240))
    check_samples(plan_of({"clips": {"shards": str(folder)}}, tmp_path))
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"Warning: source clips: {folder / '000003.tar'} holds no samples of kind clips"
