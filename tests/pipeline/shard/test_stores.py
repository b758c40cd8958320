"""`clipvip-data shard` with an object store, as source and as output: the same bytes as with a folder."""

import json
import os
import signal
import time
from pathlib import Path

import fsspec
import pytest
from click.testing import Result

from commands import run, start
from make_videos import make_video, write_metadata
from outputs import content, report, skipped
from s3_server import s3_server, use_s3
from shard_folders import shard

pytestmark = pytest.mark.needs("s3fs")
VTT = "WEBVTT\n\n00:00:00.200 --> 00:00:00.800\nhello {}\n"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Four videos with subtitles in a bucket, one in a folder below.

    And the list of their clips beside it.
    """
    bucket = tmp_path / "store" / "bucket"
    for number in range(4):
        folder = bucket / "videos" / ("more" if number == 3 else "")
        folder.mkdir(parents=True, exist_ok=True)
        make_video(folder / f"v{number}.mp4", num_frames=60 + number)
        (bucket / "subtitles").mkdir(exist_ok=True)
        (bucket / "subtitles" / f"v{number}.en.vtt").write_text(VTT.format(number))
    write_metadata(tmp_path / "clips.jsonl", {f"v{number}": [(0, 1), (1, 2)] for number in range(4)})
    return tmp_path / "store"


def from_store(root: Path, out: Path, *options: str) -> None:
    subtitles = ("--subtitles", "s3://bucket/subtitles", "--shard-size", "3")
    result = shard(root / "clips.jsonl", "s3://bucket/videos", out, *subtitles, *options)
    assert result.exit_code == 0, result.output


def test_a_store_gives_the_bytes_that_a_folder_gives(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = store / "bucket"
    local = ("--subtitles", str(bucket / "subtitles"), "--shard-size", "3")
    result = shard(tmp_path / "clips.jsonl", bucket / "videos", tmp_path / "local", *local)
    assert result.exit_code == 0, result.output
    with s3_server(store) as address:
        use_s3(monkeypatch, address)
        from_store(tmp_path, tmp_path / "out", "--workers", "2")
        assert content(tmp_path / "out") == content(tmp_path / "local")
        assert report(tmp_path / "out")["counts"]["clips"] == 8
        (tmp_path / "out" / "000001.tar").unlink()
        from_store(tmp_path, tmp_path / "out", "--workers", "1")
        assert content(tmp_path / "out") == content(tmp_path / "local")
        (bucket / "clips.jsonl").write_bytes((tmp_path / "clips.jsonl").read_bytes())
        (tmp_path / "out" / "000001.tar").unlink()
        result = shard("s3://bucket/clips.jsonl", "s3://bucket/videos", tmp_path / "out", *local)
        assert result.exit_code == 0, result.output
        assert report(tmp_path / "out")["this_run"]["clips"] < 8
    assert content(tmp_path / "out") == content(tmp_path / "local")


@pytest.mark.slow  # the pauses between tries
def test_errors_in_passing_are_tried_again_and_others_are_listed(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = {
        "bucket/videos/v0.mp4": 2,
        "bucket/videos/v1.mp4": 10_000,
        "bucket/subtitles/v2.en.vtt": 10_000,
    }
    with s3_server(store, failures=failures) as address:
        use_s3(monkeypatch, address)
        from_store(tmp_path, tmp_path / "out", "--workers", "1")
    found = report(tmp_path / "out")
    assert found["counts"]["clips"] == 6
    assert skipped(tmp_path / "out") == [("unreachable_video", f"v1.{n}.mp4") for n in range(2)]
    assert found["subtitle_warnings"]["count"] == 1
    assert found["subtitle_warnings"]["examples"][0].startswith("v2.en.vtt: cannot be read")


@pytest.mark.parametrize(
    ("videos", "said"),
    [("s3://bucket/nothing", "s3://bucket/nothing: no such folder"), ("noscheme://x/y", "noscheme://x/y: ")],
)
def test_a_folder_that_is_not_there_is_told_in_one_line(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, videos: str, said: str
) -> None:
    with s3_server(store) as address:
        use_s3(monkeypatch, address)
        result = shard(tmp_path / "clips.jsonl", videos, tmp_path / "out")
    assert result.exit_code == 1
    assert result.output.strip().splitlines()[-1].startswith(f"Error: {said}")
    assert not (tmp_path / "out").exists()


def to_store(root: Path, *options: str, out: str = "s3://bucket/clips") -> Result:
    videos = root / "store" / "bucket" / "videos"
    return shard(root / "clips.jsonl", videos, out, "--shard-size", "3", *options)


def local_twin(root: Path) -> dict[str, bytes]:
    """What the same command makes in a folder, without the lock that stores do not have."""
    videos = root / "store" / "bucket" / "videos"
    result = shard(root / "clips.jsonl", videos, root / "twin", "--shard-size", "3")
    assert result.exit_code == 0, result.output
    files = content(root / "twin")
    del files["_state/lock"]
    return files


@pytest.mark.slow
def test_shards_written_to_a_store_are_those_of_a_folder(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, clips = local_twin(tmp_path), store / "bucket" / "clips"
    with s3_server(store) as address:
        use_s3(monkeypatch, address)
        told = to_store(tmp_path, "--dry-run", "--json")
        assert json.loads(told.stdout)["counts"]["shards_done"] == 0, told.output
        assert not clips.exists()
        result = to_store(tmp_path, "--workers", "2", "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["counts"]["clips"] == 8
        assert content(clips) == expected
        (clips / "000001.tar").unlink()
        (clips / "000002.tar").write_bytes(b"half")
        assert to_store(tmp_path).exit_code == 0
        assert report(clips)["this_run"]["clips"] < 8
        assert content(clips) == expected
        other = to_store(tmp_path, "--size", "64")
        assert (other.exit_code, content(clips)) == (1, expected)
    assert (
        other.output.strip()
        .splitlines()[-1]
        .startswith("Error: s3://bucket/clips was made with other options")
    )


def test_a_file_url_is_a_file_or_folder(store: Path, tmp_path: Path) -> None:
    expected = local_twin(tmp_path)
    places = [store.parent / "clips.jsonl", store / "bucket/videos", tmp_path / "a folder"]
    result = shard(*(place.as_uri() for place in places), "--shard-size", "3")
    assert result.exit_code == 0, result.output
    found = content(tmp_path / "a folder")
    del found["_state/lock"]
    assert found == expected


@pytest.mark.parametrize("option", ["--out", "--videos", "--metadata", "--subtitles"])
def test_the_memory_of_a_process_is_no_place(store: Path, tmp_path: Path, option: str) -> None:
    """Its workers would neither see nor leave anything there."""
    fsspec.filesystem("memory").pipe("/x/v0.mp4", b"x")
    places = {
        "--metadata": tmp_path / "clips.jsonl",
        "--videos": store / "bucket/videos",
        "--out": tmp_path / "out",
    }
    words = [str(word) for pair in (places | {option: "memory://x"}).items() for word in pair]
    result = run("shard", *words)
    assert result.exit_code == 1
    assert result.output.startswith("Error: memory://x: the memory of one process"), result.output
    assert not (tmp_path / "out").exists()


def test_a_table_of_subtitles_in_a_store_is_told(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store / "bucket" / "texts.jsonl").write_text('{"clip_id": "v0.0.mp4", "text": "hello"}\n')
    with s3_server(store) as address:
        use_s3(monkeypatch, address)
        result = to_store(tmp_path, "--subtitles", "s3://bucket/texts.jsonl", out=str(tmp_path / "out"))
    assert (result.exit_code, (tmp_path / "out").exists()) == (1, False)
    assert result.output.startswith("Error: s3://bucket/texts.jsonl: "), result.output


@pytest.mark.slow
@pytest.mark.parametrize("when", ["while shards are made", "between shard and mark"])
def test_a_run_into_a_store_that_was_killed_goes_on(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    expected, clips = local_twin(tmp_path), store / "bucket" / "clips"
    with s3_server(store) as address:
        use_s3(monkeypatch, address)
        places = ("--videos", store / "bucket" / "videos", "--out", "s3://bucket/clips")
        options = ("--metadata", tmp_path / "clips.jsonl", "--shard-size", 3, "--workers", 1)
        process = start("shard", *places, *options)
        wanted = "_state/*.open" if when == "while shards are made" else "000000.tar"
        while not any(clips.glob(wanted)) and process.poll() is None:
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (clips / "report.json").exists()
        result = to_store(tmp_path, "--workers", "2")
    assert result.exit_code == 0, result.output
    assert content(clips) == expected


def test_folders_of_a_store_that_cannot_be_written_to_are_told_in_one_line(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store / "bucket" / "others").mkdir()
    (store / "bucket" / "others" / "000000.tar").write_bytes(b"of somebody")
    with s3_server(store) as address:
        use_s3(monkeypatch, address)
        errors = {
            out: to_store(tmp_path, out=out)
            for out in ("s3://none/x", "s3://bucket/others", "noscheme://x/y")
        }
    for out, result in errors.items():
        assert result.exit_code == 1, result.output
        assert result.output.strip().splitlines()[-1].startswith("Error: "), result.output
        assert out.rpartition("/")[0] in result.output
    assert (store / "bucket" / "others" / "000000.tar").read_bytes() == b"of somebody"


@pytest.mark.slow  # the pauses between tries
def test_writing_is_tried_again(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, clips = local_twin(tmp_path), store / "bucket" / "clips"
    failures = {"bucket/clips/000000.tar": 7, "bucket/clips/_state/000001.json": 1_000}
    with s3_server(store, failures=failures) as address:
        use_s3(monkeypatch, address)
        result = to_store(tmp_path, "--workers", "1")
        assert result.exit_code == 1
        assert result.output.strip().splitlines()[-1].startswith("Error: "), result.output
        assert (clips / "000000.tar").read_bytes() == expected["000000.tar"]
        failures.clear()
    with s3_server(store) as address:
        use_s3(monkeypatch, address)
        assert to_store(tmp_path, "--workers", "1").exit_code == 0
    assert content(clips) == expected
