"""What fits: chunks on a device, loading processes in shared memory."""

import math
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clipvip.model import ClipVipConfig
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.train import memory
from clipvip.pipeline.train.batches import ChunkDataset
from clipvip.pipeline.train.checkpoint import TrainState
from clipvip.pipeline.train.distributed import Place
from clipvip.pipeline.train.loop import batches_of, prepare
from clipvip.pipeline.train.memory import SavedBytes, fitting_chunk, fitting_loaders, saved_bytes
from clipvip.pipeline.train.recipe import Recipe, load_recipe
from clipvip.pipeline.train.samples import SampleSettings
from clipvip.pipeline.train.step import Job
from resources import lack
from train_runs import arguments

ALONE = Place(0, 1, torch.device("cpu"))
CLIPS = SampleSettings(
    num_frames=12, jitter=True, fast_decode=False, needs_subtitle=True, needs_caption=True, needs_frame=True
)
GIB = 2**30


@given(shares=st.lists(st.integers(1, 3000), min_size=1, max_size=3), most=st.integers(0, 2000))
def test_no_more_is_held_than_fits(shares: list[int], most: int) -> None:
    size = fitting_chunk(shares, most)
    if size is None:
        assert sum(shares) <= max(most, 1)
        return
    assert 1 <= size <= max(most, 1)
    # In two passes, which hold a chunk at a time; one pass would hold all.
    assert max(shares) > size or max(shares) == 1
    # As few chunks as can be, up to what even and round sizes cost.
    fewest = math.ceil(max(shares) / max(min(most, math.ceil(max(shares) / 2)), 1))
    assert math.ceil(max(shares) / size) <= max(2 * fewest, fewest + 1)


@pytest.mark.parametrize(
    ("shares", "most", "size"),
    [([1024], 2000, None), ([1024], 1024, None), ([1024], 200, 128), ([1000], 300, 200),
     ([500], 120, 104), ([128], 100, 64),
     ([100, 28], 110, 50), ([6], 4, 3), ([1000], 5, 5)],
)  # fmt: skip
def test_chunks_are_round_and_even(shares: list[int], most: int, size: int | None) -> None:
    assert fitting_chunk(shares, most) == size


def test_what_a_step_keeps_is_about_what_was_measured_on_a_gpu() -> None:
    """Of B/32 40.8 GiB at a batch of 128, with 2.3 GiB of weights, gradient and optimizer.

    That was before queries, keys and values came out of one product and all frames went through one kernel,
    each of which keeps 4 GiB less.
    """
    config = ClipVipConfig()
    need = saved_bytes(config, CLIPS, num_tokens=70, precision="bf16")
    assert 28 < (128 * need.per_row + need.besides) / GIB < 36
    full = saved_bytes(config, CLIPS, num_tokens=70, precision="fp32")
    less = saved_bytes(config, CLIPS, num_tokens=70, precision="bf16", checkpoint_activations=True)
    assert full.per_row > 1.3 * need.per_row > 4 * less.per_row


def test_counting_draws_no_random_numbers() -> None:
    torch.manual_seed(3)
    saved_bytes(ClipVipConfig(vision_config={"num_hidden_layers": 1}), CLIPS, num_tokens=8, precision="bf16")
    after = torch.rand(())
    torch.manual_seed(3)
    assert torch.equal(torch.rand(()), after)


def recipe_of(world: Path, *settings: str) -> Recipe:
    places = (f"data.sources.clips.shards={world / 'clips'}", f"model.init={world / 'clip'}",
              f"data.sources.clips.captions={world / 'captions'}")  # fmt: skip
    return load_recipe(str(world / "recipe.yaml"), (*places, *settings))


@pytest.fixture
def job(world: Path, tmp_path: Path) -> Job:
    return prepare(recipe_of(world), ALONE, cache=tmp_path)


def test_where_there_is_room_auto_is_the_whole_batch(job: Job) -> None:
    state = TrainState()
    assert job.recipe.run.chunk_size == "auto"
    assert len(next(batches_of(job, state))) == 1
    assert state.chunk_size is None


