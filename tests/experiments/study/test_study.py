"""`clipvip-study` from end to end, on a very small world."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from clipvip.experiments.demo.corpus import read_truth, write_corpus
from clipvip.experiments.demo.world import REVERSED
from clipvip.experiments.study.cli import main as study_command
from clipvip.experiments.study.small_world import SmallWorld
from clipvip.experiments.study.stages import STUDY_WORLD, Knobs, SpoilOptions, spoil_captions
from clipvip.media.sampling import uniform_indices
from clipvip.pipeline.shard.stage import ShardOptions
from clipvip.shards.files.claims import lock_folder
from clipvip.shards.format.captions import read_captions, write_captions
from clipvip.shards.tar.reader import list_shards, read_shard
from make_shards import make_captioned_folder

STUDY = Path(sys.executable).parent / "clipvip-study"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_study_runs_resumes_and_takes_more_seeds(tmp_path: Path) -> None:
    out = tmp_path / "study"

    def run(seeds: int) -> str:
        command = [
            str(STUDY),
            "scratch",
            "--quick",
            "--seeds",
            str(seeds),
            "--out",
            str(out),
            "--workers",
            "2",
        ]
        command += ["--pretrain-steps", "4", "--finetune-steps", "4", "--videos", "30"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "from scratch" in run(1)
    first = json.loads((out / "results.json").read_text())
    rows = first["studies"][0]["tables"][0]["rows"]
    assert rows[0][0] == "from scratch" and len(rows[0][1][1]["values"]) == 1
    kept = {path: path.stat().st_mtime_ns for path in out.glob("seed1/**/*.tar")}
    run(2)
    second = json.loads((out / "results.json").read_text())
    both = zip(first["studies"][0]["tables"], second["studies"][0]["tables"], strict=True)
    rows = [pair for tables in both for pair in zip(*(table["rows"] for table in tables), strict=True)]
    for before, after in rows:
        values = after[1][1]["values"]
        assert len(values) == 2 and values[:1] == before[1][1]["values"]
    assert kept and kept == {path: path.stat().st_mtime_ns for path in out.glob("seed1/**/*.tar")}
    assert json.loads((out / "report.json").read_text())["this_run"]["runs"] == 16
    for name in ("index.html", "tables.md", "claims.svg"):
        assert (out / name).is_file()


def test_a_second_study_in_one_folder_is_refused(tmp_path: Path) -> None:
    with lock_folder(tmp_path / "study"):
        result = CliRunner().invoke(study_command, ["losses", "--quick", "--out", str(tmp_path / "study")])
    assert result.exit_code == 1 and "another run is writing here" in result.output
    assert not (tmp_path / "study" / "logs").exists()


def test_a_model_sees_the_same_frames_of_a_clip_and_of_its_twin(tmp_path: Path) -> None:
    """Or else one that is blind to order could tell the two apart by where the shape is on the mean."""
    world = replace(
        STUDY_WORLD,
        num_train_videos=1,
        num_finetune_videos=0,
        num_test_videos=2,
        num_images=0,
        distinct_test=False,
        twins=True,
    )
    write_corpus(world, tmp_path / "world", workers=1)
    tasks = SmallWorld(Knobs()).tasks(tmp_path, 1, tmp_path, workers=1)
    task = next(task for task in tasks if task.name.endswith("shards-motion-test"))
    assert isinstance(task.options, ShardOptions)
    corpus = tmp_path / "world/test"
    texts = {"metadata": "metadata.jsonl", "videos": "videos", "subtitles": "descriptions.jsonl"}
    task.stage(replace(task.options, **{name: str(corpus / file) for name, file in texts.items()}))
    samples = [sample for path in list_shards(tmp_path / "shards-motion-test") for sample in read_shard(path)]
    truth = read_truth(tmp_path / "world")
    clips = [sample for sample in samples if not truth[sample.key].backwards]
    assert len(samples) == 24 and len(clips) == 12
    for clip in clips:
        (twin,) = [
            s
            for s in samples
            if truth[s.key]
            == replace(truth[clip.key], motion=REVERSED[truth[clip.key].motion], backwards=True)
        ]
        assert clip.num_frames == twin.num_frames
        for count in (2, 4):
            seen = [s.decode(uniform_indices(s.num_frames, count)).astype(int) for s in (clip, twin)]
            assert np.abs(seen[0] - seen[1][::-1]).mean() < 4  # what two encodings of one picture differ by
            assert np.abs(seen[0] - seen[1]).mean() > np.abs(seen[0] - seen[1][::-1]).mean() * 2


def test_spoilt_captions_are_those_of_other_clips(tmp_path: Path) -> None:
    make_captioned_folder(tmp_path / "shards", [[f"text {n}"] for n in range(40)])
    shard = list_shards(tmp_path / "shards")[0]
    rows = [(sample.key, f"caption {n}") for n, sample in enumerate(read_shard(shard))]
    (tmp_path / "captions").mkdir()
    write_captions(tmp_path / "captions" / f"{shard.stem}.parquet", rows)
    options = SpoilOptions(
        shards=tmp_path / "shards", captions=tmp_path / "captions", out=tmp_path / "spoilt", rate=0.5, seed=1
    )
    counts = spoil_captions(options).content
    changed, total = counts["changed"], counts["total"]
    found = read_captions(tmp_path / "spoilt", shard.stem)
    assert total == len(rows) and list(found) == [key for key, _ in rows]
    assert sum(found[key] != text for key, text in rows) == changed
    assert 0.2 * total < changed < 0.8 * total
    assert set(found.values()) <= {text for _, text in rows}
    assert spoil_captions(replace(options, out=tmp_path / "none", rate=0.0)).content["changed"] == 0
