"""Captions from Python, and how GPUs are shared and filled."""

import fcntl
import json
from pathlib import Path

import pytest

import clipvip
from clipvip.model.image_captioner import gpu_batch_size
from clipvip.pipeline.runtime import device
from clipvip.pipeline.runtime.errors import UserError
from clipvip.shards.errors import DatasetError
from commands import run_well
from outputs import content
from stage_commands import caption_command


@pytest.mark.slow
def test_the_function_makes_what_the_command_makes(tmp_path: Path) -> None:
    arguments = [*caption_command(tmp_path), "--num-beams", 2, "--out", tmp_path / "one", "--json"]
    result = run_well(*arguments)
    given = {"shards": tmp_path / "shards", "model": tmp_path / "ofa", "num_beams": 2, "gpus": 0}
    report = clipvip.caption(out=tmp_path / "two", **given)
    assert report.counts == {"clips": 30, "captions": 30, "shards": 6}
    assert content(tmp_path / "two") == content(tmp_path / "one")
    assert json.loads(result.stdout) | {"this_run": None} == report.content | {"this_run": None}
    planned = clipvip.caption(out=tmp_path / "two", dry_run=True, **given)
    assert planned.counts == {"clips": 30, "shards": 6, "shards_done": 6}
    with pytest.raises(DatasetError, match="made with other options"):
        clipvip.caption(out=tmp_path / "two", **given | {"num_beams": 3})


def test_each_worker_has_a_gpu_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "CLAIM_SECONDS", 0.3)
    (tmp_path / "_state").mkdir()
    with (tmp_path / "_state/gpu0.lock").open("ab") as of_another_worker:
        fcntl.flock(of_another_worker, fcntl.LOCK_EX)
        assert [device.claim_gpu(tmp_path, 3) for _ in range(2)] == [1, 2]
        with pytest.raises(UserError, match="still use all GPUs"):
            device.claim_gpu(tmp_path, 3)
    assert device.claim_gpu(tmp_path, 3) == 0


@pytest.mark.parametrize(("gib", "frames"), [(0, 32), (11, 32), (15.8, 64), (39.5, 256), (79.2, 256)])
def test_a_larger_gpu_gets_larger_batches(gib: float, frames: int) -> None:
    assert gpu_batch_size(int(gib * 2**30)) == frames
