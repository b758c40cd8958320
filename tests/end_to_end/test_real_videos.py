"""All four commands, as a user types them, on real video files and the tiny models of the demo."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import clipvip.experiments.demo
from clipvip.shards.tar.reader import list_shards, read_shard

WEIGHTS = Path(clipvip.experiments.demo.__file__).parent / "weights"
COMMANDS = Path(sys.executable).parent
SECONDS_PER_CLIP = 2.0

pytestmark = [pytest.mark.needs_shared, pytest.mark.slow]


def run(*arguments: str | Path) -> str:
    command = [str(COMMANDS / str(arguments[0])), *map(str, arguments[1:])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def write_metadata(path: Path, videos: Path) -> None:
    """One line per real file, whole or broken, cut into spans of two seconds."""
    manifest = json.loads((videos / "manifest.json").read_text())
    with path.open("w") as file:
        for number, entry in enumerate(manifest):
            # A few files stand for longer ones: what counts is that spans lie inside what decodes.
            duration = min(entry.get("duration_s") or 4.0, 16.0)
            clips = [
                {
                    "clip_id": f"{Path(entry['file']).stem}.{n}.mp4",
                    "span": [n * 2.0, (n + 1) * SECONDS_PER_CLIP],
                }
                for n in range(max(1, int(duration // SECONDS_PER_CLIP)))
            ]
            row = {
                "video_id": Path(entry["file"]).stem,
                "url": f"https://example.org/{number}",
                "clip": clips,
            }
            file.write(json.dumps(row) + "\n")


def write_texts(path: Path, metadata: Path) -> None:
    words = [
        "red",
        "blue",
        "green",
        "circle",
        "square",
        "moves",
        "left",
        "right",
        "up",
        "down",
        "over",
        "the",
        "field",
        "and",
        "we",
        "talk",
        "about",
        "it",
    ]
    rows = [json.loads(line) for line in metadata.read_text().splitlines()]
    with path.open("w") as file:
        for index, clip in enumerate(clip for row in rows for clip in row["clip"]):
            text = " ".join(words[(index * step) % len(words)] for step in (1, 3, 5, 7))
            file.write(json.dumps({"clip_id": clip["clip_id"], "text": f"{text} {index}"}) + "\n")


def test_the_four_commands_on_real_video(shared_dir: Path, tmp_path: Path) -> None:
    videos = shared_dir / "data" / "videos"
    metadata, texts = tmp_path / "clips.jsonl", tmp_path / "texts.jsonl"
    write_metadata(metadata, videos)
    write_texts(texts, metadata)
    clips, captions = tmp_path / "clips", tmp_path / "captions"

    run("clipvip-data", "shard", "--metadata", metadata, "--videos", videos, "--subtitles", texts,
        "--out", clips, "--workers", "2", "--shard-size", "32")  # fmt: skip
    samples = [sample for shard in list_shards(clips) for sample in read_shard(shard)]
    assert len(samples) > 60
    report = json.loads((clips / "report.json").read_text())
    assert report["skipped"] > 0 and report["counts"]["clips"] == len(samples)

    run("clipvip-data", "caption", "--shards", clips, "--out", captions, "--model", WEIGHTS / "ofa",
        "--gpus", "0", "--workers", "1", "--num-beams", "2")  # fmt: skip
    assert sorted(p.stem for p in captions.glob("*.parquet")) == [p.stem for p in list_shards(clips)]

    target = shared_dir / "data" / "texts" / "coco_val2017.txt"
    table = run("clipvip-data", "nmi", "--source", f"subtitles={clips}", "--source", f"captions={captions}",
                "--target", f"coco={target}", "--model", WEIGHTS / "clip", "--out", tmp_path / "nmi",
                "--samples", "40", "--repeats", "3")  # fmt: skip
    assert "subtitles" in table and "captions" in table
    assert (tmp_path / "nmi" / "nmi.png").read_bytes().startswith(b"\x89PNG")

    run("clipvip-train", "demo", "--shards", clips, "--captions", captions, "--init", WEIGHTS / "clip",
        "--out", tmp_path / "run", "--set", "optim.steps=3", "--set", "optim.epochs=null")  # fmt: skip
    run("clipvip-eval", "retrieval", "--model", tmp_path / "run" / "model", "--shards", clips,
        "--out", tmp_path / "eval")  # fmt: skip
    scores = json.loads((tmp_path / "eval" / "retrieval.json").read_text())
    assert scores
