"""clipvip-train: from a recipe to a model folder, and given nonsense."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from clipvip.model import ClipVip
from clipvip.model.variants import ENCODERS
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.train.command import main
from clipvip.pipeline.train.distributed import process_group
from clipvip.pipeline.train.failures import naming_lack_of_memory
from clipvip.pipeline.train.recipe import load_recipe
from clipvip.shards.files.claims import lock_folder
from make_images import make_images
from train_runs import NUM_STEPS, run


def test_a_run_leaves_a_model_that_loads_and_learned(undisturbed: Path) -> None:
    model = ClipVip.from_pretrained(undisturbed / "model")
    assert model.encode_text(["words of clip 3 of video1"]).shape == (1, 16)
    rows = [json.loads(line) for line in (undisturbed / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, NUM_STEPS + 1))
    assert rows[-1]["loss"] < rows[0]["loss"] - 1
    assert {"logit_scale", "grad_norm", "learning_rate"} <= rows[0].keys()
    terms = [value for name, value in rows[0].items() if name.startswith("loss/clips/")]
    assert len(terms) >= 3
    assert sum(terms) == pytest.approx(rows[0]["loss"], rel=1e-5)
    report = json.loads((undisturbed / "report.json").read_text())
    # One in eight samples has no caption, and the batches go through all of them ten times.
    assert report["counts"] == {"steps": 40, "samples": 240, "samples_without_caption": 30}
    assert report["loss"] == {"first": rows[0]["loss"], "last": rows[-1]["loss"]}
    checkpoints = sorted(path.name for path in (undisturbed / "checkpoints").iterdir())
    assert checkpoints == ["step-00000035", "step-00000040"]


def test_rates_go_to_tensorboard(world: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    more = ["--set", "optim.steps=3", "--set", "run.tensorboard=true"]
    rows = run_rows(world, tmp_path / "out", *more)
    events = EventAccumulator(str(tmp_path / "out" / "tensorboard"))
    events.Reload()
    assert {"speed/samples_per_second", "speed/data_wait_fraction"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3]
    logged = [event.value for event in events.Scalars("train/grad_norm")]
    assert logged == pytest.approx([row["grad_norm"] for row in rows])


def test_the_same_command_after_the_end_changes_nothing(world: Path, undisturbed: Path) -> None:
    before = (undisturbed / "model" / "model.safetensors").read_bytes()
    result = run(world, undisturbed)
    assert result.exit_code == 0, result.output
    assert f"train: {NUM_STEPS} steps" in result.stdout
    assert (undisturbed / "model" / "model.safetensors").read_bytes() == before


def test_checkpoints_of_another_recipe_are_not_mixed_in(world: Path, undisturbed: Path) -> None:
    result = run(world, undisturbed, "--set", "loss.pairs=a")
    assert result.exit_code == 1
    assert "another recipe (loss.pairs: 'd', now 'a')" in result.stderr
    result = run(world, undisturbed, "--resume", "never")
    assert result.exit_code == 1
    assert "--resume is never" in result.stderr


def test_a_start_that_holds_no_numbers_is_refused(world: Path, tmp_path: Path) -> None:
    model = ClipVip.from_clip(world / "clip", temporal_size=8)
    with torch.no_grad():
        model.visual_projection.weight[0, 0] = torch.inf
    model.save_pretrained(tmp_path / "start")
    result = run(world, tmp_path / "out", "--init", str(tmp_path / "start"))
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: {tmp_path / 'start'}: holds weights that are not finite numbers "
        "(such as visual_projection.weight); give another\n"
    )


def test_too_little_memory_says_what_needs_less(world: Path) -> None:
    recipe = load_recipe(str(world / "recipe.yaml"))
    said = r"out of memory .*A smaller run\.chunk_size \(now the whole batch\)"
    with pytest.raises(UserError, match=said), naming_lack_of_memory(recipe):
        torch.empty(2**60)
    with (
        pytest.raises(UserError, match=r"\. run\.chunk_size=3 \(now the whole batch\)"),
        naming_lack_of_memory(recipe) as at_once,
    ):
        at_once.number = 6
        raise torch.OutOfMemoryError("CUDA out of memory.")
    with pytest.raises(RuntimeError, match="shape"), naming_lack_of_memory(recipe):
        torch.empty(3).view(2)


def test_a_rank_beyond_the_gpus_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    with pytest.raises(UserError, match=r"LOCAL_RANK.* finds \d+ GPUs?; start one"), process_group("cuda"):
        pass


def test_checkpoints_remember_their_recipe_themselves(world: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    (out / "recipe.yaml").unlink()
    result = run(world, out, "--set", "loss.pairs=a")
    assert result.exit_code == 1
    assert "another recipe (loss.pairs: 'd', now 'a')" in result.stderr


def test_two_runs_at_once_are_refused(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with lock_folder(out):
        result = run(world, out)
    assert result.exit_code == 1
    assert "another run is writing here" in result.stderr
    assert not (out / "recipe.yaml").exists()


def run_rows(world: Path, out: Path, *more: str) -> list[dict[str, float]]:
    result = run(world, out, *more)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_no_gpus_is_the_processor(world: Path, tmp_path: Path) -> None:
    run_rows(world, tmp_path / "out", "--set", "optim.steps=1", "--set", "run.device=auto", "--gpus", "0")
    assert load_recipe(str(tmp_path / "out" / "recipe.yaml")).run.device == "cpu"


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("proxies", ["1", "3"])
def test_every_encoder_is_trained_averaged_and_saved(
    world: Path, tmp_path: Path, encoder: str, proxies: str
) -> None:
    model = ["--set", f"model.encoder={encoder}", "--set", f"model.num_proxies={proxies}"]
    rows = run_rows(
        world, tmp_path / "out", *model, "--set", "optim.steps=2", "--set", "optim.ema=0.5",
        "--set", "run.save_every_steps=1", "--set", "optim.precision=bf16",
    )  # fmt: skip
    assert len(rows) == 2 and all(row["grad_norm"] > 0 for row in rows)
    assert ClipVip.from_pretrained(tmp_path / "out" / "model").config.encoder == encoder


def test_captions_only(world: Path, tmp_path: Path) -> None:
    rows = run_rows(world, tmp_path / "out", "--set", "optim.steps=2", "--set", "loss.pairs=V-C")
    assert {name for name in rows[0] if name.startswith("loss/")} == {"loss/clips/V->C", "loss/clips/C->V"}


def test_subtitles_with_images_from_elsewhere(world: Path, tmp_path: Path) -> None:
    images = make_images(tmp_path / "images.tar", 9)
    source = f"data.sources.images={{kind: images, shards: {images}, weight: 0.5}}"
    rows = run_rows(
        world, tmp_path / "out", "--set", "optim.steps=3", "--set", "loss.pairs=baseline", "--set", source
    )
    terms = [f"loss/{source}/{term}" for source in ("clips", "images") for term in ("V->S", "S->V")]
    assert {name for name in rows[0] if name.startswith("loss/")} == set(terms)
    assert all(row["loss"] == pytest.approx(sum(row[term] for term in terms), rel=1e-5) for row in rows)


def test_training_starts_from_a_trained_model_too(world: Path, undisturbed: Path, tmp_path: Path) -> None:
    last = json.loads((undisturbed / "log.jsonl").read_text().splitlines()[-1])
    init = ["--init", str(undisturbed / "model"), "--set", "optim.steps=1", "--set", "model.logit_scale=null"]
    (row,) = run_rows(world, tmp_path / "same", *init)
    assert row["logit_scale"] == pytest.approx(last["logit_scale"], abs=1e-3)
    assert row["loss"] < 1.2 * last["loss"]
    # Settings that are given anew keep the weights, as far as they fit.
    assert run_rows(world, tmp_path / "again", *init, "--set", "model.num_proxies=4") == [row]
    refused = run(world, tmp_path / "refused", *init, "--set", "model.temporal_size=6")
    assert refused.exit_code == 1 and "temporal_embedding" in refused.stderr


@pytest.fixture(scope="module")
def plain(world: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    """The log of a run of 3 steps with nothing set."""
    return run_rows(world, tmp_path_factory.mktemp("runs") / "plain", "--set", "optim.steps=3")


@pytest.mark.parametrize(
    ("setting", "tolerance"),
    [
        ("run.checkpoint_activations=true", 1e-4),
        ("run.chunk_size=2", 1e-4),
        ("optim.precision=bf16", 0.2),
        ("optim.precision=fp16", 0.02),
        ("data.resize=device", 1e-2),
        pytest.param("run.compile=true", 1e-3, marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
def test_ways_of_computing_give_the_same_loss(
    world: Path, plain: list[dict[str, float]], tmp_path: Path, setting: str, tolerance: float
) -> None:
    rows = run_rows(world, tmp_path / "out", "--set", "optim.steps=3", "--set", setting)
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in plain], rel=tolerance)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--captions", ""], "needs captions"),
        (["--init", "nothing-there"], "nothing-there: no such folder, and not in the cache"),
        (["--init", "."], ".: no model configuration"),
        (["--shards", "nowhere"], "nowhere: no such folder of shards"),
        (["--set", "optim.batch_size=25"], "which has 24; give --set optim.batch_size=24 or less"),
        (["--set", "optim.batch=25"], "unknown key optim.batch; did you mean optim.batch_size?"),
        (["--set", "data.max_text_tokens=70"], "takes 24 at most"),
        (["--set", "model.encoder=seq_transformer", "--set", "data.num_frames=25"], "takes 24 at most"),
        (["--set", "run.processes=7"], "6 samples in a batch, fewer than the 7 processes"),
        (["--gpus", "64"], "--gpus 64: torch finds"),
        (["--set", "run.wandb_project=x"], "needs wandb, which is not installed"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if "wandb" in more[-1]:
        monkeypatch.setitem(sys.modules, "wandb", None)
    if more[0] == "--gpus":
        more = [*more, "--set", "run.device=cuda"]
    result = run(world, tmp_path / "out", *more)
    assert result.exit_code == 1, result.output
    assert message in result.stderr
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_recipe_is_saved_and_runs_again(undisturbed: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        main, [str(undisturbed / "recipe.yaml"), "--out", str(tmp_path / "again"), "--set", "optim.steps=2"]
    )
    assert result.exit_code == 0, result.output
