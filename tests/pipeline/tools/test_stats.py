"""The command `clipvip-data stats`: its numbers are those of the clips, counted another way."""

import json
import random
import re
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipvip.pipeline.pages.plots import Plot
from clipvip.pipeline.tools.stats import histogram
from clipvip.pipeline.tools.tally import Distribution
from clipvip.shards.errors import Skip
from clipvip.shards.format.captions import write_captions
from clipvip.shards.format.manifest import write_manifest
from clipvip.shards.tar.reader import list_shards, read_shard
from clipvip.shards.tar.writer import write_shard
from commands import run
from html_page import HtmlPage
from make_shards import changed, stored_clip

MARKUP = '<script>alert("x")</script> & more'


def stats(folder: Path, *options: object) -> dict[str, Any]:
    result = run("stats", folder, "--json", "--workers", 1, *options)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of several lengths, sizes and texts; videos 1 and 3 stand in two shards each."""
    folder = tmp_path_factory.mktemp("shards") / "clips"
    folder.mkdir()
    records = []
    for shard in range(4):
        clips = []
        for number in range(5):
            clip = stored_clip(
                f"v{shard + number % 2}", 10 * shard + number, num_frames=1 + (number * shard) % 5,
                width=48 + 16 * (number == 0), subtitle=MARKUP,
            )  # fmt: skip
            clips.append(changed(clip, subtitle=" ".join(["word"] * number)))
        records.append(write_shard(folder / f"{shard:06d}.tar", clips))
    write_manifest(folder, stage="shard", options={}, shards=records)
    skips = [Skip("missing_video", "a"), Skip("timeout", "b"), Skip("missing_video", "c")]
    lines = [json.dumps(skip.as_dict()) + "\n" for skip in skips]
    (folder / "skipped.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def captions(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captions")
    for path in list_shards(shards):
        keys = [sample.key for sample in read_shard(path)]
        rows = [(key, "a " * (1 + n) + MARKUP) for n, key in enumerate(keys[1:])]
        write_captions(folder / f"{path.stem}.parquet", rows, skips=[Skip("empty_caption", keys[0])])
    return folder


def test_numbers_are_those_of_the_clips(shards: Path, captions: Path) -> None:
    found = stats(shards, "--captions", captions)
    samples = [sample for path in list_shards(shards) for sample in read_shard(path)]
    seconds = [s.record.span_seconds[1] - s.record.span_seconds[0] for s in samples]
    assert found["counts"] == {
        "shards": 4,
        "clips": 20,
        "videos": 5,
        "hours": round(sum(seconds) / 3600, 3),
        "frames": sum(sample.num_frames for sample in samples),
        "bytes": sum(path.stat().st_size for path in list_shards(shards)),
        "clips_without_text": 4,
        "unreadable_clips": 0,
        "unreadable_shards": 0,
    }
    assert found["clip_seconds"]["mean"] == pytest.approx(fmean(seconds), abs=1e-3)
    assert found["words_per_text"] == {"mean": 2, "min": 0, "max": 4, "p05": 0, "median": 2, "p95": 4}
    assert found["bytes_per_clip"]["mean"] == pytest.approx(fmean(len(s.pixels) for s in samples), abs=1e-3)
    assert found["sizes"] == {"48x32": 16, "64x32": 4}
    assert found["source_sizes"] == {"96x64": 16, "128x64": 4}
    assert found["skipped_by_reason"] == {"missing_video": 2, "timeout": 1}
    assert found["captions"]["captions"] == 16
    assert found["captions"]["words"]["max"] == 4 + len(MARKUP.split())
    assert found["captions"]["skipped_by_reason"] == {"empty_caption": 4}


def test_the_same_bytes_come_of_any_number_of_workers(shards: Path, captions: Path, tmp_path: Path) -> None:
    for workers in (1, 2):
        out = tmp_path / str(workers)
        result = run("stats", shards, "--captions", captions, "--out", out, "--num", 6, "--workers", workers)
        assert result.exit_code == 0, result.output
    names = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert names == ["stats.html", "stats.json"]
    assert all((tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes() for name in names)


def test_the_page_needs_nothing_else_and_runs_nothing(shards: Path, captions: Path, tmp_path: Path) -> None:
    run("stats", shards, "--captions", captions, "--out", tmp_path, "--num", 6, "--workers", 1)
    text = (tmp_path / "stats.html").read_text()
    found = HtmlPage(text.encode())
    assert found.tags.count("svg") == 5
    assert found.tags.count("img") >= 6
    assert all(source.startswith("data:image/jpeg;base64,") for source in found.sources)
    assert "&lt;script&gt;" in text
    heights = [float(h) for h in re.findall(r'<rect [^>]*height="([\d.]+)"', text)]
    assert heights and max(heights) == Plot.bottom - Plot.top


def test_damaged_shards_are_counted(shards: Path, tmp_path: Path) -> None:
    generator = random.Random(0)
    folder = tmp_path / "clips"
    folder.mkdir()
    for path in list_shards(shards):
        data = bytearray(path.read_bytes())
        place = generator.randrange(len(data) // 4, len(data) // 2)
        data[place:] = generator.randbytes(len(data) - place)
        (folder / path.name).write_bytes(data)
    found = stats(folder)
    assert found["counts"]["unreadable_shards"] == 4
    assert 0 < found["counts"]["clips"] < 20
    assert run("stats", folder, "--out", tmp_path / "out", "--workers", 1).exit_code == 0


def test_a_missing_caption_file_is_counted(shards: Path, tmp_path: Path) -> None:
    found = stats(shards, "--captions", tmp_path, "--out", tmp_path / "out")
    assert found["captions"]["files_missing"] == 4
    for arguments, words in (
        ((tmp_path,), "holds no shards"),
        ((shards, "--captions", tmp_path / "none"), "no such folder of captions"),
    ):
        result = run("stats", *arguments)
        assert result.exit_code == 1
        assert words in result.stderr.splitlines()[-1]


@given(parts=st.lists(st.lists(st.integers(0, 3000)), min_size=1, max_size=4))
def test_distributions_add_up(parts: list[list[int]]) -> None:
    """Exact sums and extremes, quantiles to a bin."""
    total = Distribution(bin_width=10)
    for part in parts:
        one = Distribution(bin_width=10)
        for value in part:
            one.add(value)
        total.add_all(one)
    values = sorted(value for part in parts for value in part)
    if not values:
        assert total.summary() is None
        return
    found = total.summary()
    assert found is not None
    assert (found["min"], found["max"]) == (values[0], values[-1])
    assert found["mean"] == pytest.approx(np.mean(values), abs=1e-3)
    assert found["median"] == max(values[0], values[(len(values) - 1) // 2] // 10 * 10)
    assert found["min"] <= found["p05"] <= found["median"] <= found["p95"] <= found["max"]
    bars = histogram(total, title="", unit=10).bars
    assert 0 < len(bars) <= 40 and sum(bars) == len(values)
