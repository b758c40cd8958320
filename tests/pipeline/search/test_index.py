"""The search's index: which shards it encodes again, and damage, kills and rebuilds."""

import json
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from clipvip.pipeline.evaluate.embeddings import ClipEmbeddings
from clipvip.pipeline.runtime.errors import UserError
from clipvip.pipeline.search.index import (
    Maker,
    Piece,
    Shard,
    load_index,
    nearest,
    require_index,
    shards_of,
    update_index,
)
from clipvip.shards.checking.folder import check_folder
from clipvip.shards.errors import Skip
from clipvip.shards.files.hashes import sha256_of_file
from clipvip.shards.format.manifest import write_manifest
from clipvip.shards.tar.writer import write_shard
from commands import error_of, start
from make_shards import make_shard_folder, stored_clip
from outputs import content
from search_folders import expected, list_again, make_model, run, run_well

MAKER = Maker("model", 4, 2)


def test_only_shards_that_changed_are_encoded_again(model: Path, shards: Path, tmp_path: Path) -> None:
    options = ["--model", model, "--shards", shards]
    first = run_well("a", *options)
    assert f"search: 3 shards, 12 clips -> {shards / 'search'}" in first.stderr
    assert not any("search" in note for note in check_folder(shards, extension=".tar").notes)
    before = {path.name: path.stat().st_mtime_ns for path in (shards / "search").iterdir()}
    again = run_well("a", *options)
    assert again.stdout == first.stdout and again.stderr == ""
    assert before == {path.name: path.stat().st_mtime_ns for path in (shards / "search").iterdir()}

    (shards / "000000.tar").unlink()
    write_shard(shards / "000001.tar", [stored_clip("other", number) for number in range(2)])
    write_shard(shards / "000003.tar", [stored_clip("new", 0)])
    list_again(shards)
    run_well(*options)
    report = json.loads((shards / "search/report.json").read_text())
    assert report["counts"] == {"shards": 3, "clips": 7} and report["this_run"]["clips"] == 3
    after = {path.name: path.stat().st_mtime_ns for path in (shards / "search").iterdir()}
    assert "000000.safetensors" not in after and "000003.safetensors" in after
    assert after["000002.safetensors"] == before["000002.safetensors"]
    assert after["000001.safetensors"] != before["000001.safetensors"]
    run_well("--index", tmp_path / "anew", *options)
    assert content(tmp_path / "anew") == content(shards / "search")


def test_without_a_manifest_the_files_themselves_tell(model: Path, shards: Path) -> None:
    (shards / "manifest.json").unlink()
    options = ["--model", model, "--shards", shards]
    run_well(*options)
    write_shard(shards / "000001.tar", [stored_clip("other", 0)])
    run_well(*options)
    report = json.loads((shards / "search/report.json").read_text())
    assert report["counts"]["clips"] == 9 and report["this_run"]["clips"] == 1


def test_another_models_index_is_refused_until_it_is_rebuilt(
    model: Path, shards: Path, tmp_path: Path
) -> None:
    run_well("--model", model, "--shards", shards)
    before = content(shards / "search")
    other = make_model(tmp_path / "other", seed=1)
    assert "made by another model; give that one" in error_of(run("a", "--model", other, "--shards", shards))
    frames = ["--model", model, "--shards", shards, "--num-frames", 3]
    assert "made with 4 frames a clip, not 3; give --num-frames 4" in error_of(run("a", *frames))
    same_weights = shutil.copytree(model, tmp_path / "same")
    config = json.loads((same_weights / "config.json").read_text())
    config["vision_config"]["hidden_act"] = "gelu"
    (same_weights / "config.json").write_text(json.dumps(config))
    assert "made by another model" in error_of(run("a", "--model", same_weights, "--shards", shards))
    assert content(shards / "search") == before

    run_well("--model", other, "--shards", shards, "--rebuild")
    found = run_well("a dog", "--model", other, "--shards", shards, "--json", "--top", 1)
    assert json.loads(found.stdout)["clips"][0]["key"] == expected(other, shards, "a dog")[0][1]
    run_well("--model", other, "--shards", shards, "--index", tmp_path / "anew")
    assert content(tmp_path / "anew") == content(shards / "search")
    # The same weights under another name are the same model.
    moved = shutil.copytree(other, tmp_path / "moved")
    assert run_well("a", "--model", moved, "--shards", shards).stderr == ""


