"""clipvip-train killed, stopped, damaged and diverged, and what it goes on from."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import commands
from clipvip.pipeline.train.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from clipvip.pipeline.train.distributed import Place
from clipvip.pipeline.train.failures import diverged
from clipvip.pipeline.train.loop import prepare
from clipvip.pipeline.train.recipe import load_recipe
from train_runs import arguments, run


def start(world: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    return commands.start(*arguments(world, out, *more), program="clipvip.pipeline.train.command")


def wait_for_step(process: subprocess.Popen[str], out: Path, step: int) -> None:
    deadline = time.monotonic() + 120
    log = out / "log.jsonl"
    while not log.exists() or log.read_text().count("\n") < step:
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bytes(world: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(world, out)
    wait_for_step(process, out, 17)
    process.kill()
    process.communicate()
    assert not (out / "model").exists()
    (out / "checkpoints" / ".step-00000099.partial").mkdir()  # as a kill while saving leaves it
    result = run(world, out)
    assert result.exit_code == 0, result.output
    assert {k: v.tolist() for k, v in weights(out).items()} == {
        k: v.tolist() for k, v in weights(undisturbed).items()
    }
    for name in ("log.jsonl", "skipped.jsonl", "model/model.safetensors", "model/config.json"):
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes(), name
    assert len(list((out / "checkpoints").iterdir())) == 2
    counts = [json.loads((folder / "report.json").read_text())["counts"] for folder in (out, undisturbed)]
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    ("sent", "exit_code", "more"),
    [
        (signal.SIGINT, 130, []),
        (signal.SIGTERM, 143, ["--set", "run.processes=2"]),
    ],
)
@pytest.mark.slow
def test_a_stopped_run_saves_and_goes_on(
    world: Path, undisturbed: Path, tmp_path: Path, sent: signal.Signals, exit_code: int, more: list[str]
) -> None:
    out = tmp_path / "out"
    process = start(world, out, *more)
    wait_for_step(process, out, 10)
    os.kill(process.pid, sent)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == exit_code, errors
    assert f"Stopped by {sent.name} after step" in errors
    assert "Traceback" not in errors
    stopped_at = max(int(path.name[5:]) for path in (out / "checkpoints").iterdir())
    assert stopped_at == (out / "log.jsonl").read_text().count("\n")  # nothing done is lost
    result = run(world, out)  # with one process, whatever stopped
    assert result.exit_code == 0, result.output
    expected = weights(undisturbed)
    if not more:
        assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(out).items())
    for name, tensor in weights(out).items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-3, rtol=0)


@pytest.mark.parametrize("part", ["state.json", "checksums.json", "tensors-00000.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "gone", "flipped"])
def test_a_run_goes_on_from_the_last_whole_checkpoint(
    world: Path, undisturbed: Path, tmp_path: Path, part: str, damage: str
) -> None:
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    newest = list_checkpoints(out)[-1]
    shutil.rmtree(out / "model")
    spoil(newest / part, damage)
    # With one checkpoint kept, the damaged one must not count.
    result = run(world, out, "--set", "run.keep_checkpoints=1")
    assert result.exit_code == 0, result.output
    assert f"{newest}: not a whole checkpoint" in result.stderr
    assert "going on from an older one" in result.stderr
    for name in ("log.jsonl", "model/model.safetensors"):
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes(), name
    found = sorted(path.name for path in (out / "checkpoints").iterdir())
    assert found == [f"damaged-{newest.name}", newest.name]
    spoil(newest / part, damage)
    result = run(world, out)
    assert result.exit_code == 1
    assert f"{newest}: not a whole checkpoint" in result.stderr
    assert f"there is no older one; remove {out} to begin anew" in result.stderr
    assert result.stderr.count("\n") == 1


def spoil(path: Path, damage: str) -> None:
    if damage == "cut":
        os.truncate(path, path.stat().st_size // 2)
    elif damage == "flipped":
        data = bytearray(path.read_bytes())
        data[2 * len(data) // 3] ^= 1
        path.write_bytes(data)
    else:
        path.unlink()


def test_weights_that_are_no_numbers_are_not_gone_on_from(
    world: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """As a run of an earlier version may have saved them."""
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    newest, place = list_checkpoints(out)[-1], Place(0, 1, torch.device("cpu"))
    job = prepare(load_recipe(str(out / "recipe.yaml")), place, cache=tmp_path)
    state = load_checkpoint(newest, job.model, job.optimizer, place=place)
    with torch.no_grad():
        job.model.visual_projection.weight[0, 0] = torch.nan
    save_checkpoint(out, state, job.model, job.optimizer, keep=2, place=place)
    result = run(world, out)
    assert result.exit_code == 0, result.output
    assert f"{newest}: holds weights that are not finite numbers; going on from an older one" in result.stderr
    assert (out / "model/model.safetensors").read_bytes() == (
        undisturbed / "model/model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        ("1e30", "training diverged at step 2 (loss nan, gradient norm nan)"),
        ("1e38", "training diverged at step 1 (its update made weights that are not finite)"),
    ],
)
def test_a_run_that_diverges_keeps_no_weights_that_are_no_numbers(
    world: Path, tmp_path: Path, rate: str, message: str
) -> None:
    more = ["optim.warmup_fraction=0", "run.save_every_steps=1", f"optim.learning_rate={rate}"]
    result = run(world, tmp_path / "out", *(word for setting in more for word in ("--set", setting)))
    assert result.exit_code == 1
    assert message in result.stderr
    # The weights of step 1 gave the loss of step 2.
    assert "no checkpoint from before that is kept" in result.stderr
    place = Place(0, 1, torch.device("cpu"))
    job = prepare(load_recipe(str(tmp_path / "out/recipe.yaml")), place, cache=tmp_path)
    kept = list_checkpoints(tmp_path / "out")
    assert len(kept) == (1 if rate == "1e30" else 0)  # of step 1
    for folder in kept:
        load_checkpoint(folder, job.model, job.optimizer, place=place)
        assert all(tensor.isfinite().all() for tensor in job.model.state_dict().values()), folder


def test_a_run_that_diverged_names_the_last_checkpoint_that_is_good(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        (tmp_path / f"checkpoints/step-{step:08d}").mkdir(parents=True)
    assert "step-00000004 is from before that" in diverged(tmp_path, 7, "loss nan", last_good=5).message
    assert "no checkpoint from before" in diverged(tmp_path, 3, "loss nan", last_good=1).message