@pytest.mark.parametrize(
    ("kept", "fits", "chosen"),
    [(None, 100, 6), (None, 4, 3), (2, 4, 2), (5, 4, 3), (None, 0, 1), (2, 100, 2), (6, 6, 6)],
)
def test_a_run_gets_what_fits_and_keeps_what_it_began_with(
    job: Job,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kept: int | None,
    fits: int,
    chosen: int,
) -> None:
    """Of batches of 6, of which a sample needs a GiB."""
    monkeypatch.setattr(memory, "saved_bytes", lambda *_, **__: SavedBytes(GIB, GIB))
    monkeypatch.setattr(memory, "_bytes_at_most", lambda job: math.inf)
    free = (fits + 0.05) * GIB / 0.9 + 2 * GIB + 12 * 1000
    monkeypatch.setattr(memory, "_free_on", lambda job: free)
    assert memory.choose_chunk_size(job, kept, row_bytes=1000) == chosen
    said = capsys.readouterr().err
    assert said.startswith("run.chunk_size=auto: ") and said.count("\n") == 1
    explicit = replace(job, recipe=recipe_of_job(job, chunk_size=4))
    assert memory.choose_chunk_size(explicit, kept, row_bytes=1000) == 4


def test_a_bound_saves_small_models_the_count(world: Path, job: Job) -> None:
    """It is above what is counted, of large models as of small ones."""
    for config in (job.model.config, ClipVipConfig(), ClipVipConfig(vision_config={"patch_size": 16})):
        large = replace(job, recipe=recipe_of(world, "data.num_frames=12", "data.max_text_tokens=70"))
        large = replace(large, model=SimpleNamespace(config=config))
        need = saved_bytes(config, CLIPS, num_tokens=24, precision="fp32")
        assert need.per_row < memory._bytes_at_most(large)


def recipe_of_job(job: Job, **changes: int) -> Recipe:
    return replace(job.recipe, run=replace(job.recipe.run, **changes))


def test_the_chunk_size_is_in_the_checkpoint_and_older_ones_have_none() -> None:
    state = TrainState(step=3, chunk_size=64)
    assert TrainState.from_json(state.as_json()).chunk_size == 64
    older = {key: value for key, value in state.as_json().items() if key != "chunk_size"}
    assert TrainState.from_json(older).chunk_size is None


@pytest.mark.parametrize("resizes", [True, False])
def test_the_bytes_of_a_row_are_those_of_its_frames(job: Job, resizes: bool) -> None:
    dataset = ChunkDataset(job.plan, job.model.tokenizer, image_size=32, max_text_tokens=20, resizes=resizes)
    chunk = next(batches_of(replace(job, recipe=with_resize(job.recipe, resizes)), TrainState()))[0]
    assert memory.bytes_of_frames(dataset) == (chunk.num_pixel_bytes // len(chunk.keys) // 4,)


def with_resize(recipe: Recipe, resizes: bool) -> Recipe:
    return replace(recipe, data=replace(recipe.data, resize="loader" if resizes else "device"))


@pytest.mark.parametrize(
    ("shared", "free", "expected"),
    [(1000, 1000, (4, 3)), (159, 1000, (4, 2)), (100, 1000, (4, 1)), (79, 1000, (3, 1)), (20, 1000, (1, 1)),
     (1000, 130, (4, 1)), (1000, 1, (1, 1))],
)  # fmt: skip
def test_loading_takes_what_memory_there_is(shared: int, free: int, expected: tuple[int, int]) -> None:
    """Four loading processes with three chunks ahead, of 10 bytes each."""
    found = fitting_loaders(4, 3, chunk_bytes=10, processes=1, shared=shared, memory=free)
    assert found == expected


def test_several_processes_share_it() -> None:
    assert fitting_loaders(4, 1, chunk_bytes=10, processes=2, shared=80, memory=1000) == (2, 1)
    with pytest.raises(UserError, match=r"KiB free, and a loading process .*docker run --shm-size"):
        fitting_loaders(4, 1, chunk_bytes=10, processes=2, shared=39, memory=1000)


@pytest.mark.slow
@pytest.mark.needs("linux", "mount")
@pytest.mark.parametrize(("kib", "code"), [(100, 1), (350, 0)])
def test_a_container_with_little_shared_memory(world: Path, tmp_path: Path, kib: int, code: int) -> None:
    """Chunks of 6 clips of 3 frames and one take 72 KiB, and some besides."""
    command = [sys.executable, "-m", "clipvip.pipeline.train", *arguments(world, tmp_path / "out")]
    command += ["--set", "run.workers=2", "--set", "optim.steps=2"]
    script = f"mount -t tmpfs -o size={kib}k none /dev/shm || exit 77; exec {shlex.join(command)}"
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", script],
        capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    if done.returncode in {1, 77} and "clipvip" not in done.stderr and "Error:" not in done.stderr:
        lack("mount")
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    said = (
        "96 KiB free, and a loading process with chunks of 140 KiB needs 280 KiB: give it more"
        if code
        else "run.workers=1 run.prefetch=1, less than asked for"
    )
    assert said in done.stderr, done.stderr