def test_damaged_samples_are_passed_over_and_come_back_once_repaired(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    clips = [stored_clip("v", number) for number in range(3)]
    broken = replace(clips[1], pixels=b"\0" * len(clips[1].pixels))
    whole = write_shard(folder / "000000.tar", clips)
    write_shard(folder / "000000.tar", [clips[0], broken, clips[2]])
    write_manifest(folder, stage="shard", options={}, shards=[whole])
    result = run_well("a", "--model", model, "--shards", folder)
    assert '"a": 2 of 2 clips' in result.stdout
    assert (
        "skipped 1: damaged_sample 1" in result.stderr
        and "not the file that the manifest lists" in result.stderr
    )
    (skip,) = (folder / "search/skipped.jsonl").read_text().splitlines()
    assert json.loads(skip)["what"] == "v_00001"
    write_shard(folder / "000000.tar", clips)
    assert '"a": 3 of 3 clips' in run_well("a", "--model", model, "--shards", folder).stdout

    write_shard(folder / "000000.tar", [broken])
    list_again(folder)
    assert "none of 1 clip can be used: damaged_sample 1" in error_of(
        run("a", "--model", model, "--shards", folder)
    )
    assert run_well("--model", model, "--shards", folder).exit_code == 0


def test_damaged_pieces_are_made_again(model: Path, shards: Path) -> None:
    options = ["--model", model, "--shards", shards]
    run_well(*options)
    before = content(shards / "search")
    for damage in (b"", b"\0" * 40, before["000001.safetensors"][:-8], before["000000.safetensors"]):
        (shards / "search/000001.safetensors").write_bytes(damage)
        run_well("a", *options)
        assert content(shards / "search") == before


def test_an_interrupted_build_goes_on(
    model: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--model", model, "--shards", shards]
    run_well("--index", tmp_path / "whole", *options)
    run_well("--index", tmp_path / "cut", *options)
    (tmp_path / "cut/000002.safetensors").unlink()
    (tmp_path / "cut/000001.safetensors").rename(tmp_path / "cut/.000001.safetensors.partial")
    (tmp_path / "cut/report.json").unlink()
    run_well("a", "--index", tmp_path / "cut", *options)
    assert content(tmp_path / "cut") == content(tmp_path / "whole")
    assert json.loads((tmp_path / "cut/report.json").read_text())["this_run"]["clips"] == 8

    # All pieces are there, but the run ended before its report.
    (tmp_path / "cut/report.json").unlink()
    run_well("--index", tmp_path / "cut", *options)
    assert json.loads((tmp_path / "cut/report.json").read_text())["counts"] == {"shards": 3, "clips": 12}


@pytest.mark.slow
def test_a_build_that_is_killed_goes_on(model: Path, tmp_path: Path) -> None:
    shards = make_shard_folder(tmp_path / "clips", num_shards=12, clips_per_shard=8, num_frames=4)
    words = ("search", "--device", "cpu", "--model", str(model), "--shards", str(shards))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    build = start(*words, program="clipvip.pipeline.evaluate.cli", env=environment)
    deadline = time.monotonic() + 240
    while not (shards / "search/000002.safetensors").exists():
        assert build.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)
    build.send_signal(signal.SIGKILL)
    build.communicate()
    assert not (shards / "search/report.json").exists()
    run_well("a", "--model", model, "--shards", shards)
    run_well("--index", tmp_path / "whole", "--model", model, "--shards", shards)
    assert content(shards / "search") == content(tmp_path / "whole")
    done = json.loads((shards / "search/report.json").read_text())["this_run"]["clips"]
    assert 0 < done < 12 * 8


def test_two_runs_do_not_build_one_index(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(b"")
    shard = Shard(tmp_path / "0.tar", sha256_of_file(tmp_path / "0.tar"), None)

    def encode(_: Path) -> ClipEmbeddings[str]:
        with pytest.raises(UserError, match="another run is building this index"):
            update_index(tmp_path / "index", [shard], MAKER, encode)
        return ClipEmbeddings(["k"], np.ones((1, 2), np.float32), [])

    (piece,) = update_index(tmp_path / "index", [shard], MAKER, encode)
    assert load_index(tmp_path / "index", [shard], MAKER) == [piece] and piece.keys == ["k"]


def test_a_model_that_says_nan_makes_no_index(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(b"")
    shard = Shard(tmp_path / "0.tar", "", None)
    with pytest.raises(UserError, match="weights may be damaged"):
        update_index(
            tmp_path / "index",
            [shard],
            MAKER,
            lambda _: ClipEmbeddings(["k"], np.full((1, 2), np.nan, np.float32), []),
        )
    assert load_index(tmp_path / "index", [shard], MAKER) == [None]


def test_a_piece_of_nan_is_named(tmp_path: Path) -> None:
    path = tmp_path / "000000.safetensors"
    path.write_bytes(save({"embeddings": np.full((3, 2), np.nan, np.float32)}))
    piece = Piece(path, tmp_path / "000000.tar", "", ["a", "b", "c"], [])
    with pytest.raises(UserError, match=r"000000\.safetensors: damaged"):
        nearest([piece], np.ones((1, 2), np.float32), top=2)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 7), min_size=1, max_size=5),
    top=st.integers(1, 12),
    levels=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_the_nearest_are_those_of_all_clips_sorted(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], top: int, levels: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("index")
    # Whole numbers have exact products, of which many are equal.
    vectors = [random.integers(-levels, levels + 1, (size, 2)).astype(np.float32) for size in sizes]
    queries = random.integers(-levels, levels + 1, (3, 2)).astype(np.float32)
    shards, encoded = [], {}
    for number, rows in enumerate(vectors):
        path = folder / f"{number}.tar"
        path.write_bytes(b"")
        shards.append(Shard(path, sha256_of_file(path), None))
        encoded[path] = ClipEmbeddings(
            [f"{number}_{row}" for row in range(len(rows))], rows, [Skip("r", str(number))]
        )
    pieces: list[Piece] = update_index(folder / "index", shards, MAKER, encoded.__getitem__)
    keys = [(path, key) for path, one in encoded.items() for key in one.about]
    for query, hits in zip(queries, nearest(pieces, queries, top=top), strict=True):
        scores = np.concatenate(vectors) @ query
        order = np.argsort(-scores, kind="stable")[:top]
        assert [hit.similarity for hit in hits] == [scores[place] for place in order]
        assert len({(hit.shard, hit.key) for hit in hits}) == len(hits)
        for hit in hits:
            assert scores[keys.index((hit.shard, hit.key))] == hit.similarity


DAMAGES = ["[" * 9999, "\0" * 50, "[]", "{}", '{"schema": 1, "stage": "search"}',
           '{"schema": 1, "stage": "search", "model_sha256": [], "num_frames": {}, "dim": null}']  # fmt: skip


@pytest.mark.parametrize("content", DAMAGES, ids=range(len(DAMAGES)))
def test_a_damaged_index_is_named_in_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(UserError, match=r"index\.json: .*(remove the folder|another --index)"):
        require_index(tmp_path, MAKER, rebuild=False)


def test_a_flipped_bit_in_a_piece_is_never_accepted(shards: Path, tmp_path: Path) -> None:
    """A damaged head is made again, damaged embeddings are named, pieces without checksums are read."""
    folder, wanted = tmp_path / "index", shards_of(shards)[:1]
    rng = np.random.default_rng(0)
    skips = [Skip("why", "what", "detail ä")]

    def encode(path: Path) -> ClipEmbeddings[str]:
        return ClipEmbeddings(["a", "b"], np.float32([[1, 0], [0, 1]]), skips)

    (piece,) = update_index(folder, wanted, MAKER, encode)
    data = piece.path.read_bytes()
    for bit in rng.choice(8 * len(data), 400, replace=False).tolist():
        spoilt = bytearray(data)
        spoilt[bit // 8] ^= 1 << bit % 8
        piece.path.write_bytes(spoilt)
        (found,) = load_index(folder, wanted, MAKER)
        if found is not None:
            try:
                found.vectors()
                assert found.keys == piece.keys and found.skips == skips
                assert bytes(spoilt[-16:]) == data[-16:]
            except UserError as error:
                assert str(error).startswith(f"{piece.path}: damaged")
    about = {
        "schema": 1,
        "shard_sha256": wanted[0].sha256,
        "model_sha256": "model",
        "num_frames": 4,
        "dim": 2,
    }
    about |= {"keys": ["a", "b"], "skips": []}
    piece.path.write_bytes(
        save({"embeddings": np.eye(2, dtype=np.float32)}, metadata={"clipvip": json.dumps(about)})
    )
    (old,) = load_index(folder, wanted, MAKER)
    assert old is not None and (old.vectors() == np.eye(2)).all()
