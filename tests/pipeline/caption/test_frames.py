"""The command `clipvip-data caption --frames N`: captions of several frames of each clip."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

import clipvip.media.mp4
import commands
from caption_runs import BAD, NUM_SHARDS, caption
from clipvip.media.sampling import middle_index, middles_of_parts
from clipvip.pipeline.caption.frames import LostFrame, wanted_frames
from clipvip.shards.errors import DatasetError
from clipvip.shards.format.captions import read_caption_file, read_captions
from clipvip.shards.tar.reader import list_shards, read_samples, read_shard
from commands import run_well
from make_videos import make_video, write_metadata
from outputs import content, report
from tiny_captioners import KINDS

FRAMES = ("--frames", "2", "--workers", "1")


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blip") / "tiny-blip"
    KINDS["blip"](folder)
    return folder


@pytest.fixture(scope="module")
def of_two(shards: Path, blip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("two") / "captions"
    result = caption(shards, out, blip, *FRAMES)
    assert result.exit_code == 0, result.output
    return out


def own_caption(folder: Path, image: np.ndarray) -> str:
    """By the model's own `generate`, of one picture."""
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    inputs = processor(images=image, return_tensors="pt")
    with torch.inference_mode():
        ids = model.generate(**inputs, num_beams=5, max_new_tokens=16, do_sample=False)
    return " ".join(processor.tokenizer.decode(ids[0], skip_special_tokens=True).split())


def test_parts_have_middles() -> None:
    assert middles_of_parts(10, 1) == [5] == [middle_index(10)]
    assert middles_of_parts(10, 2) == [2, 7]
    assert middles_of_parts(10, 3) == [1, 5, 8]
    assert middles_of_parts(2, 5) == [0, 1]
    for total in range(1, 40):
        assert middles_of_parts(total, 1) == [middle_index(total)]
        for parts in range(1, 12):
            found = middles_of_parts(total, parts)
            assert found == sorted(set(found)) and found[0] >= 0 and found[-1] < total
            assert len(found) == min(parts, total)
            assert parts % 2 == 0 or middle_index(total) in found
    for wrong in ((0, 1), (3, 0)):
        with pytest.raises(ValueError, match=r"\d"):
            middles_of_parts(*wrong)


@pytest.mark.slow
@pytest.mark.parametrize("frames", ["1", "middle"])
def test_one_frame_is_the_middle_one_to_the_byte(
    undisturbed: Path, shards: Path, model: Path, tmp_path: Path, frames: str
) -> None:
    result = caption(shards, tmp_path / "out", model, "--frames", frames, "--workers", "1")
    assert result.exit_code == 0, result.output
    assert content(tmp_path / "out") == content(undisturbed)


@pytest.mark.parametrize("wrong", ["0", "-1", "all", "2.5"])
def test_other_words_are_no_frames(shards: Path, model: Path, tmp_path: Path, wrong: str) -> None:
    result = caption(shards, tmp_path / "out", model, f"--frames={wrong}")
    assert result.exit_code == 2
    assert "neither 'middle' nor a number from 1 on" in result.output
    assert not (tmp_path / "out").exists()


def test_each_frame_has_the_caption_that_the_model_generates(shards: Path, blip: Path, of_two: Path) -> None:
    different = set()
    for path in list_shards(shards)[:2]:
        found = read_caption_file(of_two / f"{path.stem}.parquet").all_captions()
        for sample in read_shard(path):
            expected = [own_caption(blip, frame) for frame in sample.decode([0, 2])]
            assert found[sample.key] == expected
            different |= set(expected)
        assert read_captions(of_two, path.stem) == {key: texts[0] for key, texts in found.items()}
    assert len(different) > 2


def test_whoever_reads_a_shard_is_told_model_and_frame(shards: Path, undisturbed: Path, of_two: Path) -> None:
    path = list_shards(shards)[0]
    texts = read_caption_file(of_two / f"{path.stem}.parquet").all_captions()
    for sample in read_shard(path, captions=[undisturbed, of_two], with_pixels=False):
        of_middle, first, second = sample.captions
        assert (of_middle.model, of_middle.frame) == ("tiny-ofa", 1)
        assert of_middle.text == read_captions(undisturbed, path.stem)[sample.key]
        assert [first.text, second.text] == texts[sample.key]
        assert (first.model, first.frame, second.frame) == ("tiny-blip", 0, 2)
        assert first.revision.startswith("sha256:")
        assert first.options["frames"] == 2 and "frames" not in of_middle.options
        assert [one.seconds for one in sample.captions] == [
            sample.record.frame_seconds[one.frame] for one in sample.captions if one.frame is not None
        ]
    assert all(sample.captions == () for sample in read_shard(path))
    (shards.parent / "none").mkdir()
    with pytest.raises(DatasetError, match=r"no captions of .*make them with"):
        list(read_shard(path, captions=[shards.parent / "none"]))


