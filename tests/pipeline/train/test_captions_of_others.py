"""Training with captions that others made: columns of key and caption alone, or several of a clip."""

import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet

import train_runs
from clipvip.pipeline.loading.pixels import PixelsWriter
from clipvip.pipeline.train.recipe import Source
from clipvip.pipeline.train.samples import Example, SampleLoader, SampleSettings
from clipvip.pipeline.train.shard_set import open_shards
from clipvip.shards.format.captions import write_captions
from make_shards import make_shard_folder
from tiny_clip import make_clip


def test_captions_that_do_not_say_what_made_them_are_used_and_told(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(train_runs.RECIPE)
    make_clip(tmp_path / "clip")
    make_shard_folder(tmp_path / "clips", num_shards=1, clips_per_shard=8)
    (tmp_path / "captions").mkdir()
    rows = {"key": [f"video0_{n:05d}" for n in range(8)], "caption": [f"sight of {n}" for n in range(8)]}
    pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "captions" / "000000.parquet")
    settings = [word for one in ("loss.pairs=V-C", "optim.steps=2") for word in ("--set", one)]
    result = train_runs.run(tmp_path, tmp_path / "out", *settings)
    assert result.exit_code == 0, result.output
    folder = str(tmp_path / "captions")
    assert f"captions {folder}: nothing there says what made them" in result.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["captions"] == {folder: None}
    assert report["counts"] == {"steps": 2, "samples": 12, "samples_without_caption": 0}


def test_another_of_several_captions_comes_on_each_pass(tmp_path: Path) -> None:
    make_shard_folder(tmp_path / "clips", num_shards=1, clips_per_shard=2)
    (tmp_path / "captions").mkdir()
    rows = [("video0_00000", "one"), ("video0_00001", "only")]
    several = {"video0_00000": ["one", "two", "three"]}
    write_captions(tmp_path / "captions" / "000000.parquet", rows, alternatives=several)
    shards = open_shards("clips", Source(shards=str(tmp_path / "clips")), cache=tmp_path / "cache", in_use=1)
    settings = SampleSettings(
        num_frames=2,
        jitter=True,
        fast_decode=False,
        needs_subtitle=False,
        needs_caption=True,
        needs_frame=False,
        captions=(str(tmp_path / "captions"),),
    )
    loader = SampleLoader(shards, settings, image_size=32)

    def captions(index: int, seeds: range) -> list[str]:
        found = []
        for seed in seeds:
            writer = PixelsWriter()
            writer.begin()
            example = loader.load(0, index, np.random.default_rng(seed), video=writer, frame=writer)
            assert isinstance(example, Example)
            found += example.captions
        return found

    assert set(captions(0, range(30))) == {"one", "two", "three"}
    assert captions(0, range(9)) == captions(0, range(9))  # the draw is a function of the seed
    assert captions(1, range(3)) == ["only"] * 3
