"""`clipvip-data filter`: what it finds, what it keeps, and the page that shows it."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

import clipvip
import commands
from clipvip.experiments.demo.run import WEIGHTS
from clipvip.media.sampling import uniform_indices
from clipvip.model import ClipVip
from clipvip.shards.format.captions import write_captions
from clipvip.shards.tar.reader import list_shards, read_shard
from commands import error_of
from filter_folders import ALIKE, clip_of, files_in, run, run_well, videos, write_folder
from html_page import HtmlPage
from plain_clip import shards_by_hand, texts_by_hand


def rows(out: Path) -> dict[str, dict[str, Any]]:
    """Key -> the columns of its clip."""
    tables = [pyarrow.parquet.read_table(path).to_pylist() for path in sorted(out.glob("*.parquet"))]
    return {row["key"]: row for table in tables for row in table}


def listed(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_scores_are_the_models_own(world: Path, known: Path) -> None:
    vip = ClipVip.from_pretrained(world / "model").eval()
    found = rows(known)
    clips = [sample for path in list_shards(world / "clips") for sample in read_shard(path)]
    assert list(found) == [clip.key for clip in clips] and len(found) == 21
    for clip in clips:
        row = found[clip.key]
        frames = clip.decode(uniform_indices(clip.num_frames, vip.config.scored_frames))
        wanted = float(vip.encode_text([clip.subtitle])[0] @ vip.encode_video([frames])[0])
        assert row["score"] == pytest.approx(wanted, abs=1e-5)
        assert row["caption_score"] is None and row["caption_words"] is None
        assert row["words"] == len(clip.subtitle.split())
        assert row["seconds"] == pytest.approx(clip.num_frames / 3)
        assert 0 <= row["motion"] < 30


def test_copies_are_found_and_unrelated_clips_are_not(known: Path) -> None:
    found = rows(known)
    groups = {key: row["duplicates"] for key, row in found.items() if row["duplicates"]}
    assert groups == {
        "clip02_00000": "clip02_00000",
        "again_00000": "clip02_00000",
        "clip05_00000": "clip05_00000",
        "shifted_00000": "clip05_00000",
    }
    assert found["again_00000"]["similar_to"] == "clip02_00000"
    assert found["clip05_00000"]["similar_to"] == "shifted_00000"
    alike = {key for key, row in found.items() if row["similarity"] >= ALIKE}
    assert alike == set(groups)


def test_a_leak_is_reported_by_name(world: Path, known: Path) -> None:
    leaks = [json.loads(line) for line in (known / "leaks.jsonl").read_text().splitlines()]
    told = {(leak["key"], leak["test_set"], leak["item"], leak["by"]) for leak in leaks}
    assert told == {
        ("leaked_00000", "bench", "test0_00000", "video"),
        ("clip03_00000", "bench", "test1_00000", "text"),
    }
    found = rows(known)
    assert {key: row["leak_by"] for key, row in found.items() if row["leak"]} == {
        "leaked_00000": "video",
        "clip03_00000": "text",
    }
    assert found["clip03_00000"]["leak"] == "bench: test1_00000"


@pytest.mark.slow
def test_conditions_change_the_list_alone(world: Path, known: Path, tmp_path: Path) -> None:
    shards, found = world / "clips", rows(known)
    before = files_in(known, but=("report.json", "filter.html", "keep.txt"))
    base = ["--shards", shards, "--out", known, "--duplicate-similarity", ALIKE]
    keep = tmp_path / "keep.txt"

    run_well(*base, "--top", 0.5, "--keep", keep)
    best = sorted(found, key=lambda key: -found[key]["score"])[:10]
    assert listed(keep) == [key for key in found if key in best]

    run_well(*base, "--drop-leaks", "--max-duplicates", 1, "--keep", keep)
    one_of_two = {
        min(pair, key=lambda key: found[key]["score"])
        for pair in (("clip02_00000", "again_00000"), ("clip05_00000", "shifted_00000"))
    }
    assert set(found) - set(listed(keep)) == {"leaked_00000", "clip03_00000"} | one_of_two

    run_well(*base, "--min-words", 5, "--language", "de", "--keep", keep)
    assert listed(keep) == ["shifted_00000"]
    seconds = [row["motion"] for row in found.values()]
    run_well(*base, "--min-motion", float(np.median(seconds)), "--keep", keep)
    assert len(listed(keep)) == 11
    assert files_in(known, but=("report.json", "filter.html", "keep.txt")) == before
    report = json.loads((known / "report.json").read_text())
    assert report["counts"]["kept"] == 11 and sum(report["dropped"].values()) == 10
    assert error_of(run(*base, "--min-score", 1, "--keep", keep)).startswith(
        "Error: none of 21 clips meets all conditions (--min-score 1 drops 21)"
    )
    assert len(listed(keep)) == 11


def test_a_subset_takes_the_list(world: Path, known: Path, tmp_path: Path) -> None:
    keep = tmp_path / "keep.txt"
    options = ["--duplicate-similarity", ALIKE, "--max-duplicates", 1, "--keep", keep]
    run_well("--shards", world / "clips", "--out", known, *options)
    commands.run_well("subset", world / "clips", "--keys", keep, "--out", tmp_path / "few")
    taken = [clip.key for path in list_shards(tmp_path / "few") for clip in read_shard(path)]
    assert taken == listed(keep) and len(taken) == 19


@pytest.mark.slow
def test_captions_are_scored_and_other_captions_score_anew(world: Path, tmp_path: Path) -> None:
    captions, out = tmp_path / "captions", tmp_path / "out"
    captions.mkdir()
    key = "clip00_00000"
    write_captions(
        captions / "000000.parquet", [(key, "a red ball")], alternatives={key: ["a red ball", "it"]}
    )
    options = ["--shards", world / "clips", "--captions", captions, "--out", out, "--model", world / "model"]
    run_well(*options)
    vip = ClipVip.from_pretrained(world / "model").eval()
    clip = next(iter(read_shard(world / "clips/000000.tar")))
    frames = clip.decode(uniform_indices(clip.num_frames, vip.config.scored_frames))
    both = vip.encode_text(["a red ball", "it"]) @ vip.encode_video([frames])[0]
    assert rows(out)[key]["caption_score"] == pytest.approx(float(both.mean()), abs=1e-5)
    assert rows(out)[key]["caption_words"] == 2
    assert rows(out)["clip01_00000"]["caption_score"] is None
    write_captions(captions / "000000.parquet", [("clip01_00000", "blue")])
    result = run(*options[:-2], "--min-caption-score", -1)
    assert "--min-caption-score: the scores of these clips are not known yet; give --model" in error_of(
        result
    )
    run_well(*options, "--min-caption-score", -1)
    assert listed(out / "keep.txt") == ["clip01_00000"]


def test_the_page_shows_columns_cuts_pairs_and_leaks(world: Path, known: Path) -> None:
    options = ["--test", f"bench={world / 'test'}", "--min-words", 5, "--top", 0.5, "--num", 2]
    model = ["--model", world / "model", "--duplicate-similarity", ALIKE]
    run_well("--shards", world / "clips", "--out", known, *model, *options)
    content = (known / "filter.html").read_bytes()
    page = HtmlPage(content)
    for text in (
        "Similarity of clip and subtitle",
        "Similarity to the nearest other clip",
        "Motion (difference of frames, of 255)",
        "--min-words 5 keeps",
        "--min-words 5 drops",
        "--top 0.5 drops",
        ": duplicates",
        ": no duplicates",
        "2 findings; leaks.jsonl lists all.",
        "test1_00000",
        "test0_00000",
    ):
        assert text in page.text, text
    assert content.count(b"<svg") == 5 and b"<script" not in content
    assert content.count(b"data:image/jpeg") >= 5 * 10


def test_damaged_clips_are_passed_over(tmp_path: Path, world: Path) -> None:
    clips = [clip_of(frames, f"v{n}", text="some words") for n, frames in enumerate(videos(4))]
    folder = write_folder(tmp_path / "clips", clips)
    path = folder / "000000.tar"
    data = path.read_bytes()
    # The second clip's pictures are no JPEGs any more.
    path.write_bytes(data.replace(clips[1].pixels, b"\0" * len(clips[1].pixels)))
    (folder / "manifest.json").unlink()
    out = tmp_path / "out"
    result = run_well("--shards", folder, "--out", out, "--model", world / "model", "--min-motion", 0)
    assert "skipped 1: damaged_sample 1" in result.output
    row = rows(out)["v1_00000"]
    assert (row["motion"], row["score"], row["similarity"], row["words"]) == (None, None, None, 2)
    assert listed(out / "keep.txt") == ["v0_00000", "v2_00000", "v3_00000"]


def test_an_index_of_search_is_used_and_not_replaced(world: Path, tmp_path: Path) -> None:
    from clipvip.pipeline.evaluate.cli import main

    shards = shutil.copytree(world / "clips", tmp_path / "clips")
    model = ["--model", world / "model"]
    commands.run_well("search", "--device", "cpu", *model, "--shards", shards, program=main)
    index = shards / "search"
    before = files_in(index)
    options = ["--shards", shards, "--out", tmp_path / "out", "--index", index]
    run_well(*options, *model)
    assert files_in(index) == before and not (tmp_path / "out/embeddings").exists()
    other = ClipVip.from_pretrained(world / "model")
    other.visual_projection.weight.data.mul_(2)
    other.save_pretrained(tmp_path / "other")
    shutil.copy(world / "model/tokenizer.json", tmp_path / "other")
    assert "this index was made by another model" in error_of(run(*options, "--model", tmp_path / "other"))
    assert files_in(index) == before


def test_mistakes_are_one_line(world: Path, known: Path, tmp_path: Path) -> None:
    shards, out = world / "clips", tmp_path / "out"
    base = ["--shards", shards, "--out", out]
    (tmp_path / "empty.txt").write_text("\n")
    for more, line in (
        (["--min-score", 0.1], "--min-score: the scores of these clips are not known yet; give --model"),
        (
            ["--max-duplicates", 1],
            "--max-duplicates: the duplicates of these clips are not known yet; give --model",
        ),
        (["--drop-leaks"], "--drop-leaks: the leaks of these clips are not known yet; give --test"),
        (["--test", "x=nowhere"], "--test x=nowhere: no such folder of shards, or file with a text a line"),
        (["--test", f"../x={shards}"], "--test ../x: give a name of letters"),
        (["--test", f"x={tmp_path / 'empty.txt'}"], "holds no text"),
        (["--captions", tmp_path / "none"], "no such folder of captions"),
        (["--out", shards], "is the folder of the shards"),
    ):
        assert line in error_of(run(*base, *more)), more
    wrong = run("--shards", shards, "--out", known, "--max-duplicates", 1, "--duplicate-similarity", 0.6)
    assert f"near-duplicates were found with {ALIKE}; give --model to find them anew" in error_of(wrong)


def test_a_plain_clip_scores_by_averaged_frames(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--shards", world / "clips", "--out", out, "--num-frames", 4]
    run_well(*options, "--model", WEIGHTS / "clip", "--top", 0.5)
    keys, texts, clips = shards_by_hand(WEIGHTS / "clip", world / "clips", num_frames=4)
    wanted = (texts_by_hand(WEIGHTS / "clip", texts).numpy() * clips).sum(axis=1)
    found = rows(out)
    assert [found[key]["score"] for key in keys] == pytest.approx(wanted.tolist(), abs=1e-5)
    best = sorted(range(len(keys)), key=lambda number: -wanted[number])[: len(keys) // 2]
    assert listed(out / "keep.txt") == [keys[number] for number in sorted(best)]


def copied(known: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(known, tmp_path / "known"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            ["--test", "bench={world}/test", "--drop-leaks"],
            "also found by embeddings; give --model beside --test",
        ),
        (["--model", "{world}/model", "--duplicate-similarity", "0.5"], "give the --test sets again"),
        (["--keep", "list.txt"], "needs a condition to keep clips by"),
        (["--min-words", "1", "--keep", "none/list.txt"], "there is no folder"),
        (["--min-words", "1", "--keep", "{world}/clips/list.txt"], "would lie among the clips"),
        (["--min-words", "1", "--keep", "list.parquet"], "would lie among the clips"),
    ],
)
def test_what_would_lose_something_is_refused(
    world: Path, known: Path, tmp_path: Path, given: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = copied(known, tmp_path)
    before = files_in(out, but=("report.json",))
    result = run("--shards", world / "clips", "--out", out, *(one.format(world=world) for one in given))
    assert result.exit_code and words in result.output
    assert files_in(out, but=("report.json",)) == before


def test_what_is_known_stays_as_it_was_found(world: Path, known: Path, tmp_path: Path) -> None:
    """Without --duplicate-similarity near-duplicates and leaks count as they were found."""
    out = copied(known, tmp_path)
    run_well("--shards", world / "clips", "--out", out, "--max-duplicates", 1)
    assert len(listed(out / "keep.txt")) == 19
    assert "--min-score 1 drops 21" in error_of(
        run("--shards", world / "clips", "--out", out, "--min-score", 1)
    )
    assert not (out / "keep.txt").exists()  # of other conditions


def test_an_index_of_other_shards_is_not_replaced(world: Path, tmp_path: Path) -> None:
    model, index = world / "model", tmp_path / "index"
    clipvip.search(model=str(model), shards=world / "test", index=index)
    before = files_in(index, but=())
    found = run("--shards", world / "clips", "--out", tmp_path / "o", "--model", model, "--index", index)
    assert "is of other shards" in error_of(found) and files_in(index, but=()) == before


def test_captions_that_are_forgotten_lose_no_columns(world: Path, tmp_path: Path) -> None:
    captions = tmp_path / "captions"
    captions.mkdir()
    write_captions(captions / "000000.parquet", [("clip00_00000", "a red ball")])
    options = ["--shards", world / "clips", "--out", tmp_path / "out"]
    run_well(*options, "--captions", captions)
    assert "give --captions again" in error_of(run(*options, "--min-words", 1))
    assert "is given twice" in error_of(run(*options, "--captions", captions, "--captions", captions))


def test_choosing_by_what_no_clip_has_is_told(world: Path, known: Path, tmp_path: Path) -> None:
    out = copied(known, tmp_path)
    options = ["--shards", world / "clips", "--out", out, "--max-duplicates", 1]
    told = (
        "no clip has a caption score, so the first of each group are kept; to choose among them, give --by "
    )
    assert told in run_well(*options, "--by", "caption_score").stderr
    assert "Warning" not in run_well(*options, "--by", "motion").stderr


def test_keys_that_repeat_across_shards_are_told(world: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    for number in range(2):
        shutil.copy(world / "clips" / "000000.tar", shards / f"{number:06d}.tar")
    result = run_well("--shards", shards, "--out", tmp_path / "out", "--top", 0.5, "--by", "seconds")
    assert "have the key of a kept clip in another shard: " in result.stderr


def test_a_list_takes_no_place_of_a_pipe_and_no_language_is_told(world: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "keep.txt"
    os.mkfifo(pipe)
    options = ["--shards", world / "clips", "--out", tmp_path / "out"]
    told = error_of(run(*options, "--min-words", 1, "--keep", pipe))
    assert told == f"Error: --keep {pipe}: is a device or a pipe, not a file; give a file to write to"
    assert pipe.is_fifo() and not (tmp_path / "out").exists()
    result = run(*options, "--language", "")
    assert result.exit_code == 2 and "Invalid value for '--language'" in result.stderr
