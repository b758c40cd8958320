"""The command `clipvip-data download` against a web server on this machine that refuses, stalls and breaks
off.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

import commands
from clipvip.shards.tar.reader import list_shards, read_shard
from download_runs import QUICK, download, outcomes, write_list
from make_videos import make_video
from outputs import content, report
from video_server import VideoServer

_PAGE = """<html><body><video>
<source src="{stem}-240.mp4" type="video/mp4" label="240p">
<source src="{stem}-96.mp4" type="video/mp4" label="96p">
<track kind="subtitles" src="{stem}.vtt" srclang="en"></video></body></html>"""
_SUBTITLES = "WEBVTT\n\n00:00.000 --> 00:01.000\nhello there\n"


def start(metadata: Path, out: Path, *options: str) -> "subprocess.Popen[str]":
    return commands.start("download", "--metadata", metadata, "--out", out, *QUICK, *options)


@pytest.fixture(scope="module")
def site_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    make_video(folder / "v0.mp4", num_frames=60)
    for number in range(1, 12):
        (folder / f"v{number}.mp4").write_bytes((folder / "v0.mp4").read_bytes())
    make_video(folder / "page-96.mp4", num_frames=60)
    make_video(folder / "page-240.mp4", num_frames=60, width=320, height=240)
    (folder / "page.html").write_text(_PAGE.format(stem="page"))
    (folder / "page.vtt").write_text(_SUBTITLES)
    return folder


@pytest.fixture
def site(site_folder: Path) -> Iterator[VideoServer]:
    with VideoServer(site_folder).running() as server:
        yield server


@pytest.mark.parametrize(("height", "picture"), [("360", (320, 240)), ("96", (160, 96)), ("16", (160, 96))])
def test_the_best_format_under_a_height_and_its_subtitles(
    site: VideoServer, tmp_path: Path, height: str, picture: tuple[int, int]
) -> None:
    metadata = write_list(tmp_path / "list.jsonl", site, "page.html")
    result = download(metadata, tmp_path / "out", "--height", height)
    assert result.exit_code == 0, result.output
    with av.open(str(tmp_path / "out" / "page.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.width, context.height) == picture
    assert (tmp_path / "out" / "page.en.vtt").read_text() == _SUBTITLES
    row = json.loads((tmp_path / "out" / "archive.jsonl").read_text())
    assert row["subtitles"] == [{"language": "en", "kind": "manual", "file": "page.en.vtt"}]
    assert report(tmp_path / "out")["subtitles"] == {"manual": 1}


def test_what_was_fetched_is_what_shard_reads(site: VideoServer, tmp_path: Path) -> None:
    row = {
        "video_id": "page",
        "url": f"{site.url}/page.html",
        "clip": [{"clip_id": "page.0.mp4", "span": ["00:00:00.000", "00:00:02.000"]}],
    }
    metadata = tmp_path / "clips.jsonl"
    metadata.write_text(json.dumps(row) + "\n")
    videos = tmp_path / "videos"
    assert download(metadata, videos).exit_code == 0
    arguments = [
        "--metadata",
        metadata,
        "--videos",
        videos,
        "--subtitles",
        videos,
        "--out",
        tmp_path / "clips",
    ]
    result = commands.run("shard", "--workers", 1, *arguments)
    assert result.exit_code == 0, result.output
    (sample,) = read_shard(list_shards(tmp_path / "clips")[0])
    assert (sample.key, sample.subtitle, sample.num_frames) == ("page_00000", "hello there", 6)


def test_failures_for_good_and_in_passing_are_told_apart(site: VideoServer, tmp_path: Path) -> None:
    site.plan = {
        "/v1.mp4": [404],
        "/v2.mp4": [403],
        "/v3.mp4": [429],
        "/v4.mp4": [500, 503, "ok"],
        "/v5.mp4": ["ok", "truncated", "ok"],  # the first GET only looks
        "/v6.mp4": [502],
    }
    metadata = write_list(tmp_path / "list.jsonl", site, *(f"v{n}.mp4" for n in range(7)))
    out = tmp_path / "out"
    result = download(metadata, out, "--retries", "2")
    assert result.exit_code == 0, result.output
    assert outcomes(out) == {
        "v0": ("fetched", ""),
        "v1": ("permanent", "removed"),
        "v2": ("passing", "forbidden"),
        "v3": ("passing", "rate_limited"),
        "v4": ("fetched", ""),
        "v5": ("fetched", ""),
        "v6": ("passing", "server_error"),
    }
    assert (out / "v5.mp4").read_bytes() == (site.folder / "v5.mp4").read_bytes()
    assert site.gets["/v1.mp4"] == 1 and site.gets["/v3.mp4"] == 3
    found = report(out)
    assert found["counts"]["fetched"] == 3
    assert found["failed_for_good"] == {"removed": 1}
    assert found["to_try_again"] == {"forbidden": 1, "rate_limited": 1, "server_error": 1}
    listed = [json.loads(line)["what"] for line in (out / "skipped.jsonl").read_text().splitlines()]
    assert listed == ["v1", "v2", "v3", "v6"]

    # The next run asks only for what had a transient failure, and gets it.
    site.plan = {"/v6.mp4": [502]}
    site.gets.clear()
    assert download(metadata, out, "--retries", "0").exit_code == 0
    assert set(site.gets) == {"/v2.mp4", "/v3.mp4", "/v6.mp4"}
    assert outcomes(out)["v3"] == ("fetched", "")
    # What failed for good is asked for again on demand.
    assert download(metadata, out, "--retries", "0", "--retry-permanent").exit_code == 0
    assert outcomes(out)["v1"] == ("fetched", "")


def test_a_silent_connection_is_given_up(site: VideoServer, tmp_path: Path) -> None:
    site.plan = {"/v0.mp4": ["ok", "stall"]}
    metadata = write_list(tmp_path / "list.jsonl", site, "v0.mp4", "v1.mp4")
    started = time.monotonic()
    result = download(metadata, tmp_path / "out", "--stall-timeout", "0.5", "--retries", "0")
    assert result.exit_code == 0, result.output
    assert time.monotonic() - started < 15
    assert outcomes(tmp_path / "out")["v0"] == ("passing", "timeout")
    assert not (tmp_path / "out" / "v0.mp4").exists()


@pytest.mark.slow
def test_a_video_that_takes_too_long_is_given_up(site: VideoServer, tmp_path: Path) -> None:
    site.plan = {"/v0.mp4": ["stall"]}
    metadata = write_list(tmp_path / "list.jsonl", site, "v0.mp4")
    result = download(metadata, tmp_path / "out", "--video-timeout", "2.5")
    assert result.exit_code == 1
    assert outcomes(tmp_path / "out")["v0"] == ("passing", "timeout")


def test_a_site_that_refuses_everything_is_left_alone(site: VideoServer, tmp_path: Path) -> None:
    names = [f"v{number}.mp4" for number in range(12)]
    site.plan = {f"/{name}": [429] for name in names}
    metadata = write_list(tmp_path / "list.jsonl", site, *names)
    result = download(metadata, tmp_path / "out", "--retries", "0")
    assert result.exit_code == 1
    assert "refused 10 videos in a row" in result.output
    assert len(outcomes(tmp_path / "out")) == 10


def test_a_pause_that_the_site_asks_for_holds_all_workers(site: VideoServer, tmp_path: Path) -> None:
    site.retry_after = "1"
    site.plan = {"/v0.mp4": [429, "ok"]}
    metadata = write_list(tmp_path / "list.jsonl", site, *(f"v{number}.mp4" for number in range(3)))
    started = time.monotonic()
    assert download(metadata, tmp_path / "out", "--workers", "1").exit_code == 0
    assert time.monotonic() - started >= 1.5
    assert {outcome for outcome, _ in outcomes(tmp_path / "out").values()} == {"fetched"}


@pytest.mark.slow
def test_no_more_bytes_a_second_than_allowed(site: VideoServer, tmp_path: Path) -> None:
    metadata = write_list(tmp_path / "list.jsonl", site, "v0.mp4")
    size = (site.folder / "v0.mp4").stat().st_size
    started = time.monotonic()
    assert (
        download(metadata, tmp_path / "out", "--workers", "1", "--rate-limit", str(size // 2)).exit_code == 0
    )
    assert time.monotonic() - started >= 1.5


@pytest.mark.slow
def test_killed_at_any_time_it_goes_on_to_the_same_bytes(site: VideoServer, tmp_path: Path) -> None:
    names = ["page.html", *(f"v{number}.mp4" for number in range(10))]
    site.plan = {"/v2.mp4": [404]}
    metadata = write_list(tmp_path / "list.jsonl", site, *names)
    assert download(metadata, tmp_path / "whole").exit_code == 0
    out = tmp_path / "out"
    for num_fetched in (1, 6):
        process = start(metadata, out, "--rate-limit", "300K")
        deadline = time.monotonic() + 60
        while len(list(out.glob("*.mp4"))) < num_fetched and time.monotonic() < deadline:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    fetched_before = {path.name for path in out.glob("*.mp4")} - {"page.mp4"}
    site.gets.clear()
    assert download(metadata, out).exit_code == 0
    assert content(out) == content(tmp_path / "whole")
    assert not {path.lstrip("/") for path in site.gets} & fetched_before


@pytest.mark.slow
def test_ctrl_c_ends_it_cleanly(site: VideoServer, tmp_path: Path) -> None:
    metadata = write_list(tmp_path / "list.jsonl", site, *(f"v{number}.mp4" for number in range(10)))
    out = tmp_path / "out"
    process = start(metadata, out, "--rate-limit", "50K")
    deadline = time.monotonic() + 60
    while not list(out.glob("*.mp4")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "same command goes on" in errors and "Traceback" not in errors
    assert download(metadata, out).exit_code == 0
    assert len(list(out.glob("*.mp4"))) == 10


def test_a_disk_that_takes_no_more_ends_the_run(site: VideoServer, tmp_path: Path) -> None:
    big = site.folder / "big.mp4"
    big.write_bytes((site.folder / "v0.mp4").read_bytes() + bytes(4_000_000))
    metadata = write_list(tmp_path / "list.jsonl", site, "v0.mp4", "big.mp4")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        process = start(metadata, tmp_path / "out", "--workers", "1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    _, errors = process.communicate(timeout=60)
    big.unlink()
    assert process.returncode == 1
    assert "cannot be written to" in errors and "Traceback" not in errors
    assert outcomes(tmp_path / "out") == {"v0": ("fetched", "")}


def test_no_id_leads_out_of_the_folder(site: VideoServer, tmp_path: Path) -> None:
    ids = ["../up", "/tmp/absolute", "a/b", "..", "", "nul\0byte", "x" * 300, "ok.dots"]
    rows = [{"video_id": video_id, "url": f"{site.url}/v0.mp4"} for video_id in ids]
    metadata = tmp_path / "list.jsonl"
    metadata.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "inner" / "out"
    result = download(metadata, out)
    assert result.exit_code == 0, result.output
    assert [path.name for path in out.glob("*.mp4")] == ["ok.dots.mp4"]
    assert {path.name for path in (tmp_path / "inner").iterdir()} == {"out"}
    assert report(out)["skipped_by_reason"]["unsafe_id"]["count"] == 7


def test_a_video_that_lies_there_is_left_alone(site: VideoServer, tmp_path: Path) -> None:
    metadata = write_list(tmp_path / "list.jsonl", site, "v0.mp4", "v1.mp4")
    out = tmp_path / "out"
    out.mkdir()
    (out / "v0.webm").write_bytes(b"fetched by other means")
    assert download(metadata, out).exit_code == 0
    assert site.gets["/v0.mp4"] == 0
    assert report(out)["already_there"] == 1
    assert report(out)["counts"]["fetched"] == 2


def test_cookies_are_sent_and_the_file_is_only_read(site: VideoServer, tmp_path: Path) -> None:
    cookies = tmp_path / "cookies.txt"
    text = "# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t4102444800\tpass\tsecret\n"
    cookies.write_text(text)
    metadata = write_list(tmp_path / "list.jsonl", site, "v0.mp4")
    assert download(metadata, tmp_path / "out", "--cookies", str(cookies)).exit_code == 0
    assert set(site.cookies["/v0.mp4"]) == {"pass=secret"}
    assert cookies.read_text() == text
    assert not any(b"secret" in data for data in content(tmp_path / "out").values())
    cookies.write_text("no cookies")
    result = download(metadata, tmp_path / "other", "--cookies", str(cookies))
    assert result.exit_code == 1 and "not cookies in Netscape format" in result.output


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--subtitle-languages", "en/../x"], "give language codes"),
        (["--rate-limit", "fast"], "give bytes a second"),
        (["--height", "720"], "made with other options"),
    ],
)
def test_mistakes_are_one_line(site: VideoServer, tmp_path: Path, options: list[str], line: str) -> None:
    metadata = write_list(tmp_path / "list.jsonl", site, "v0.mp4")
    assert download(metadata, tmp_path / "out").exit_code == 0
    result = download(metadata, tmp_path / "out", *options)
    assert result.exit_code != 0 and line in result.output


def test_without_yt_dlp_the_extra_is_named(
    site: VideoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yt_dlp", None)
    result = download(write_list(tmp_path / "list.jsonl", site, "v0.mp4"), tmp_path / "out")
    assert result.exit_code == 1
    assert "pip install '.[download]'" in result.output


@pytest.mark.slow
def test_a_video_in_pieces_is_whole_or_not_there(site: VideoServer, tmp_path: Path) -> None:
    """HLS: without all its segments a video is not fetched."""
    folder = site.folder / "hls"
    folder.mkdir(exist_ok=True)
    make_video(folder / "index.m3u8", num_frames=90, hls_time="1", hls_list_size="0")
    pieces = sorted(path.name for path in folder.glob("*.ts"))
    assert len(pieces) >= 3
    row = {"video_id": "pieces", "url": f"{site.url}/hls/index.m3u8"}
    metadata = tmp_path / "list.jsonl"
    metadata.write_text(json.dumps(row) + "\n")
    site.plan = {f"/hls/{pieces[1]}": [500]}
    out = tmp_path / "out"
    assert download(metadata, out, "--retries", "1").exit_code == 1
    assert outcomes(out)["pieces"] == ("passing", "server_error")
    assert not (out / "pieces.mp4").exists()
    site.plan = {f"/hls/{pieces[1]}": [500, "ok"]}
    assert download(metadata, out).exit_code == 0
    with av.open(str(out / "pieces.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 90


def test_subtitles_that_fail(site: VideoServer, tmp_path: Path) -> None:
    """In passing: the video is left for the next run, unfetched. For good: it is worth having without."""
    metadata = write_list(tmp_path / "list.jsonl", site, "page.html")
    site.plan = {"/page.vtt": [503]}
    assert download(metadata, tmp_path / "out", "--retries", "0").exit_code == 1
    assert outcomes(tmp_path / "out")["page"] == ("passing", "server_error")
    assert site.gets["/page-240.mp4"] == 0
    site.plan = {"/page.vtt": [404]}
    assert download(metadata, tmp_path / "out", "--retries", "0").exit_code == 0
    assert outcomes(tmp_path / "out")["page"] == ("fetched", "")
    assert report(tmp_path / "out")["subtitles"] == {"none": 1}
    assert [path.name for path in (tmp_path / "out").glob("page*")] == ["page.mp4"]


def test_a_dry_run_counts_and_changes_nothing(site: VideoServer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    metadata = write_list(tmp_path / "list.jsonl", site, *(f"v{n}.mp4" for n in range(3)), "gone.mp4")

    def counts() -> dict[str, int]:
        result = download(metadata, out, "--dry-run", "--json")
        assert result.exit_code == 0, result.output
        found: dict[str, int] = json.loads(result.stdout)["counts"]
        return found

    assert counts()["to_fetch"] == 4 and not out.exists()
    assert download(write_list(tmp_path / "two.jsonl", site, "v0.mp4", "gone.mp4"), out).exit_code == 0
    with (out / "archive.jsonl").open("ab") as file:
        file.write(b'{"video_id": "v1", "outc')  # as a killed run leaves it
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.rglob("*") if path.is_file()}
    assert counts() == {
        "videos": 4,
        "to_fetch": 2,
        "to_try_again": 0,
        "not_to_be_fetched": 2,
        "unusable_lines": 0,
    }
    assert before == {
        path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.rglob("*") if path.is_file()
    }
