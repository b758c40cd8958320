"""`data.keep`: clips of no list are as if they were not there, whoever trains and whatever is stopped."""

import json
import tarfile
from pathlib import Path

import pytest
import torch
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from batch_plans import batches, joined, plan_of
from clipvip.pipeline.runtime.errors import UserError
from commands import error_of, run_well
from make_shards import make_shard_folder
from train_runs import run

KEYS = [f"video{shard}_{number:05d}" for shard in range(3) for number in range(7)]


def write_list(path: Path, keys: list[str]) -> Path:
    path.write_text("".join(f"{key}\n" for key in keys))
    return path


@settings(max_examples=25, deadline=None)
@given(kept=st.sets(st.sampled_from(KEYS), min_size=6))
def test_each_epoch_has_the_listed_clips_once_and_no_others(
    tokenizer: CLIPTokenizer, clips: Path, tmp_path_factory: pytest.TempPathFactory, kept: set[str]
) -> None:
    folder = tmp_path_factory.mktemp("keep")
    listed = folder / "keep.txt"
    listed.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*kept, "gone_00000"]).encode())  # as on Windows
    source = {"clips": {"shards": str(clips)}}
    plan = plan_of(source, folder, data={"keep": str(listed)}, batch_size=3)
    assert plan.order.num_samples == len(kept) and plan.order.steps_per_epoch == -(-len(kept) // 3)
    (note,) = plan.notes
    assert note == f"data.keep {listed}: listed keys or ids without a clip here: 1 ('gone_00000')"
    seen = [key for b in batches(plan, tokenizer, steps=range(len(kept) // 3)) for key in joined(b, "keys")]
    assert len(seen) == len(set(seen)) and set(seen) <= kept
    if len(kept) % 3 == 0:
        assert set(seen) == kept


def test_listed_clips_train_as_a_subset_of_them_does(world: Path, tmp_path: Path) -> None:
    """A subset in the same shards has the same clips in the same order, so the weights are the same bytes."""
    listed = write_list(tmp_path / "keep.txt", [f"video{s}_{n:05d}" for s in (0, 2) for n in (0, 2, 5, 6)])
    run_well("subset", world / "clips", "--keys", listed, "--out", tmp_path / "few", "--shard-size", 4)
    # Captions are found by the names of shards, which a subset has anew: subtitles alone are compared.
    few = ["--set", "optim.steps=4", "--set", "run.save_every_steps=2", "--set", "loss.pairs=baseline"]
    reports = []
    for name, more in (("kept", ["--set", f"data.keep={listed}"]), ("few", ["--shards", tmp_path / "few"])):
        result = run(world, tmp_path / name, *few, *map(str, more))
        assert result.exit_code == 0 and "Warning" not in result.output, result.output
        reports.append(json.loads((tmp_path / name / "report.json").read_text())["counts"])
    assert reports[0] == reports[1]
    for name in ("log.jsonl", "model/model.safetensors"):
        assert (tmp_path / "kept" / name).read_bytes() == (tmp_path / "few" / name).read_bytes(), name


@pytest.mark.slow
def test_two_processes_and_a_resumed_run_have_the_same_clips(world: Path, tmp_path: Path) -> None:
    listed = write_list(tmp_path / "keep.txt", [f"video{s}_{n:05d}" for s in range(3) for n in range(5)])
    keep = ["--set", f"data.keep={listed}", "--set", "optim.steps=4", "--set", "run.save_every_steps=2"]
    for name, more in (("one", []), ("two", ["--set", "run.processes=2"])):
        assert run(world, tmp_path / name, *keep, *more).exit_code == 0
    one, two = (load_file(tmp_path / name / "model/model.safetensors") for name in ("one", "two"))
    for key, tensor in one.items():
        torch.testing.assert_close(tensor, two[key], atol=1e-3, rtol=0)

    # The list is known by which clips it keeps, wherever it lies and in whichever order.
    moved = write_list(tmp_path / "moved.txt", listed.read_text().split()[::-1])
    again = run(world, tmp_path / "one", *keep, "--set", f"data.keep={moved}")
    assert again.exit_code == 0, again.output
    other = write_list(tmp_path / "other.txt", [*listed.read_text().split()[1:], "video0_00007"])
    wrong = run(world, tmp_path / "one", *keep, "--set", f"data.keep={other}")
    assert "a run on other data (source clips: another list of clips to keep (data.keep))" in error_of(wrong)
    everything = run(world, tmp_path / "one", *keep, "--set", "data.keep=null")
    assert "a run on other data (source clips: 3 shards changed" in error_of(everything)


def _fails(world: Path, out: Path, keep: Path) -> Result:
    return run(world, out, "--set", f"data.keep={keep}")


def test_lists_that_cannot_be_used_are_one_line(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    nothing = write_list(tmp_path / "nothing.txt", ["a_00000", "b_00000"])
    for keep, line in (
        (tmp_path / "none.txt", "none.txt: no such file"),
        (write_list(tmp_path / "empty.txt", []), "empty.txt: lists nothing"),
        (nothing, f"data.keep {nothing}: lists no clip of source clips; give a list of these shards"),
        (write_list(tmp_path / "few.txt", ["video0_00000"]), "takes 6 samples of source clips, which has 1"),
    ):
        assert line in error_of(_fails(world, out, keep))
        assert not (out / "model").exists()


def test_a_list_is_for_clips(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.keep lists clips, and no source is of kind clips"):
        plan_of({"pictures": {"kind": "images", "shards": "x"}}, tmp_path, data={"keep": "keep.txt"})


def test_clips_that_are_not_kept_are_not_read(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    folder = make_shard_folder(tmp_path / "clips", num_shards=1, clips_per_shard=8)
    path = folder / "000000.tar"
    with tarfile.open(path) as tar:
        members = {member.name: member for member in tar}
    with path.open("r+b") as file:
        for number in (0, 3):
            file.seek(members[f"video0_{number:05d}.mjpg"].offset_data)
            file.write(b"\0" * members[f"video0_{number:05d}.mjpg"].size)
    kept = [f"video0_{number:05d}" for number in (1, 2, 4, 5, 6, 7)]
    listed = write_list(tmp_path / "keep.txt", kept)
    plan = plan_of({"clips": {"shards": str(folder)}}, tmp_path, data={"keep": str(listed)})
    (batch,) = batches(plan, tokenizer, steps=range(1))
    assert sorted(joined(batch, "keys")) == kept and not joined(batch, "skips")