@pytest.mark.slow
def test_a_damaged_frame_costs_that_frame_alone(shards: Path, blip: Path, tmp_path: Path) -> None:
    """Clips of three frames have no more than three captions, and say of which frame each is."""
    result = caption(shards, tmp_path / "out", blip, "--frames", "5", "--workers", "1")
    assert result.exit_code == 0, result.output
    counts = report(tmp_path / "out")["counts"]
    assert counts == {"clips": 24, "captions": 24 * 3 - 1, "shards": NUM_SHARDS}
    (skip,) = [json.loads(line) for line in (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()]
    assert (skip["reason"], skip["what"]) == ("frame_without_caption", BAD)
    assert skip["detail"].startswith("frame 1: undecodable_frame")
    samples = {
        sample.key: sample for sample in read_shard(shards / "000002.tar", captions=[tmp_path / "out"])
    }
    assert [one.frame for one in samples[BAD].captions] == [0, 2]
    assert [one.frame for one in samples["video2_00000"].captions] == [0, 1, 2]
    assert run_well("verify", shards, "--captions", tmp_path / "out", "--decode", "none")


def test_the_page_shows_the_frames_that_were_captioned(of_two: Path) -> None:
    page = (of_two / "report.html").read_text()
    assert "the frames that were captioned" in page
    shown = page.count("data:image/jpeg")
    assert shown == 2 * 24  # of each clip both; the damaged one is between them
    assert page.count("caption at ") == shown


def test_another_captioner_has_a_folder_of_its_own(shards: Path, blip: Path, of_two: Path) -> None:
    before = content(of_two)
    for other in (("--frames", "3"), ("--frames", "2", "--num-beams", "2")):
        result = caption(shards, of_two, blip, *other)
        assert result.exit_code == 1
        assert "made with other options" in result.output and "another --out" in result.output
    assert caption(shards, of_two, blip, *FRAMES).exit_code == 0
    assert content(of_two) == before


@pytest.mark.slow
def test_a_kill_and_a_second_run_give_the_same_bytes(
    shards: Path, blip: Path, of_two: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = commands.start(
        "caption", "--gpus", 0, "--shards", shards, "--out", out, "--model", blip, *FRAMES
    )
    deadline = time.monotonic() + 60
    while not (out / "000000.parquet").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert (out / "000000.parquet").exists() and not (out / "manifest.json").exists()
    assert caption(shards, out, blip, *FRAMES).exit_code == 0
    assert content(out) == content(of_two)


@pytest.mark.slow
def test_batches_of_any_size_give_the_same_captions(
    shards: Path, blip: Path, of_two: Path, tmp_path: Path
) -> None:
    """A clip's frames may go into several batches."""
    result = caption(shards, tmp_path / "out", blip, *FRAMES, "--batch-size", "3")
    assert result.exit_code == 0, result.output
    assert content(tmp_path / "out") == content(of_two)


def test_a_video_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_video(tmp_path / "videos" / "v.mp4", num_frames=90)
    write_metadata(tmp_path / "clips.jsonl", {"v": [(0, 1), (1, 3)]})
    run_well(
        *("shard", "--metadata", tmp_path / "clips.jsonl", "--videos", tmp_path / "videos"),
        *("--out", tmp_path / "shards", "--store", "video", "--size", 64, "--fps", 10),
    )
    decode, calls = clipvip.media.mp4.decode_mp4, []

    def counted(data: bytes, indices: list[int], **options: int) -> np.ndarray:
        calls.append(indices)
        return decode(data, indices, **options)

    monkeypatch.setattr(clipvip.media.mp4, "decode_mp4", counted)
    shard = tmp_path / "shards" / "000000.tar"
    wanted = list(wanted_frames(read_samples(shard), num_frames=4))
    frames = [frame.decode() for frame in wanted if not isinstance(frame, LostFrame)]
    assert calls == [middles_of_parts(10, 4), middles_of_parts(20, 4)]
    plain: list[np.ndarray] = []
    for sample in read_shard(shard):
        plain += list(sample.decode(middles_of_parts(sample.num_frames, 4)))
    assert len(frames) == 8
    assert all(np.array_equal(frame, other) for frame, other in zip(frames, plain, strict=True))
