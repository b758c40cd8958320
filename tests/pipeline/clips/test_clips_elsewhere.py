"""`clipvip-data clips` in a store, and killed: the same list as of a folder, and undisturbed."""

import shutil
import signal
import time
from pathlib import Path

import pytest

from commands import run_well, start
from make_videos import make_video
from s3_server import s3_server, use_s3

VTT = "WEBVTT\n\n00:00:00.200 --> 00:00:00.800\nhello {}.\n\n00:00:01.000 --> 00:00:02.000\nbye\n"


def make_folder(folder: Path, count: int = 4) -> Path:
    for number in range(count):
        below = folder / "videos" / ("more" if number == 3 else "")
        make_video(below / f"v{number}.mp4", num_frames=70 + number)
        (folder / "subtitles").mkdir(exist_ok=True)
        (folder / "subtitles" / f"v{number}.en.vtt").write_text(VTT.format(number))
    (folder / "videos" / "broken.mp4").write_bytes(b"\0" * 100)
    return folder


@pytest.mark.needs("s3fs")
@pytest.mark.parametrize("by", ["pieces", "subtitles"])
def test_a_store_gives_the_list_that_a_folder_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    bucket = make_folder(tmp_path / "store" / "bucket")

    def listed(base: object, out: Path) -> tuple[list[bytes], list[bytes]]:
        subtitles = ("--subtitles", f"{base}/subtitles") if by == "subtitles" else ()
        run_well("clips", f"{base}/videos", "--out", out, "--by", by, *subtitles, "--workers", 2)
        # A store is listed in another order.
        files = (out, out.with_name(f"{out.name}.report") / "skipped.jsonl")
        rows, skips = (sorted(file.read_bytes().splitlines()) for file in files)
        return rows, skips

    local = listed(bucket, tmp_path / "local.jsonl")
    with s3_server(tmp_path / "store") as address:
        use_s3(monkeypatch, address)
        assert listed("s3://bucket", tmp_path / "store.jsonl") == local
        assert listed("s3://bucket", tmp_path / "store.jsonl") == local
    assert len(local[0]) == 4 and len(local[1]) == 1


def test_killed_it_goes_on_to_the_same_list(tmp_path: Path) -> None:
    make_folder(tmp_path)
    original = tmp_path / "videos" / "v0.mp4"
    for number in range(4, 40):
        shutil.copy(original, tmp_path / "videos" / f"v{number}.mp4")
    words = ("clips", tmp_path / "videos", "--workers", 1)
    run_well(*words, "--out", tmp_path / "whole.jsonl")
    out = tmp_path / "clips.jsonl"
    journal = tmp_path / "clips.jsonl.report" / "videos.jsonl"
    process = start(*words, "--out", out)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if journal.exists() and journal.read_bytes().count(b"\n") >= 3:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.005)
    assert process.wait(60) == -signal.SIGKILL
    assert not out.exists()
    run_well(*words, "--out", out)
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
