"""Hundreds of damaged videos and subtitles in one run of `clipvip-data shard`: no hang, no crash, all accounted for."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from clipvip.shards.tar.reader import list_shards, read_shard
from commands import run
from damage import damage, put_no_file
from make_videos import make_video, write_metadata

# On a busy machine a stage may take minutes to start.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NUM_DAMAGED, NUM_NO_FILES, NUM_INTACT = 560, 40, 40
SPANS = [(0, 0.7), (0.5, 1.4), (1, 30)]
REASONS = {"undecodable_video", "no_video_stream", "span_past_end", "no_frames", "missing_video", "timeout"}
SECONDS_FOR_ALL = 600
# What a real video may have at most: the first clips decide how long a variant takes.
MOST_BYTES = 320_000

MADE = [
    ("mp4", "libx264"),
    ("mkv", "libx264"),
    ("ts", "mpeg2video"),
    ("avi", "mpeg4"),
    ("webm", "libvpx-vp9"),
    ("flv", "flv"),
    ("mov", "libx265"),
    ("wmv", "wmv2"),
]
SUBTITLES = {
    ".vtt": "WEBVTT\n\n00:00:00.100 --> 00:00:00.900\nfirst <c>words</c>\n\n00:00:01.000 --> 00:00:02.000\nmore &amp; more\n",
    ".srt": "1\n00:00:00,100 --> 00:00:00,900\nerste Wörter\n\n2\n00:00:01,000 --> 00:00:02,000\n{\\an8}mehr\n",
    ".json3": json.dumps(
        {
            "events": [
                {"tStartMs": 100 + 900 * n, "dDurationMs": 800, "segs": [{"utf8": f"wörds {n}"}]}
                for n in (0, 1)
            ]
        }
    ),
    ".xml": '<transcript><text start="0.1" dur="0.8">first &amp;amp; words</text><text start="1" dur="1">x</text></transcript>',
}


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Short videos in eight containers."""
    folder = tmp_path_factory.mktemp("intact")
    options = {"codec_options": {"bf": "0", "x265-params": "log-level=none"}, "time_base": Fraction(1, 30)}
    return [
        make_video(folder / f"{codec}.{extension}", num_frames=45, codec=codec, **options)  # type: ignore[arg-type]
        for extension, codec in MADE
    ]


@pytest.fixture(params=["made", pytest.param("real", marks=pytest.mark.needs_shared)])
def originals(request: pytest.FixtureRequest, intact: list[Path]) -> tuple[list[Path], list[Path]]:
    """Videos, and subtitles."""
    if request.param == "made":
        folder = intact[0].parent
        for extension, text in SUBTITLES.items():
            (folder / f"words{extension}").write_text(text)
        return intact, sorted(folder.glob("words.*"))
    shared: Path = request.getfixturevalue("shared_dir")
    videos = [path for path in sorted((shared / "data/videos").iterdir()) if path.suffix != ".json"]
    videos = [path for path in videos if 10_000 < path.stat().st_size < MOST_BYTES]
    subtitles = [
        path for path in sorted((shared / "data/subtitles").iterdir()) if path.name != "manifest.json"
    ]
    return videos, [path for path in subtitles if path.stat().st_size < 20_000]


def lay_out(folder: Path, videos: list[Path], subtitles: list[Path]) -> dict[str, str]:
    """Fill `folder`/videos and `folder`/subtitles with variants; returns video id -> what it is."""
    kinds: dict[str, str] = {}
    (folder / "videos").mkdir()
    (folder / "subtitles").mkdir()
    extensions = sorted({path.suffix for path in videos})
    for number in range(NUM_DAMAGED + NUM_NO_FILES + NUM_INTACT):
        name = f"v{number:04d}"
        original = videos[number % len(videos)]
        # Now and then the name promises another container.
        suffix = extensions[number % len(extensions)] if number % 7 == 0 else original.suffix
        path = folder / "videos" / (name + suffix)
        words = subtitles[number % len(subtitles)]
        words_path = folder / "subtitles" / (name + words.suffix)
        if number < NUM_DAMAGED:
            path.write_bytes(damage(original.read_bytes(), seed=number))
            words_path.write_bytes(damage(words.read_bytes(), seed=number))
            kinds[name] = "damaged"
        elif number < NUM_DAMAGED + NUM_NO_FILES:
            kinds[name] = put_no_file(path, number)
            put_no_file(words_path, number + 1)
        else:
            shutil.copy(original, path)
            # What cannot be read for other reasons than its bytes, beside a video that can.
            put_no_file(words_path, number)
            kinds[name] = f"intact {original.name}"
    return kinds


def shard(folder: Path, out: Path, store: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", "from clipvip.pipeline.cli import main; main()", "shard"]
    command += ["--metadata", str(folder / "clips.jsonl"), "--videos", str(folder / "videos")]
    command += ["--subtitles", str(folder / "subtitles"), "--out", str(out), "--store", store]
    command += ["--shard-size", "64", "--size", "96", "--workers", "2", "--video-timeout", "20"]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_FOR_ALL, check=False)


@pytest.mark.parametrize("store", ["frames", "video"])
def test_every_damaged_input_is_stored_or_reported(
    originals: tuple[list[Path], list[Path]], store: str, tmp_path: Path
) -> None:
    kinds = lay_out(tmp_path, *originals)
    write_metadata(tmp_path / "clips.jsonl", dict.fromkeys(kinds, SPANS))
    out = tmp_path / "out"
    result = shard(tmp_path, out, store)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "Traceback" not in result.stderr

    stored = [(s.record.video_id, s.record.clip_id) for path in list_shards(out) for s in read_shard(path)]
    skips = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    left_out = [(skip["what"].partition(".")[0], skip["what"]) for skip in skips]
    asked = [(name, f"{name}.{number}.mp4") for name in kinds for number in range(len(SPANS))]
    assert Counter(stored + left_out) == Counter(asked)
    assert {skip["reason"] for skip in skips} <= REASONS
    assert all(skip["detail"] for skip in skips)
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    assert report["counts"]["clips"] == len(stored)
    assert report["skipped"] == len(left_out)
    by_reason = {reason: row["count"] for reason, row in report["skipped_by_reason"].items()}
    assert by_reason == Counter(skip["reason"] for skip in skips)

    # What no damage touched loses nothing: it has the clips that its like has in all other places.
    fates: dict[str, set[tuple[bool, ...]]] = {}
    for name, kind in kinds.items():
        if kind.startswith("intact"):
            fate = tuple((name, f"{name}.{number}.mp4") in stored for number in range(len(SPANS)))
            fates.setdefault(kind, set()).add(fate)
    assert all(len(found) == 1 for found in fates.values()), fates
    assert sum(any(fate) for found in fates.values() for fate in found) >= 0.7 * len(fates)
    # Damage of both kinds was met: that leaves a part, and that leaves nothing.
    damaged = {name for name, kind in kinds.items() if kind == "damaged"}
    num_kept = len({name for name, _ in stored} & damaged)
    assert 0.2 * len(damaged) < num_kept < 0.95 * len(damaged)
    assert report["subtitle_warnings"]["count"] > NUM_NO_FILES / 4

    verified = run("verify", out, "--workers", 2, "--json")
    assert verified.exit_code == 0, verified.output[-2000:]
