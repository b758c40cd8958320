"""A training run knows its data by content: whatever it is called, wherever it lies, whoever cached it."""

import json
import os
import shutil
from pathlib import Path

import pytest
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st

import commands
from clipvip.pipeline.train.checkpoint import list_checkpoints
from clipvip.pipeline.train.command import main
from clipvip.pipeline.train.data_record import recorded_data
from clipvip.shards.files.hashes import sha256_of_file
from clipvip.shards.format.captions import write_captions
from clipvip.shards.format.manifest import ShardRecord, write_manifest
from clipvip.shards.tar.writer import write_shard
from make_shards import make_shard_folder, stored_clip
from tiny_clip import make_clip

RECIPE = """
data: {num_frames: 2, max_text_tokens: 20}
optim: {batch_size: 4, epochs: 2, learning_rate: 1e-3, warmup_fraction: 0}
run: {workers: 0, device: cpu, log_every_steps: 1, save_every_steps: 2, keep_checkpoints: 9,
  tensorboard: false}
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    (folder / "recipe.yaml").write_text(RECIPE)
    make_clip(folder / "clip")
    make_shard_folder(folder / "clips", num_shards=2, clips_per_shard=5)
    write_all_captions(folder / "captions", "sight of")
    return folder


def write_all_captions(folder: Path, words: str) -> Path:
    folder.mkdir()
    for shard in range(2):
        rows = [(f"video{shard}_{number:05d}", f"{words} clip {number}") for number in range(5)]
        write_captions(folder / f"{shard:06d}.parquet", rows)
    return folder


def run(world: Path, out: Path, *more: str) -> Result:
    """The command; later options win."""
    options = ["--shards", str(world / "clips")]
    options += [] if "--captions" in more else ["--captions", str(world / "captions")]  # they add up
    init = ["--init", str(world / "clip"), "--out", str(out)]
    return commands.run(world / "recipe.yaml", *options, *init, *more, program=main)


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    result = run(world, out)
    assert result.exit_code == 0, result.output
    assert len(losses(out)) == 5  # two epochs of ten clips in batches of four
    return out


@pytest.fixture
def interrupted(undisturbed: Path, tmp_path: Path) -> Path:
    """The run as it is when it was killed after two steps."""
    out = tmp_path / "interrupted"
    shutil.copytree(undisturbed, out)
    for folder in list_checkpoints(out)[1:]:
        shutil.rmtree(folder)
    shutil.rmtree(out / "model")
    return out


@pytest.mark.parametrize("how", ["moved", "url", "urls", "files"])
def test_the_same_data_elsewhere_go_on_to_the_same_bytes(
    world: Path, undisturbed: Path, interrupted: Path, tmp_path: Path, how: str
) -> None:
    shutil.copytree(world / "clips", tmp_path / "elsewhere")
    shutil.copytree(world / "captions", tmp_path / "words")
    shards = {
        "moved": str(tmp_path / "elsewhere"),
        "url": f"file:{tmp_path / 'elsewhere'}",
        "urls": f"file:{tmp_path / 'elsewhere'}/{{000000..000001}}.tar",
        "files": f"{tmp_path / 'elsewhere'}/{{000000..000001}}.tar",
    }[how]
    result = run(world, interrupted, "--shards", shards, "--captions", str(tmp_path / "words"))
    assert result.exit_code == 0, result.output
    for name in ("log.jsonl", "model/model.safetensors"):
        assert (interrupted / name).read_bytes() == (undisturbed / name).read_bytes(), name


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_damaged_note_of_the_data_refuses_nothing(
    undisturbed: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """One bit of a note in a checkpoint or beside them: the whole one of another checkpoint counts."""
    out = tmp_path_factory.mktemp("damaged") / "out"
    shutil.copytree(undisturbed, out)
    expected = recorded_data(out)
    path = data.draw(st.sampled_from([out / "data.json", list_checkpoints(out)[-1] / "data.json"]))
    content = bytearray(path.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    assert recorded_data(out) == expected is not None
    for folder in list_checkpoints(out):
        (folder / "checksums.json").unlink()
    recorded_data(out)  # nothing, or what it says


def add_shard(folder: Path) -> None:
    records = [
        write_shard(folder / f"{shard:06d}.tar", [stored_clip(f"video{shard}", n) for n in range(5)])
        for shard in range(3)
    ]
    write_manifest(folder, stage="shard", options={}, shards=records)


def remove_shard(folder: Path) -> None:
    (folder / "000001.tar").unlink()
    record = write_shard(folder / "000000.tar", [stored_clip("video0", n) for n in range(5)])
    write_manifest(folder, stage="shard", options={}, shards=[record])


def change_shard(folder: Path) -> None:
    clips = [[stored_clip(f"video{s}", n, subtitle="new" if s else "") for n in range(5)] for s in range(2)]
    records = [write_shard(folder / f"{shard:06d}.tar", stored) for shard, stored in enumerate(clips)]
    write_manifest(folder, stage="shard", options={}, shards=records)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (add_shard, "source clips: 1 shard added (000002)"),
        (remove_shard, "source clips: 1 shard removed (000001)"),
        (change_shard, "source clips: 1 shard changed (000001)"),
    ],
)
@pytest.mark.parametrize("has_manifest", [True, False])
def test_other_shards_are_refused_in_one_line(
    world: Path, tmp_path: Path, change: object, message: str, has_manifest: bool
) -> None:
    folder, out = tmp_path / "clips", tmp_path / "out"
    shutil.copytree(world / "clips", folder)
    if not has_manifest:
        (folder / "manifest.json").unlink()
    more = ["--shards", str(folder), "--set", "optim.epochs=null", "--set", "optim.steps=2"]
    assert run(world, out, *more).exit_code == 0
    change(folder)  # type: ignore[operator]
    if not has_manifest:
        (folder / "manifest.json").unlink()
    before = sorted(path.name for path in out.iterdir())
    result = run(world, out, *more)
    assert result.exit_code == 1
    assert f"holds checkpoints of a run on other data ({message})" in result.stderr
    assert result.stderr.count("\n") == 1
    assert sorted(path.name for path in out.iterdir()) == before


def test_other_captions_and_other_splits_are_refused(world: Path, interrupted: Path, tmp_path: Path) -> None:
    other = write_all_captions(tmp_path / "captions", "view of")
    result = run(world, interrupted, "--captions", str(other))
    assert result.exit_code == 1
    assert "on other data (source clips: other captions); give the same data" in result.stderr
    split = make_shard_folder(tmp_path / "split", num_shards=1, clips_per_shard=3, num_frames=4)
    result = run(world, interrupted, "--validation", str(split))
    assert result.exit_code == 1
    assert "another validation split" in result.stderr


@pytest.mark.parametrize("how", ["another shard's bytes", "one byte", "captions"])
def test_what_was_changed_in_place_behind_its_manifest_is_refused(
    world: Path, tmp_path: Path, how: str
) -> None:
    shards, captions, out = tmp_path / "clips", tmp_path / "captions", tmp_path / "out"
    shutil.copytree(world / "clips", shards)
    write_all_captions(captions, "sight of")
    records = [
        ShardRecord(path.name, 5, path.stat().st_size, sha256_of_file(path))
        for path in sorted(captions.glob("*.parquet"))
    ]
    write_manifest(captions, stage="caption", options={}, shards=records)
    more = ["--shards", str(shards), "--captions", str(captions)]
    more += ["--set", "optim.epochs=null", "--set", "optim.steps=2"]
    assert run(world, out, *more).exit_code == 0
    if how == "captions":
        rows = [(f"video1_{number:05d}", f"fight of clip {number}") for number in range(5)]
        write_captions(captions / "000001.parquet", rows)
        changed = captions / "000001.parquet"
    else:
        changed = shards / "000001.tar"
        data = bytearray(changed.read_bytes() + bytes(512 if how == "another shard's bytes" else 0))
        data[data.index(b"words of")] ^= 2
        changed.write_bytes(data)
    later = changed.stat().st_mtime + 5  # clocks of file systems tick slowly
    os.utime(changed, (later, later))
    result = run(world, out, *more)
    assert result.exit_code == 1, result.output
    what = "other captions" if how == "captions" else "1 shard changed (000001)"
    assert f"on other data (source clips: {what})" in result.stderr


def test_a_run_without_a_note_of_its_data_goes_on_and_gets_one(
    world: Path, undisturbed: Path, interrupted: Path, tmp_path: Path
) -> None:
    """As earlier versions left it: in their order of samples, which drops what does not fill a batch."""
    (interrupted / "data.json").unlink()
    (folder,) = list_checkpoints(interrupted)
    (folder / "data.json").unlink()
    sums = json.loads((folder / "checksums.json").read_text())
    del sums["files"]["data.json"]
    (folder / "checksums.json").write_text(json.dumps(sums))
    shutil.copytree(world / "clips", tmp_path / "elsewhere")
    refused = run(world, interrupted, "--shards", str(tmp_path / "elsewhere"))
    assert refused.exit_code == 1 and "another recipe (data.sources.clips.shards" in refused.stderr
    result = run(world, interrupted)
    assert result.exit_code == 0, result.output
    assert json.loads((interrupted / "data.json").read_text())["order"] == 1
    assert len(losses(interrupted)) == 4
    assert losses(interrupted)[:2] == losses(undisturbed)[:2]
    result = run(world, interrupted, "--shards", str(tmp_path / "elsewhere"))
    assert result.exit_code == 0, result.output


def test_a_cache_used_for_other_data_before_gives_their_own(world: Path, tmp_path: Path) -> None:
    for name in ("a", "b", "bare-a", "bare-b"):
        folder = make_shard_folder(tmp_path / name, num_shards=2, clips_per_shard=4)
        records = [
            write_shard(
                folder / f"{s:06d}.tar", [stored_clip(f"{name[-1]}{s}", n, width=40) for n in range(4)]
            )
            for s in range(2)
        ]
        write_manifest(folder, stage="shard", options={}, shards=records)
        if name.startswith("bare"):
            (folder / "manifest.json").unlink()

    def loss(name: str, cache: str) -> float:
        out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
        more = ["--shards", f"file:{tmp_path / name}/{{000000..000001}}.tar", "--captions", ""]
        chosen = [
            "loss.pairs=baseline",
            "optim.epochs=null",
            "optim.steps=1",
            f"run.cache={tmp_path / cache}",
        ]
        chosen.append("data.sources.clips.samples_per_shard=4")
        result = run(world, out, *more, *(part for text in chosen for part in ("--set", text)))
        assert result.exit_code == 0, result.output
        return losses(out)[0]

    first = loss("a", "shared")
    clean = loss("b", "clean")
    assert first != clean
    assert loss("b", "shared") == clean
    assert loss("bare-a", "shared") == first
    assert loss("bare-b", "shared") == clean
    # Other data behind the same URL, where its size shows it.
    write_shard(
        tmp_path / "bare-b" / "000000.tar", [stored_clip("c", n, num_frames=200, width=64) for n in range(4)]
    )
    assert loss("bare-b", "shared") == loss("bare-b", "new") != clean


@pytest.mark.parametrize("kind", ["file:", ""])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda manifest: manifest["shards"][0].pop("name"), "shards.0.name: Field required"),
        (lambda manifest: manifest.update(schema=99), "schema '99', this version reads 1"),
        (lambda manifest: manifest.update(shards=[3]), "damaged (shards.0"),
        (lambda manifest: manifest["shards"][1].update(samples=-1), "shards.1.samples"),
        (lambda manifest: manifest["shards"][1].update(name="../x.tar"), "shards.1.name"),
        (lambda manifest: manifest.update(stage="caption"), "holds captions, not shards"),
        (lambda manifest: manifest.pop("shards"), "not a clipvip manifest"),
    ],
)
def test_a_bad_manifest_is_one_line_wherever_it_lies(
    world: Path, tmp_path: Path, kind: str, spoil: object, message: str
) -> None:
    shutil.copytree(world / "clips", tmp_path / "clips")
    manifest = json.loads((tmp_path / "clips" / "manifest.json").read_text())
    spoil(manifest)  # type: ignore[operator]
    (tmp_path / "clips" / "manifest.json").write_text(json.dumps(manifest))
    result = run(world, tmp_path / "out", "--shards", f"{kind}{tmp_path / 'clips'}", "--dry-run")
    assert result.exit_code == 1, result.output
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_one_usable_sample_is_not_trained_on_copies_of_itself(world: Path, tmp_path: Path) -> None:
    folder = make_shard_folder(tmp_path / "clips", num_shards=1, clips_per_shard=8)
    write_shard(folder / "000000.tar", [stored_clip("v", n, subtitle=" " if n else "") for n in range(8)])
    result = run(world, tmp_path / "out", "--shards", str(folder), "--set", "loss.pairs=baseline")
    assert result.exit_code == 1
    assert (
        "source clips: 1 of its 8 samples can be used (empty_subtitle 7), and a batch takes 4"
        in result.stderr
    )
    assert "loss.pairs=V-C" in result.stderr
    assert not (tmp_path / "out").exists()


def test_copies_of_one_clip_are_one_clip(world: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    for shard in range(4):
        write_shard(folder / f"{shard:06d}.tar", [stored_clip("v", 0)])
    result = run(world, tmp_path / "out", "--shards", str(folder), "--set", "loss.pairs=baseline")
    assert result.exit_code == 1
    assert "1 of its 4 samples can be used (there_more_than_once 3), and a batch takes 4" in result.stderr


def test_captions_of_others_need_no_more_than_key_and_caption(world: Path, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "words").mkdir()
    for shard in range(2):
        keys = [f"video{shard}_{number:05d}" for number in range(5)]
        table = pyarrow.table({"key": keys, "caption": [f"sight of {key}" for key in keys]})
        pyarrow.parquet.write_table(table, tmp_path / "words" / f"{shard:06d}.parquet")
    (tmp_path / "words" / "manifest.json").write_text('["of another tool"]')
    more = ["--captions", str(tmp_path / "words"), "--set", "loss.pairs=V-C"]
    result = run(world, tmp_path / "out", *more)
    assert result.exit_code == 0, result.output
    assert (
        json.loads((tmp_path / "out" / "report.json").read_text())["counts"]["samples_without_caption"] == 0
    )
