"""The commands merge, split and subset: the bytes they write, what comes along, and what they refuse."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

from clipvip.shards.format.captions import read_captions
from clipvip.shards.tar.reader import list_shards
from commands import run
from cut_folders import CLIPS_PER_VIDEO, CUT, NUM_VIDEOS, make_folder, must
from make_shards import make_shard_folder
from make_videos import make_video, write_metadata
from outputs import content, samples
from tiny_ofa import make_ofa


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("shards") / "clips", 0, NUM_VIDEOS)


@pytest.fixture(scope="module")
def more_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("more") / "clips", 100, 3)


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    """The command `caption` but for its folders."""
    model = make_ofa(tmp_path_factory.mktemp("model") / "tiny-ofa")
    return ("caption", "--model", model, "--gpus", 0, "--num-beams", 1, "--max-length", 4)


@pytest.fixture(scope="module")
def captions(shards: Path, captioner: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("captions") / "captions"
    must(*captioner, "--shards", shards, "--out", out)
    return out


def test_a_subset_of_all_is_the_same_bytes(shards: Path, tmp_path: Path) -> None:
    must("subset", shards, "--fraction", 1, "--out", tmp_path / "all")
    for path in list_shards(shards):
        assert (tmp_path / "all" / path.name).read_bytes() == path.read_bytes()
    must("verify", tmp_path / "all")


def test_merged_shards_are_the_same_files_under_new_numbers(
    shards: Path, more_shards: Path, tmp_path: Path
) -> None:
    must("merge", shards, more_shards, "--out", tmp_path / "out")
    given = [path.read_bytes() for folder in (shards, more_shards) for path in list_shards(folder)]
    assert [path.read_bytes() for path in list_shards(tmp_path / "out")] == given
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    inputs = [hashlib.sha256((f / "manifest.json").read_bytes()).hexdigest() for f in (shards, more_shards)]
    assert manifest["options"].pop("made_by")["inputs"] == inputs
    assert manifest["options"] == {**CUT, "shard_size": 6}
    must("verify", tmp_path / "out")


def test_what_does_not_go_together_is_refused_unless_told(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    other = make_folder(tmp_path / "other", 8, 4, fps=5.0)  # two of these videos are in `shards` too
    result = run("merge", shards, other, "--out", out)
    assert result.exit_code == 1
    assert "was cut with fps 5.0" in result.stderr.splitlines()[-1]
    result = run("merge", shards, other, "--mixed-options", "--out", out, "--workers", 1)
    assert result.exit_code == 1
    assert "clip video" in result.stderr.splitlines()[-1] and "--duplicates first" in result.stderr
    assert not out.exists()
    must("merge", shards, other, "--mixed-options", "--duplicates", "first", "--out", out)
    assert set(samples(out)) == set(samples(shards)) | set(samples(other))
    assert "fps" not in json.loads((out / "manifest.json").read_text())["options"]
    must("verify", out)


@pytest.mark.slow
def test_captions_come_along_as_if_made_for_the_new_shards(
    shards: Path, captions: Path, captioner: tuple[object, ...], tmp_path: Path
) -> None:
    pair = ("--captions", captions, "--captions-out", tmp_path / "captions")
    must("subset", shards, "--num", 17, *pair, "--out", tmp_path / "clips")
    must(*captioner, "--shards", tmp_path / "clips", "--out", tmp_path / "made")
    copied, made = content(tmp_path / "captions"), content(tmp_path / "made")
    assert copied == made
    assert (
        sum(len(read_captions(tmp_path / "captions", p.stem)) for p in list_shards(tmp_path / "clips")) == 17
    )
    must("verify", tmp_path / "clips", "--captions", tmp_path / "captions")
    # Caption takes the folder for its own, with nothing left to do.
    before = content(tmp_path / "captions")
    must(*captioner, "--shards", tmp_path / "clips", "--out", tmp_path / "captions")
    assert content(tmp_path / "captions") == before


def test_captions_are_merged_and_split_along(shards: Path, captions: Path, tmp_path: Path) -> None:
    parts = ("--part", "a=0.6", "--part", "b=0.4")
    pair = ("--captions", captions, "--captions-out", tmp_path / "split-captions")
    must("split", shards, *parts, *pair, "--out", tmp_path / "split")
    arguments: tuple[object, ...] = ()
    for name in "ab":
        must("verify", tmp_path / "split" / name, "--captions", tmp_path / "split-captions" / name)
        arguments += (tmp_path / "split" / name, "--captions", tmp_path / "split-captions" / name)
    merged = ("--out", tmp_path / "merged", "--captions-out", tmp_path / "merged-captions")
    must("merge", *arguments, *merged)
    must("verify", tmp_path / "merged", "--captions", tmp_path / "merged-captions")

    def all_captions(folder: Path, sidecars: Path) -> dict[str, str]:
        return {k: c for path in list_shards(folder) for k, c in read_captions(sidecars, path.stem).items()}

    assert all_captions(tmp_path / "merged", tmp_path / "merged-captions") == all_captions(shards, captions)


def test_a_damaged_input_is_refused(shards: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shards, tmp_path / "clips"))
    path = folder / "000003.tar"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    for arguments in (
        ("merge", folder, "--out", tmp_path / "merged"),
        ("subset", folder, "--num", 1, "--out", tmp_path / "subset"),
        ("split", folder, "--part", "a=0.5", "--part", "b=0.5", "--out", tmp_path / "split"),
    ):
        result = run(*arguments, "--workers", 1)
        assert result.exit_code == 1
        assert result.stderr.splitlines()[-1].startswith(f"Error: {path}: is not what its manifest says")
    assert not (tmp_path / "subset").exists()
    assert not (tmp_path / "merged" / "000003.tar").exists()
    path.write_bytes((shards / path.name).read_bytes())
    must("merge", folder, "--out", tmp_path / "merged")
    assert len(samples(tmp_path / "merged")) == NUM_VIDEOS * CLIPS_PER_VIDEO


def test_what_is_no_whole_sample_is_left_out_and_listed(shards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    with (
        tarfile.open(shards / "000000.tar") as given,
        tarfile.open(folder / "000000.tar", "w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for member in given:
            if member.name != "video0_00001.txt":
                tar.addfile(member, given.extractfile(member))
    must("subset", folder, "--fraction", 1, "--out", tmp_path / "out")
    assert list(samples(tmp_path / "out")) == [k for k in list(samples(shards))[:6] if k != "video0_00001"]
    (line,) = (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()
    assert (json.loads(line)["reason"], json.loads(line)["what"]) == ("wrong_members", "video0_00001")
    must("verify", tmp_path / "out")


def test_any_bytes_in_place_of_an_input_are_one_line(tmp_path: Path) -> None:
    folder = make_shard_folder(tmp_path / "clips", num_shards=1, clips_per_shard=2, num_frames=1)
    (folder / "manifest.json").unlink()
    intact = (folder / "000000.tar").read_bytes()
    generator = random.Random(0)
    for round_number in range(6):
        changed = bytearray(intact)
        for _ in range(20):
            changed[generator.randrange(len(changed))] = generator.randrange(256)
        (folder / "000000.tar").write_bytes(bytes(changed))
        result = run("subset", folder, "--fraction", 1, "--out", tmp_path / str(round_number), "--workers", 1)
        assert result.exit_code == 0 or result.stderr.splitlines()[-1].startswith("Error: ")


def test_any_number_of_workers_gives_the_same_bytes(shards: Path, captions: Path, tmp_path: Path) -> None:
    for workers in (1, 2):
        pair = ("--captions", captions, "--captions-out", tmp_path / f"captions{workers}")
        options = ("--num", 23, "--shard-size", 5, *pair, "--out", tmp_path / str(workers))
        result = run("subset", shards, *options, "--workers", workers)
        assert result.exit_code == 0, result.output
    assert content(tmp_path / "1") == content(tmp_path / "2")
    assert content(tmp_path / "captions1") == content(tmp_path / "captions2")


def test_other_inputs_or_options_do_not_mix(shards: Path, more_shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    must("subset", shards, "--num", 8, "--out", out)
    before = content(out)
    must("subset", shards, "--num", 8, "--out", out)
    assert content(out) == before
    for arguments in ((shards, "--num", 9), (more_shards, "--num", 8)):
        result = run("subset", *arguments, "--out", out, "--workers", 1)
        assert result.exit_code == 1
        assert "was made with other options" in result.stderr.splitlines()[-1]
    assert content(out) == before


def test_a_dry_run_writes_nothing(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "would take 8 of 40 clips" in must("subset", shards, "--num", 8, "--out", out, "--dry-run")
    assert "would take 40 of 40 clips" in must("merge", shards, "--out", out, "--dry-run")
    assert "would take" in must(
        "split", shards, "--part", "a=0.5", "--part", "b=0.5", "--out", out, "--dry-run"
    )
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("subset", "CLIPS", "--out", "OUT"), 2, "give one of --num"),
        (("subset", "CLIPS", "--out", "OUT", "--num", 3, "--fraction", 0.1), 2, "give one of --num"),
        (("subset", "CLIPS", "--out", "OUT", "--num", 3, "--exclude"), 2, "--exclude goes with"),
        (("subset", "CLIPS", "--out", "OUT", "--num", 41), 1, "the folder has 40 clips; give no more"),
        (("subset", "CLIPS", "--out", "CLIPS", "--num", 3), 1, "is one of the inputs"),
        (("subset", "CLIPS", "--out", "OUT", "--keys", "nowhere"), 1, "no such file"),
        (("subset", "CLIPS", "--out", "OUT", "--num", 3, "--captions", "CLIPS"), 2, "go together"),
        (("subset", "CLIPS", "--out", "OUT", "--num", 3, "--captions", "CLIPS", "--captions-out", "C"), 1,
         "no finished captions"),
        (("split", "CLIPS", "--out", "OUT", "--part", "a=0.5"), 2, "must add up to 1"),
        (("split", "CLIPS", "--out", "OUT", "--part", "../a=0.5", "--part", "b=0.5"), 2, "NAME=FRACTION"),
        (("split", "CLIPS", "--out", "OUT", "--part", "a=0.5", "--part", "a=0.5"), 2, "another name"),
        (("merge", "CLIPS", "nowhere", "--out", "OUT"), 1, "no such folder"),
        (("merge", "CLIPS", "CLIPS", "--captions", "X", "--out", "OUT"), 2, "for each of the 2 folders"),
    ],
)  # fmt: skip
def test_bad_arguments_are_one_line(
    arguments: tuple[object, ...], code: int, words: str, shards: Path, tmp_path: Path
) -> None:
    places = {"CLIPS": shards, "OUT": tmp_path / "out", "C": tmp_path / "c"}
    result = run(*(places.get(str(argument), argument) for argument in arguments))
    assert result.exit_code == code
    assert words in result.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(
    tmp_path: Path, captions: Path, shards: Path
) -> None:
    pair = ("--captions", captions, "--captions-out")
    must("subset", shards, "--num", 33, "--shard-size", 1, *pair, tmp_path / "c", "--out", tmp_path / "s")
    expected = content(tmp_path / "s") | {f"captions/{n}": d for n, d in content(tmp_path / "c").items()}
    out, sidecars = tmp_path / "killed", tmp_path / "killed-captions"
    command = [sys.executable, "-c", "from clipvip.pipeline.cli import main; main()", "subset", str(shards)]
    command += [
        "--num",
        "33",
        "--shard-size",
        "1",
        "--captions",
        str(captions),
        "--captions-out",
        str(sidecars),
    ]
    command += ["--out", str(out), "--workers", "1"]
    generator = random.Random(0)
    num_killed = 0
    for _ in range(2):
        process = subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        there = len(list(out.glob("*.tar")))
        while process.poll() is None and len(list(out.glob("*.tar"))) < there + generator.randrange(1, 9):
            assert time.monotonic() < deadline
            time.sleep(0.002)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        num_killed += not (out / "manifest.json").exists()
    assert num_killed
    must("subset", shards, "--num", 33, "--shard-size", 1, *pair, sidecars, "--out", out)
    assert content(out) | {f"captions/{n}": d for n, d in content(sidecars).items()} == expected


def test_the_stages_own_shards_can_be_taken_apart(tmp_path: Path) -> None:
    """Also where clips are stored as video."""
    make_video(tmp_path / "videos" / "a.mp4", num_frames=90)
    make_video(tmp_path / "videos" / "b.mp4", num_frames=60)
    metadata = write_metadata(
        tmp_path / "clips.jsonl", {name: [(n / 2, n / 2 + 0.5) for n in range(4)] for name in "ab"}
    )
    clips = tmp_path / "clips"
    must("shard", "--metadata", metadata, "--videos", tmp_path / "videos", "--store", "video", "--out", clips)
    must("subset", clips, "--num", 5, "--out", tmp_path / "five")
    must("verify", tmp_path / "five")
    taken, everything = samples(tmp_path / "five"), samples(clips)
    for key, sample in taken.items():
        assert np.array_equal(sample.decode([0]), everything[key].decode([0]))


def test_shards_of_a_captioned_dataset_can_be_checked_and_taken_apart(tmp_path: Path) -> None:
    """Where a clip has several sentences and no subtitle."""
    for number in range(3):
        make_video(tmp_path / "videos" / f"video{number}.mp4", num_frames=30)
    (tmp_path / "rows.csv").write_text("video,caption\nvideo0,one\nvideo1,other\nvideo0,two\nvideo2,last\n")
    source = (
        "--dataset",
        "captions",
        "--annotations",
        tmp_path / "rows.csv",
        "--videos",
        tmp_path / "videos",
    )
    must("shard", *source, "--out", tmp_path / "clips")
    must("verify", tmp_path / "clips")
    must("subset", tmp_path / "clips", "--fraction", 1, "--out", tmp_path / "all")
    must("verify", tmp_path / "all")
    counts = [json.loads((tmp_path / n / "report.json").read_text())["counts"] for n in ("clips", "all")]
    assert [count["clips_without_subtitle"] for count in counts] == [0, 0]
    output = must("inspect", tmp_path / "all")
    assert "  sentence  two\n" in output
