"""Videos fetched from Python, from a web server on this machine."""

import json
from pathlib import Path
from typing import Any

import pytest

import clipvip
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.runtime.stage import StageFailed, command_line
from commands import run_well
from make_videos import make_video
from outputs import content
from video_server import VideoServer


def test_the_function_makes_what_the_command_makes(tmp_path: Path) -> None:
    make_video(tmp_path / "site" / "good.mp4", num_frames=30)
    metadata = tmp_path / "list.jsonl"
    with VideoServer(tmp_path / "site").running() as site:
        site.plan["/late.mp4"] = [503]
        rows = [{"video_id": name, "url": f"{site.url}/{name}.mp4"} for name in ("good", "gone", "late")]
        metadata.write_text("".join(json.dumps(row) + "\n" for row in rows))
        given: Any = {"metadata": metadata, "workers": 2, "sleep": 0, "retries": 0, "rate_limit": "20M"}
        words = ["--workers", 2, "--sleep", 0, "--retries", 0, "--rate-limit", "20M", "--json"]
        result = run_well("download", "--metadata", metadata, "--out", tmp_path / "one", *words)
        report = clipvip.download(out=tmp_path / "two", **given)
        counts = {"videos": 3, "fetched": 1, "failed_for_good": 1, "to_try_again": 1}
        assert {name: report.counts[name] for name in counts} == counts
        assert content(tmp_path / "two") == content(tmp_path / "one")
        assert json.loads(result.stdout) | {"this_run": None} == report.content | {"this_run": None}
        note = "  1 video failed that may work later: run the same command again"
        assert str(report).endswith(f"\n{note}") and result.stderr.splitlines()[-1] == note
        (tmp_path / "list.jsonl").write_text(json.dumps(rows[1]) + "\n")
        with pytest.raises(StageFailed, match="no video could be fetched") as error:
            clipvip.download(out=tmp_path / "three", **given)
        assert error.value.report.counts["failed_for_good"] == 1


def test_languages_and_rates_are_what_the_command_line_takes_or_values(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("QMi8x8o55Ns\n")
    rest: Any = {"metadata": tmp_path / "list", "out": tmp_path / "out"}
    for languages in ("en, de", ("en", "de", "en"), ["en", "de"]):
        made = clipvip.DownloadOptions(subtitle_languages=languages, **rest)  # type: ignore[arg-type]
        assert made.subtitle_languages == ("en", "de")
        assert command_line(clipvip.download, made)[-2:] == ["--subtitle-languages", "en,de"]
    assert clipvip.DownloadOptions(**rest).subtitle_languages == ("en",)
    assert clipvip.DownloadOptions(subtitle_languages=(), **rest).subtitle_languages == ()
    for rate in ("2.5M", 2.5 * 2**20, 2_621_440):
        made = clipvip.DownloadOptions(rate_limit=rate, workers=4, **rest)  # type: ignore[arg-type]
        assert made.bytes_per_worker == 2.5 * 2**18


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"subtitle_languages": ["en/../x"]}, "subtitle_languages: give language codes"),
        ({"rate_limit": "fast"}, "rate_limit: give bytes a second"),
        ({"rate_limit": float("nan")}, "rate_limit: give bytes a second"),
        ({"rate_limit": 0}, "rate_limit: give bytes a second"),
        ({"sleep": float("inf")}, "sleep: give a number"),
        ({"metadata": "nowhere.jsonl"}, "does not exist"),
    ],
)
def test_values_are_checked_as_on_the_command_line(
    tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    (tmp_path / "list").write_text("QMi8x8o55Ns\n")
    with pytest.raises(UserError) as error:
        clipvip.DownloadOptions(**{"metadata": tmp_path / "list", "out": tmp_path / "out", **wrong})
    assert message in error.value.message
