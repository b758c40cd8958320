"""The command `clipvip-data inspect`: clips as text, as JSON and as a page."""

import base64
import io
import json
import random
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import commands
from clipvip.shards.format.captions import write_captions
from clipvip.shards.format.manifest import write_manifest
from clipvip.shards.tar.reader import list_shards, read_shard
from clipvip.shards.tar.writer import write_shard
from html_page import HtmlPage
from make_shards import changed, stored_clip

UGLY = '<img src="http://tracker.example/x.png"> \x1b]0;title\x07 & so on'


run = partial(commands.run, "inspect")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "clips"
    folder.mkdir()
    records = []
    for shard in range(3):
        clips = [stored_clip(f"v{shard}", n, subtitle=f"words {n}") for n in range(5)]
        if shard == 1:
            clips[2] = changed(clips[2], subtitle=UGLY)
            clips[3] = replace(clips[3], pixels=b"\0" * len(clips[3].pixels))
        records.append(write_shard(folder / f"{shard:06d}.tar", clips))
    write_manifest(folder, stage="shard", options={}, shards=records)
    return folder


@pytest.fixture(scope="module")
def captions(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captions")
    for path in list_shards(shards):
        rows = [(sample.key, f"picture of {sample.key}") for sample in read_shard(path)]
        write_captions(folder / f"{path.stem}.parquet", rows)
    return folder


def test_clips_from_all_over_are_shown(shards: Path, captions: Path) -> None:
    result = run(shards, "--num", 6, "--captions", captions)
    assert result.exit_code == 0
    shown = re.findall(r"^(\d+\.tar)  (\S+)  ", result.stdout, re.MULTILINE)
    assert shown == [(f"00000{s}.tar", f"v{s}_{n:05d}") for s in range(3) for n in (1, 3)]
    assert "  text      words 3\n  caption   picture of v0_00003\n" in result.stdout
    assert "30.00 to 33.00 s of v0, 9 frames, 48x32, " in result.stdout
    assert len(run(shards, "--num", 2).stdout.splitlines()) == 4
    assert len(json.loads(run(shards / "000001.tar", "--num", 99, "--json").stdout)["clips"]) == 5


def test_one_clip_is_found_by_its_key(shards: Path, captions: Path) -> None:
    result = run(shards, "--key", "v2_00003", "--key", "v0_00001", "--json", "--captions", captions)
    rows = json.loads(result.stdout)["clips"]
    assert [(row["shard"], row["key"], row["caption"]) for row in rows] == [
        ("000000.tar", "v0_00001", "picture of v0_00001"),
        ("000002.tar", "v2_00003", "picture of v2_00003"),
    ]
    assert rows[0]["record"]["span_seconds"] == [10.0, 13.0]


def test_text_of_others_moves_no_cursor(shards: Path) -> None:
    output = run(shards, "--key", "v1_00002").stdout
    assert "tracker.example" in output
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", output)


def test_the_page_shows_frames_and_escapes_text(shards: Path, captions: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    keys = ("--key", "v1_00001", "--key", "v1_00002", "--key", "v1_00003")
    result = run(shards, *keys, "--captions", captions, "--html", page, "--frames", 3, "--workers", 1)
    assert result.exit_code == 0, result.output
    text = page.read_text()
    assert len(HtmlPage(text.encode()).sources) == 6
    assert '<img src="http' not in text
    assert "&lt;img src=&#34;http://tracker.example/x.png&#34;&gt;" in text
    assert "picture of v1_00002" in text
    assert "frame 1 is not a readable JPEG" in text
    pictures = [base64.b64decode(data) for data in re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text)]
    assert len(pictures) == 6
    expected = next(s for s in read_shard(shards / "000001.tar") if s.key == "v1_00001").decode([1, 4, 7])
    for data, frame in zip(pictures[:3], expected, strict=True):
        found = np.asarray(Image.open(io.BytesIO(data)), np.int16)
        assert np.abs(found - frame).max() < 12


def test_damaged_shards_are_shown_as_far_as_they_go(shards: Path, tmp_path: Path) -> None:
    generator = random.Random(0)
    path = tmp_path / "000000.tar"
    intact = (shards / path.name).read_bytes()
    for round_number in range(20):
        data = bytearray(intact)
        for _ in range(20):
            data[generator.randrange(len(data))] = generator.randrange(256)
        path.write_bytes(bytes(data))
        page = ("--html", tmp_path / "page.html", "--workers", 1) if round_number < 3 else ()
        result = run(path, *page)
        assert result.exit_code == 0 or result.stderr.splitlines()[-1].startswith("Error: ")


def test_it_is_said_where_a_shard_is_damaged(shards: Path, tmp_path: Path) -> None:
    path = tmp_path / "000000.tar"
    intact = (shards / path.name).read_bytes()
    path.write_bytes(intact[: len(intact) // 2])
    shown = run(path, "--json")
    content = json.loads(shown.stdout)
    assert shown.exit_code == 0 and 0 < len(content["clips"]) < 5
    assert [f"note: {line}" for line in content["damage"]] == shown.stderr.splitlines()
    assert len(content["damage"]) == 1 and content["damage"][0].startswith(f"{path}: ")
    assert run(path, "--key", "v0_00000").stderr == shown.stderr
    whole = run(shards / "000000.tar", "--json")
    assert json.loads(whole.stdout)["damage"] == [] and not whole.stderr


def test_a_clip_is_found_wherever_it_is(shards: Path, tmp_path: Path) -> None:
    for number, path in enumerate(list_shards(shards)):
        (tmp_path / path.name).write_bytes(path.read_bytes() if number == 2 else b"no tar")
    content = json.loads(run(tmp_path, "--num", 1, "--json").stdout)
    assert [clip["shard"] for clip in content["clips"]] == ["000002.tar"] and len(content["damage"]) == 2


def test_bad_arguments_are_one_line(shards: Path, captions: Path, tmp_path: Path) -> None:
    (tmp_path / "text.tar").write_text("no tar")
    for arguments, words in (
        ((tmp_path / "nowhere",), "no such shard or folder"),
        ((tmp_path / "text.tar",), "has no readable clip"),
        ((shards, "--key", "other_00000"), "has no clip 'other_00000'"),
        ((shards, "--captions", tmp_path / "none"), "no such folder of captions"),
        ((shards, "--captions", tmp_path), "no captions for this shard"),
    ):
        result = run(*arguments)
        assert result.exit_code == 1
        assert words in result.stderr.splitlines()[-1]
