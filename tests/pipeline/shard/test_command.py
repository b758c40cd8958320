"""The command `clipvip-data shard`, from videos to shards, and what it refuses."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset

from clipvip.shards.tar.reader import list_shards, read_shard
from make_videos import make_video, read_number, write_metadata
from outputs import content, report, samples, skipped
from shard_folders import SECONDS, shard


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos of four seconds whose frames show their numbers, a broken one and one that is no video."""
    folder = tmp_path_factory.mktemp("videos")
    first = make_video(folder / "v0.mp4", num_frames=120)
    for number in range(1, 6):
        shutil.copy(first, folder / f"v{number}.mp4")
    (folder / "broken.mp4").write_bytes(first.read_bytes()[:500])
    (folder / "text.webm").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def metadata(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips of each video: 36 in all, of which 24 can be had."""
    names = ["v0", "v1", "broken", "v2", "missing", "v3", "text", "v4", "v5"]
    return write_metadata(
        tmp_path_factory.mktemp("metadata") / "clips.jsonl", {name: SECONDS for name in names}
    )


@pytest.fixture(scope="module")
def undisturbed(metadata: Path, videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    result = shard(metadata, videos, out, "--shard-size", "8", "--workers", "1")
    assert result.exit_code == 0, result.output
    return out


def test_the_shards_hold_what_was_asked(undisturbed: Path) -> None:
    found = samples(undisturbed)
    assert list(found) == [f"v{v}_{n:05d}" for v in range(6) for n in range(4)]
    for key, sample in found.items():
        first = 30 * int(key[-5:])
        assert [read_number(picture) for picture in sample.decode(range(3))] == [
            first,
            first + 10,
            first + 20,
        ]
        assert sample.num_frames == 3
        assert sample.subtitle == ""
    # The last shard but one lost half its clips, and the clips around stayed where they were planned.
    assert [path.name for path in list_shards(undisturbed)] == [f"{n:06d}.tar" for n in range(5)]
    assert [sum(1 for _ in read_shard(path)) for path in list_shards(undisturbed)] == [8, 4, 4, 4, 4]


def test_what_was_left_out_is_counted_and_listed(undisturbed: Path) -> None:
    expected = [("undecodable_video", f"broken.{n}.mp4") for n in range(4)]
    expected += [("missing_video", f"missing.{n}.mp4") for n in range(4)]
    expected += [("undecodable_video", f"text.{n}.mp4") for n in range(4)]
    assert skipped(undisturbed) == expected
    found = report(undisturbed)
    assert found["counts"]["clips"] == 24
    assert found["counts"]["clips_without_subtitle"] == 24
    assert found["counts"]["frames"] == 72
    assert {reason: row["count"] for reason, row in found["skipped_by_reason"].items()} == {
        "undecodable_video": 8,
        "missing_video": 4,
    }


def test_plain_webdataset_and_tar_open_them(undisturbed: Path) -> None:
    path = list_shards(undisturbed)[0]
    found = list(webdataset.WebDataset(str(path), shardshuffle=False).decode())
    assert [sample["__key__"] for sample in found][:2] == ["v0_00000", "v0_00001"]
    assert found[0]["json"]["span_seconds"] == [0.0, 1.0]
    listing = subprocess.run(["tar", "-tf", str(path)], capture_output=True, text=True, check=True)
    assert len(listing.stdout.split()) == 3 * 8


def test_more_workers_give_the_same_bytes(
    undisturbed: Path, metadata: Path, videos: Path, tmp_path: Path
) -> None:
    assert shard(metadata, videos, tmp_path, "--shard-size", "8", "--workers", "3").exit_code == 0
    assert content(tmp_path) == content(undisturbed)


def test_running_again_makes_only_what_is_missing(
    undisturbed: Path, metadata: Path, videos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    (out / "000001.tar").unlink()
    (out / ".000003.tar.partial").write_bytes(b"half")
    (out / "_state/000002.json").unlink()
    before = (out / "000000.tar").stat().st_mtime_ns
    assert shard(metadata, videos, out, "--shard-size", "8", "--workers", "1").exit_code == 0
    assert content(out) == content(undisturbed)
    assert report(out)["this_run"]["clips"] == 16
    assert (out / "000000.tar").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fps", "6"], "fps: 3.0 there, 6.0 asked"),
        (["--size", "128"], "size"),
        (["--store", "video"], "store"),
        (["--quality", "50"], "quality"),
        (["--max-frames", "2"], "max_frames"),
        (["--shard-size", "9"], "shard_size"),
    ],
)
def test_other_options_on_the_same_folder_are_refused(
    undisturbed: Path, metadata: Path, videos: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    before = content(undisturbed)
    result = shard(
        metadata,
        videos,
        undisturbed,
        *(["--shard-size", "8"] if "--shard-size" not in options else []),
        *options,
    )
    assert result.exit_code == 1
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert content(undisturbed) == before


def test_other_metadata_on_the_same_folder_is_refused(
    undisturbed: Path, videos: Path, tmp_path: Path
) -> None:
    other = write_metadata(tmp_path / "other.jsonl", {"v0": SECONDS})
    result = shard(other, videos, undisturbed, "--shard-size", "8")
    assert result.exit_code == 1
    assert "metadata_sha256" in result.output


def test_a_folder_of_foreign_shards_is_not_touched(metadata: Path, videos: Path, tmp_path: Path) -> None:
    (tmp_path / "000000.tar").write_bytes(b"someone else's")
    result = shard(metadata, videos, tmp_path)
    assert result.exit_code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["000000.tar"]


def test_bad_input_is_one_line_and_writes_nothing(metadata: Path, videos: Path, tmp_path: Path) -> None:
    out, nothing, a_file = tmp_path / "out", tmp_path / "nothing", tmp_path / "file"
    a_file.write_text("")
    cases: list[tuple[Sequence[Any], str]] = [
        ((nothing, videos, out), "no such metadata file"),
        ((metadata, nothing, out), "no such folder of videos"),
        ((metadata, videos, out, "--subtitles", str(nothing)), "no such file or folder"),
        ((a_file, videos, out), "lists no clips"),
        ((metadata, videos, a_file / "out"), "not a directory"),
        ((metadata, videos, out, "--quality", "0"), "--quality 0"),
        ((metadata, videos, out, "--store", "video", "--quality", "52"), "--quality 52"),
    ]
    for arguments, message in cases:
        result = shard(*arguments)
        assert result.exit_code == 1, arguments
        assert message in result.output
        assert len(result.output.strip().splitlines()) == 1, result.output
        assert not out.exists()
    for option in (["--fps", "0"], ["--fps", "nan"], ["--size", "2"], ["--workers", "0"], ["--store", "gif"]):
        result = shard(metadata, videos, out, *option)
        assert result.exit_code == 2
        assert option[0] in result.output.splitlines()[-1]
        assert not out.exists()


def test_subtitles_of_a_folder_are_cut_to_the_spans(videos: Path, metadata: Path, tmp_path: Path) -> None:
    subtitles = tmp_path / "subtitles"
    subtitles.mkdir()
    cues = "\n".join(f"00:00:0{n}.100 --> 00:00:0{n}.900\nwords of second {n}\n" for n in range(4))
    (subtitles / "v0.vtt").write_text(f"WEBVTT\n\n{cues}")
    (subtitles / "v1.vtt").write_bytes(b"\x00\x01 no subtitles")
    out = tmp_path / "out"
    assert shard(metadata, videos, out, "--subtitles", str(subtitles), "--workers", "1").exit_code == 0
    found = samples(out)
    assert [found[f"v0_{n:05d}"].subtitle for n in range(4)] == [f"words of second {n}" for n in range(4)]
    assert {sample.subtitle for key, sample in found.items() if not key.startswith("v0")} == {""}
    assert report(out)["counts"]["clips_without_subtitle"] == 20
    assert report(out)["subtitle_warnings"]["count"] == 1
    assert "v1.vtt" in report(out)["subtitle_warnings"]["examples"][0]


def test_subtitles_of_a_table_go_by_clip_id(videos: Path, metadata: Path, tmp_path: Path) -> None:
    table = tmp_path / "texts.jsonl"
    table.write_text('{"clip_id": "v0.1.mp4", "text": "one"}\n{"clip_id": "v5.3.mp4", "text": "two"}\n')
    out = tmp_path / "out"
    assert shard(metadata, videos, out, "--subtitles", str(table), "--workers", "1").exit_code == 0
    texts = {key: sample.subtitle for key, sample in samples(out).items() if sample.subtitle}
    assert texts == {"v0_00001": "one", "v5_00003": "two"}


def test_store_video_holds_the_same_pictures(
    undisturbed: Path, videos: Path, metadata: Path, tmp_path: Path
) -> None:
    result = shard(metadata, videos, tmp_path, "--shard-size", "8", "--store", "video", "--workers", "1")
    assert result.exit_code == 0, result.output
    found, as_frames = samples(tmp_path), samples(undisturbed)
    assert list(found) == list(as_frames)
    for key, sample in found.items():
        assert sample.extension == "mp4"
        numbers = [read_number(picture) for picture in sample.decode(range(3))]
        assert numbers == [read_number(picture) for picture in as_frames[key].decode(range(3))]


@pytest.mark.needs_shared
def test_all_real_files(shared_dir: Path, tmp_path: Path) -> None:
    rows = json.loads((shared_dir / "data/videos/manifest.json").read_text())
    names = {Path(row["file"]).stem: row for row in rows}
    clips = {name: [(0, 0.9), ("00:00:01.000", "00:00:02.500")] for name in names}
    listed = write_metadata(tmp_path / "clips.jsonl", clips)
    out = tmp_path / "out"
    options = ("--subtitles", str(shared_dir / "data/subtitles"), "--shard-size", "16", "--workers", "2")
    result = shard(listed, shared_dir / "data/videos", out, *options)
    assert result.exit_code == 0, result.output
    found = samples(out)
    assert len(found) + len(skipped(out)) == 2 * len(rows)
    kept = {sample.record.video_id for sample in found.values()}
    assert kept == {name for name, row in names.items() if row["decoded_frames"]}
    for sample in found.values():
        row = names[sample.record.video_id]
        size = (row["width"], row["height"])
        upright = size if row["rotation"] % 180 == 0 else size[::-1]
        assert (sample.record.source_width > sample.record.source_height) == (upright[0] > upright[1])
        low, high = sample.record.span_seconds
        assert all(low <= seconds < high for seconds in sample.record.frame_seconds)
        assert np.asarray(sample.middle_frame()).shape == (sample.record.height, sample.record.width, 3)
    assert found["friday_00001"].subtitle or found["friday_00000"].subtitle
