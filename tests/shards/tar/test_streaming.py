"""`decode_clip` in webdataset pipelines gives what our reader gives, or an error that a handler catches."""

import multiprocessing
import shutil
import sys
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch
import webdataset as wds
from torch.utils.data import DataLoader

import clipvip.shards
from clipvip.media.mp4 import Mp4Encoder
from clipvip.model.preprocess import preprocess_frames
from clipvip.shards import (
    DatasetError,
    decode_clip,
    jittered_indices,
    list_shards,
    read_shard,
    uniform_indices,
)
from clipvip.shards.format.captions import captions_path, shard_source, write_captions
from clipvip.shards.format.clip import StoredClip
from clipvip.shards.tar.streaming import resize
from clipvip.shards.tar.writer import write_shard
from make_shards import changed, make_shard_folder, stored_clip
from mutate_shards import Mutant, mutants, originals
from s3_server import s3_server, use_s3


def dataset(urls: Any, **options: Any) -> Any:
    return wds.WebDataset(urls, shardshuffle=False, **options)


def as_video(clip: StoredClip) -> StoredClip:
    """The same clip as `--store video` stores it."""
    record = clip.record
    encoder = Mp4Encoder(record.width, record.height, fps=3, crf=18)
    for number in range(len(record.frame_seconds)):
        encoder.add(np.full((record.height * 3 // 2, record.width), 8 * number, np.uint8), number / 3)
    return changed(clip, encoder.finish(), frame_bytes=[])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of four clips."""
    return make_shard_folder(tmp_path_factory.mktemp("shards") / "clips", num_frames=30)


def expected(folder: Path, num_frames: int = 12) -> dict[str, np.ndarray]:
    return {
        sample.key: sample.decode(uniform_indices(sample.num_frames, num_frames))
        for shard in list_shards(folder)
        for sample in read_shard(shard)
    }


@pytest.mark.parametrize("store", ["frames", "video"])
@pytest.mark.parametrize("num_stored", [30, 5])
def test_frames_are_those_of_our_reader(tmp_path: Path, store: str, num_stored: int) -> None:
    clips = [stored_clip("v", number, num_frames=num_stored) for number in range(3)]
    shard = tmp_path / "000000.tar"
    write_shard(shard, clips if store == "frames" else [as_video(clip) for clip in clips])
    found = list(dataset(str(shard)).map(decode_clip))
    ours = list(read_shard(shard))
    assert [clip["key"] for clip in found] == [sample.key for sample in ours] and len(ours) == 3
    for clip, sample in zip(found, ours, strict=True):
        frames = sample.decode(uniform_indices(num_stored, 12))
        assert clip["frames"].dtype == torch.uint8 and clip["frames"].shape == (12, 32, 48, 3)
        assert np.array_equal(clip["frames"].numpy(), frames)
        assert (clip["subtitle"], clip["caption"]) == (sample.subtitle, "")
        assert clip["record"].clip_id.startswith("v.") and clip["record"].width == 48
        assert clip["__url__"] == str(shard) and clip["__key__"] == clip["key"]


def test_only_what_is_taken_is_decoded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really_decode, decoded = simplejpeg.decode_jpeg, []
    monkeypatch.setattr(
        simplejpeg, "decode_jpeg", lambda *a, **k: decoded.append(1) or really_decode(*a, **k)
    )
    clips = list(dataset(str(folder / "000000.tar")).map(partial(decode_clip, num_frames=3)))
    assert [len(clip["frames"]) for clip in clips] == [3] * 4 and len(decoded) == 12


def test_frames_in_the_models_size_are_the_trainers(folder: Path) -> None:
    for clip in dataset(str(folder / "000000.tar")).map(partial(decode_clip, image_size=24)):
        stored = torch.from_numpy(expected(folder)[clip["key"]])
        assert clip["frames"].is_contiguous() and torch.equal(clip["frames"], resize(stored, 24))
        assert preprocess_frames(clip["frames"], 24).shape == (12, 3, 24, 24)


def keys_and_sums(loader: Any) -> list[tuple[str, int]]:
    return [(clip["key"], int(clip["frames"].sum())) for clip in loader]


@pytest.mark.parametrize("workers", [0, 2])
def test_jitter_follows_torchs_seed(folder: Path, workers: int) -> None:
    data = dataset(str(folder / "{000000..000001}.tar")).map(partial(decode_clip, sampling="jittered"))
    loader = DataLoader(data, batch_size=None, num_workers=workers)
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append([keys_and_sums(loader), keys_and_sums(loader)])  # two epochs
    assert runs[0] == runs[1] != runs[2]
    assert runs[0][0] != runs[0][1]
    torch.manual_seed(5)
    rng = np.random.default_rng(int(torch.randint(2**62, ()).item()))
    torch.manual_seed(5)
    sample = next(iter(read_shard(folder / "000000.tar")))
    clip = next(iter(data))
    assert np.array_equal(clip["frames"].numpy(), sample.decode(jittered_indices(30, 12, rng)))


def test_captions_are_joined_by_key(folder: Path, tmp_path: Path) -> None:
    first, second = list_shards(folder)
    keys = [sample.key for sample in read_shard(first)]
    one, two = tmp_path / "one", tmp_path / "two"
    for place in (one, two):
        place.mkdir()
    write_captions(captions_path(one, first.stem), [(keys[0], "a red dog")], source=shard_source(first))
    write_captions(captions_path(two, first.stem), [(key, f"of {key}") for key in keys[:3]])
    decode = partial(decode_clip, num_frames=1, captions=[one, two])
    captions = [clip["caption"] for clip in dataset(str(first)).map(decode)]
    assert captions == ["a red dog", f"of {keys[1]}", f"of {keys[2]}", ""]
    alone = [
        clip["caption"] for clip in dataset(f"file:{first}").map(partial(decode_clip, captions=str(one)))
    ]
    assert alone == ["a red dog", "", "", ""]
    with pytest.raises(DatasetError, match=r"no captions of .*000001\.tar in .*make them with"):
        list(dataset(str(second)).map(decode))


def test_captions_of_another_shard_are_not_used(folder: Path, tmp_path: Path) -> None:
    other = make_shard_folder(tmp_path / "other", num_frames=3) / "000000.tar"
    rows = [(sample.key, "of the other") for sample in read_shard(other)]
    write_captions(captions_path(tmp_path, "000000"), rows, source=shard_source(other))
    found = list(dataset(str(other)).map(partial(decode_clip, captions=tmp_path)))
    assert {clip["caption"] for clip in found} == {"of the other"}
    with pytest.raises(DatasetError, match="no captions"):
        list(dataset(str(folder / "000000.tar")).map(partial(decode_clip, captions=tmp_path)))


@pytest.mark.parametrize(
    "urls",
    [
        "{folder}/{{000000..000001}}.tar",
        "file:{folder}/{{000000..000001}}.tar",
        "pipe:cat {folder}/{{000000..000001}}.tar",
    ],
)
def test_from_wherever_webdataset_reads(folder: Path, urls: str) -> None:
    check_all(dataset(urls.format(folder=folder)).map(decode_clip), folder)


def check_all(clips: Any, folder: Path) -> None:
    found = {clip["key"]: clip["frames"].numpy() for clip in clips}
    ours = expected(folder)
    assert found.keys() == ours.keys() and len(ours) == 8
    assert all(np.array_equal(found[key], ours[key]) for key in ours)


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_from_a_store_in_workers(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    shutil.copytree(folder, tmp_path / "store" / "bucket" / "clips")
    with s3_server(tmp_path / "store") as address:
        use_s3(monkeypatch, address)
        data = dataset("s3://bucket/clips/{000000..000001}.tar").map(decode_clip)
        context = multiprocessing.get_context(start)
        check_all(DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context=context), folder)
        with pytest.raises(OSError, match="nothing"):
            list(dataset("s3://bucket/clips/nothing.tar").map(decode_clip))


def test_batches(folder: Path) -> None:
    decode = partial(decode_clip, image_size=16)
    data = dataset(str(folder / "{000000..000001}.tar")).map(decode).to_tuple("frames", "subtitle").batched(4)
    batches = list(DataLoader(data, batch_size=None, num_workers=2))
    assert [frames.shape for frames, _ in batches] == [(4, 12, 16, 16, 3)] * 2
    assert all(isinstance(texts, list) and len(texts) == 4 for _, texts in batches)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"json": b"{}"}, "its KEY.json lacks"),
        ({"mjpg": b"short"}, "its frames are not where its metadata says"),
        ({"__key__": "another_00000"}, "under another name"),
        ({"mjpg": None}, r"needs KEY\.json and KEY\.mjpg or KEY\.mp4 as bytes"),
        ({"json": {"key": "decoded"}}, r"without \.decode\(\)"),
    ],
)
def test_a_bad_sample_is_the_handlers(folder: Path, change: dict[str, Any], told: str) -> None:
    good = next(iter(dataset(str(folder / "000000.tar"))))
    bad = {name: value for name, value in (good | change).items() if value is not None}
    with pytest.raises(DatasetError, match=told) as caught:
        decode_clip(bad)
    assert str(caught.value).startswith("sample ") and len(str(caught.value).splitlines()) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = list(wds.DataPipeline([[bad, good]], wds.map(decode_clip, handler=wds.warn_and_continue)))
    assert [clip["key"] for clip in found] == [good["__key__"]]


def test_an_unknown_way_of_sampling_is_told(folder: Path) -> None:
    sample = next(iter(dataset(str(folder / "000000.tar"))))
    with pytest.raises(ValueError, match="'uniform' or 'jittered'"):
        decode_clip(sample, sampling="random")  # type: ignore[arg-type]


def streamed(path: Path) -> Iterator[Any]:
    options = {"handler": wds.ignore_and_continue}
    yield from dataset(str(path), empty_check=False, **options).map(
        partial(decode_clip, num_frames=2), **options
    )


def test_mutated_shards_give_right_frames_or_none(tmp_path: Path) -> None:
    tars = [tar for tar in originals(tmp_path) if tar.kind == "clips"]
    path, right = tmp_path / "000000.tar", 0
    for tar, mutant in mutants(tars, seed=7, count=250):
        path.write_bytes(tar.data())
        whole = {sample.key: sample.decode([0, sample.num_frames - 1]) for sample in read_shard(path)}
        path.write_bytes(mutant.data)
        right += check_mutant(path, mutant, whole)
    assert right > 200


def check_mutant(path: Path, mutant: Mutant, whole: dict[str, np.ndarray]) -> int:
    found = list(streamed(path))
    for clip in found:
        record = clip["record"]
        assert clip["frames"].shape == (2, record.height, record.width, 3), mutant.how
        if mutant.must_agree:
            assert np.array_equal(clip["frames"].numpy(), whole[clip["key"]]), mutant.how
    return len(found)


def test_the_package_offers_what_training_code_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in clipvip.shards.__all__:
        assert getattr(clipvip.shards, name).__name__ == name
    with pytest.raises(AttributeError, match="nothing_like_this"):
        _ = clipvip.shards.nothing_like_this
    assert "clipvip.shards.tar.streaming" in sys.modules
