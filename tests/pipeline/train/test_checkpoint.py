"""Checkpoints: what is saved is loaded, whatever is damaged is found, and nothing in them is executed."""

import json
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from clipvip.pipeline.train.checkpoint import (
    DamagedCheckpoint,
    TrainState,
    load_checkpoint,
    save_checkpoint,
)
from clipvip.pipeline.train.distributed import Place, meeting_place
from clipvip.pipeline.train.tensor_files import share_out
from clipvip.shards.errors import Skip

ALONE = Place(0, 1, torch.device("cpu"))
Things = tuple[torch.nn.Module, torch.optim.Optimizer]


def make(seed: int, *, steps: int = 0) -> Things:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.Linear(3, 2).bfloat16())
    model.register_buffer("scale", torch.tensor(2.5))
    model.register_buffer("places", torch.arange(4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    return model, optimizer


def tensors_of(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    of_optimizer = {
        f"{name}/{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }
    return {**model.state_dict(), **of_optimizer}


def assert_equal(found: Things, expected: Things) -> None:
    left, right = tensors_of(*found), tensors_of(*expected)
    assert left.keys() == right.keys()
    assert all(
        torch.equal(left[name], right[name]) and left[name].dtype == right[name].dtype for name in left
    )


STATE = TrainState(step=7, rows_without_caption=3, skips={("why", "what"): Skip("why", "what", "detail")})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    (out / "recipe.yaml").write_text("seed: 1\n")
    (out / "data.json").write_text("{}\n")
    return save_checkpoint(out, STATE, *make(1, steps=2), keep=2, place=ALONE)


def save_as_before(folder: Path) -> Path:
    """As earlier versions did, by torch.distributed.checkpoint."""
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    from clipvip.pipeline.train import checkpoint
    from clipvip.shards.files.atomic import write_json

    model, optimizer = make(1, steps=2)
    tensors = {
        **checkpoint._shared_tensors(model, optimizer),
        **checkpoint._rng_tensors(ALONE),
    }
    with pytest.warns(UserWarning, match="torch.distributed is disabled"):
        save(tensors, storage_writer=FileSystemWriter(folder), no_dist=True)
    write_json(folder / "state.json", STATE.as_json())
    return folder


def test_what_is_saved_is_loaded(saved: Path) -> None:
    torch.manual_seed(1)
    expected = make(1, steps=2)
    after = torch.rand(3)
    found = make(2)
    assert load_checkpoint(saved, *found, place=ALONE) == STATE
    assert_equal(found, expected)
    assert torch.equal(torch.rand(3), after)  # the random generator too
    assert sorted(path.name for path in saved.iterdir()) == [
        "checksums.json",
        "data.json",
        "recipe.yaml",
        "state.json",
        "tensors-00000.safetensors",
    ]
    stored = load_file(saved / "tensors-00000.safetensors")
    assert torch.equal(stored["model/0.weight"], expected[0].state_dict()["0.weight"])


@pytest.mark.parametrize("has_old_format", [False, True])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_anywhere_is_found(
    tmp_path_factory: pytest.TempPathFactory, saved: Path, has_old_format: bool, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("flipped") / "step-00000007"
    if has_old_format:
        folder.mkdir()
        save_as_before(folder)
        paths = [folder / "__0_0.distcp"]  # state and table had no checksum
    else:
        shutil.copytree(saved, folder)
        paths = sorted(folder.iterdir())
    path = data.draw(st.sampled_from(paths))
    content = bytearray(path.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    expected, found = make(1, steps=2), make(2)
    try:
        load_checkpoint(folder, *found, place=ALONE)
    except DamagedCheckpoint as error:
        assert str(error).startswith(f"{folder}: not a whole checkpoint (") and "\n" not in str(error)
        return
    assert has_old_format  # a bit of padding, or of a header's time: no tensor has it
    assert_equal(found, expected)


def test_a_flipped_bit_of_an_archives_table_gives_no_other_numbers(tmp_path: Path) -> None:
    """Each tensor of earlier versions is an archive; its table says where its files lie."""
    folder = save_as_before(tmp_path / "step-00000007")
    path = folder / "__0_0.distcp"
    content = path.read_bytes()
    tables = [found.start() for found in re.finditer(rb"PK\x01\x02", content)]
    some = random.Random(0).sample([8 * start + bit for start in tables for bit in range(8 * 60)], 300)
    is_folder = [8 * (start + 38) + 4 for start in tables]  # torch takes a file for a folder, and no bytes
    expected, num_found = make(1, steps=2), 0
    for bit in (*some, *is_folder):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        loaded = make(2)
        try:
            load_checkpoint(folder, *loaded, place=ALONE)
        except DamagedCheckpoint:
            num_found += 1
        else:
            assert_equal(loaded, expected)
    assert 50 < num_found < len(some)


def test_checkpoints_of_earlier_versions_are_loaded(tmp_path: Path) -> None:
    folder = save_as_before(tmp_path / "step-00000007")
    found = make(2)
    assert load_checkpoint(folder, *found, place=ALONE) == STATE
    assert_equal(found, make(1, steps=2))
    os.truncate(folder / "__0_0.distcp", 5000)
    with pytest.raises(DamagedCheckpoint, match=r"__0_0\.distcp"):
        load_checkpoint(folder, *make(2), place=ALONE)


class _Touches:
    def __init__(self, path: Path, how: Callable[..., object]) -> None:
        self._path, self._how = path, how

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return self._how, (f"touch {self._path}" if self._how is os.system else str(self._path),)


@pytest.mark.parametrize("how", [os.system, os.mkdir, torch.serialization.load])
@pytest.mark.parametrize("is_old", [True, False])
def test_nothing_in_a_checkpoint_is_executed(
    saved: Path, tmp_path: Path, how: Callable[..., object], is_old: bool
) -> None:
    folder, mark = tmp_path / "step-00000007", tmp_path / "executed"
    if is_old:
        save_as_before(folder)
    else:
        shutil.copytree(saved, folder)
    (folder / ".metadata").write_bytes(pickle.dumps({"storage_data": _Touches(mark, how)}))
    found = make(2)
    if is_old:
        with pytest.raises(
            DamagedCheckpoint, match=r"\.metadata: UnpicklingError: names .*no checkpoint does"
        ):
            load_checkpoint(folder, *found, place=ALONE)
    else:  # nobody looks at it
        load_checkpoint(folder, *found, place=ALONE)
        assert_equal(found, make(1, steps=2))
    assert not mark.exists()


def test_a_checkpoint_whose_checksums_were_taken_away_is_not_believed(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "step-00000007"
    shutil.copytree(saved, folder)
    (folder / "checksums.json").unlink()
    with pytest.raises(DamagedCheckpoint, match=r"checksums\.json"):
        load_checkpoint(folder, *make(2), place=ALONE)


@given(st.dictionaries(st.text(), st.integers(0, 1000), max_size=30), st.integers(1, 9))
def test_processes_share_out_what_they_write(sizes: dict[str, int], parts: int) -> None:
    shares = share_out(sizes, parts)
    assert len(shares) == parts
    assert sorted(name for share in shares for name in share) == sorted(sizes)
    loads = [sum(sizes[name] for name in share) for share in shares]
    assert max(loads) - min(loads) <= max(sizes.values(), default=0)


@pytest.mark.slow
def test_a_save_that_finds_no_room_leaves_nothing(tmp_path: Path) -> None:
    """The disk is as full as the size of a file allows; another process does not share this limit."""
    code = """
import resource, sys, torch
from pathlib import Path
from clipvip.pipeline.train.checkpoint import TrainState, save_checkpoint
from clipvip.pipeline.train.distributed import Place, process_group
model = torch.nn.Sequential(torch.nn.Linear(100, 100), torch.nn.Linear(100, 100))
optimizer = torch.optim.AdamW(model.parameters())
with process_group("cpu") as place:
    if place.rank == place.world_size - 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
    try:
        save_checkpoint(Path(sys.argv[1]), TrainState(step=1), model, optimizer, keep=2, place=place)
    except OSError as error:
        print(error.strerror, error.filename)
"""
    for world_size in (1, 2):
        out = tmp_path / str(world_size)
        with meeting_place() as meeting:
            processes = [
                subprocess.Popen(
                    [sys.executable, "-c", code, str(out)],
                    env=os.environ
                    | meeting
                    | (
                        {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
                        if world_size > 1
                        else {}
                    ),
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for rank in range(world_size)
            ]
            said = [process.communicate(timeout=100)[0] for process in processes]
        for words in said:
            assert words.startswith("File too large") and f"tensors-0000{world_size - 1}" in words, said
        assert (out / "checkpoints").is_dir() and not list((out / "checkpoints").iterdir())


def test_checksums_of_nothing_make_no_checkpoint(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "step-00000007"
    shutil.copytree(saved, folder)
    whole = json.loads((folder / "checksums.json").read_text())["files"]
    for lacking in (whole.keys(), {"state.json"}, {"tensors-00000.safetensors"}):
        files = {name: row for name, row in whole.items() if name not in lacking}
        (folder / "checksums.json").write_text(json.dumps({"schema": 1, "files": files}))
        with pytest.raises(DamagedCheckpoint, match=r"checksums\.json: damaged"):
            load_checkpoint(folder, *make(2), place=ALONE)
