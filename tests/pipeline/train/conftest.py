"""What the tests of training share."""

from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from clipvip.shards.format.captions import write_captions
from make_shards import make_shard_folder
from tiny_clip import make_clip, tiny_tokenizer
from train_runs import NUM_STEPS, RECIPE, run


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shard_folder(tmp_path_factory.mktemp("data") / "clips", num_shards=3, clips_per_shard=7)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe, shards, their captions and a CLIP to start from."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "recipe.yaml").write_text(RECIPE)
    make_clip(folder / "clip")
    make_shard_folder(folder / "clips", num_shards=3, clips_per_shard=8)
    (folder / "captions").mkdir()
    for shard in range(3):
        keys = [f"video{shard}_{number:05d}" for number in range(8) if number != 3]
        write_captions(
            folder / "captions" / f"{shard:06d}.parquet", [(key, f"sight of {key}") for key in keys]
        )
    return folder


@pytest.fixture(scope="module")
def undisturbed(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    result = run(world, out)
    assert result.exit_code == 0, result.output
    assert "samples_without_caption" not in result.output
    assert f"train: {NUM_STEPS} steps" in result.stdout
    assert f"model: {out / 'model'}" in result.stdout
    return out
