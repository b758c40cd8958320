"""Which clips `subset` and `split` take, and that these stay what they are."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipvip.pipeline.tools.selection import between, cuts, up_to
from clipvip.shards.files.hashes import HashStore, key_hashes
from clipvip.shards.format.manifest import write_manifest
from clipvip.shards.tar.reader import list_shards
from clipvip.shards.tar.writer import write_shard
from commands import run
from cut_folders import CLIPS_PER_VIDEO, CUT, NUM_VIDEOS, make_folder, must
from make_shards import stored_clip
from outputs import samples


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("shards") / "clips", 0, NUM_VIDEOS)


def test_a_random_subset_has_the_number_asked_and_lies_in_larger_ones(shards: Path, tmp_path: Path) -> None:
    everything = samples(shards)
    found = []
    for number in (1, 7, 30):
        out = tmp_path / str(number)
        must("subset", shards, "--num", number, "--out", out)
        taken = samples(out)
        assert len(taken) == number
        assert all(sample == everything[key] for key, sample in taken.items())
        assert [path.name for path in list_shards(out)] == [f"{n:06d}.tar" for n in range(-(-number // 6))]
        assert list(taken) == [key for key in everything if key in taken]
        found.append(set(taken))
    assert found[0] < found[1] < found[2]
    for fraction, number in ((0.18, 7), (0.75, 30), (0.001, 1)):  # of 40
        out = tmp_path / str(fraction)
        must("subset", shards, "--fraction", fraction, "--out", out)
        assert samples(out).keys() == samples(tmp_path / str(number)).keys()
    must("subset", shards, "--num", 7, "--out", tmp_path / "other", "--seed", 1)
    assert set(samples(tmp_path / "other")) != found[1]
    must("verify", tmp_path / "30")
    report = json.loads((tmp_path / "30" / "report.json").read_text())
    assert report["counts"]["clips"] == 30
    assert report["counts"]["frames"] == 60
    assert report["counts"]["clips_to_choose_from"] == NUM_VIDEOS * CLIPS_PER_VIDEO


def test_the_same_clips_are_taken_however_they_are_sharded(shards: Path, tmp_path: Path) -> None:
    must("merge", shards, "--out", tmp_path / "packed", "--shard-size", 11)
    for folder, out in ((shards, "a"), (tmp_path / "packed", "b")):
        must("subset", folder, "--num", 9, "--out", tmp_path / out, "--shard-size", 4)
    first, second = ([path.read_bytes() for path in list_shards(tmp_path / name)] for name in "ab")
    assert first == second


def test_listed_clips_are_taken_or_left_out(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text("video3_00001\n\nvideo0_00002\nnot_there_00009\n")
    output = must("subset", shards, "--keys", tmp_path / "keys.txt", "--out", tmp_path / "a")
    assert set(samples(tmp_path / "a")) == {"video3_00001", "video0_00002"}
    assert "note: listed keys or ids without a clip here: 1 ('not_there_00009')" in output
    must("subset", shards, "--keys", tmp_path / "keys.txt", "--exclude", "--out", tmp_path / "b")
    assert set(samples(tmp_path / "b")) == set(samples(shards)) - {"video3_00001", "video0_00002"}
    (tmp_path / "ids.txt").write_text("video3\nvideo9\n")
    must("subset", shards, "--video-ids", tmp_path / "ids.txt", "--out", tmp_path / "c")
    assert set(samples(tmp_path / "c")) == {f"video{v}_{n:05d}" for v in (3, 9) for n in range(4)}


def test_a_video_id_with_other_characters_is_found_by_its_id(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    names = ["v.1 b", "v.1 c"]
    record = write_shard(folder / "000000.tar", [stored_clip(name, 0, num_frames=1) for name in names])
    write_manifest(folder, stage="shard", options=CUT, shards=[record])
    (tmp_path / "ids.txt").write_text("v.1 c\n")
    must("subset", folder, "--video-ids", tmp_path / "ids.txt", "--out", tmp_path / "out")
    (sample,) = samples(tmp_path / "out").values()
    assert sample.record.video_id == "v.1 c"


def test_no_video_is_in_two_parts(shards: Path, tmp_path: Path) -> None:
    parts = ("--part", "train=0.5", "--part", "val=0.3", "--part", "test=0.2", "--seed", 1)
    must("split", shards, *parts, "--out", tmp_path)
    found = {name: samples(tmp_path / name) for name in ("train", "val", "test")}
    videos = [{sample.record.video_id for sample in part.values()} for part in found.values()]
    assert all(videos)
    assert sum(map(len, videos)) == len(set.union(*videos)) == NUM_VIDEOS
    joined = found["train"] | found["val"] | found["test"]
    assert {key: joined[key] for key in sorted(joined)} == dict(sorted(samples(shards).items()))
    for name in found:
        must("verify", tmp_path / name)


@given(
    keys=st.lists(st.text("abcdef_", min_size=1, max_size=8), unique=True, min_size=1, max_size=60),
    seed=st.integers(0, 2**64 - 1),
)
def test_random_subsets_are_nested_and_of_the_right_size(keys: list[str], seed: int) -> None:
    hashes = key_hashes(keys, seed=seed)
    store = HashStore()
    store.add(0, hashes)
    taken = [up_to(store.nth_smallest(n))(0, hashes) for n in range(1, len(keys) + 1)]
    assert [int(mask.sum()) for mask in taken] == list(range(1, len(keys) + 1))
    assert all(not np.any(a & ~b) for a, b in pairwise(taken))


def stored(sizes: list[int], seed: int = 0, *, shards: int = 3) -> tuple[HashStore, np.ndarray]:
    """The hashes of videos of so many clips, in several shards; and those of all clips."""
    names = [f"video{number}" for number, size in enumerate(sizes) for _ in range(size)]
    hashes = key_hashes(names, seed=seed)
    store = HashStore(at_once=7)
    for number, some in enumerate(np.array_split(hashes, shards)):
        store.add(number, some)
    return store, hashes


def counts_of(ends: list[int], hashes: np.ndarray) -> list[int]:
    """How many clips each part has, each clip being in one."""
    masks = [between(first, end)(0, hashes) for first, end in pairwise(ends)]
    assert (np.sum(masks, axis=0) == 1).all()
    for mask, other in pairwise(masks):
        assert not set(hashes[mask]) & set(hashes[other])
    return [int(mask.sum()) for mask in masks]


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=40),
    weights=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    seed=st.integers(0, 2**64 - 1),
)
def test_shares_are_as_exact_as_whole_videos_allow(sizes: list[int], weights: list[int], seed: int) -> None:
    fractions = [weight / sum(weights) for weight in weights]
    store, hashes = stored(sizes, seed)
    if len(sizes) < len(fractions):
        with pytest.raises(ValueError, match="fewer groups"):
            cuts(store, fractions)
        return
    ends = cuts(store, fractions)
    found = counts_of(ends, hashes)
    assert min(found) > 0
    wanted = [fraction * len(hashes) for fraction in fractions]
    if min(wanted) >= max(sizes):  # else a part may have been given a video for which it is too small
        assert all(abs(a - b) <= max(sizes) + 1e-6 for a, b in zip(found, wanted, strict=True))
    if len(fractions) == 2:
        assert all(abs(a - b) <= max(sizes) for a, b in zip(found, wanted, strict=True))
    shuffled, _ = stored(sizes, seed, shards=1)
    assert cuts(shuffled, fractions) == ends


@pytest.mark.parametrize("fractions", [(0.8, 0.1, 0.1), (0.1, 0.2, 0.3, 0.4), (0.99, 0.01), (1 / 3, 2 / 3)])
def test_shares_of_videos_of_one_size_are_exact(fractions: tuple[float, ...]) -> None:
    store, hashes = stored([5] * 300)
    assert counts_of(cuts(store, fractions), hashes) == [round(1500 * fraction) for fraction in fractions]


def test_of_a_folder_that_grew_only_videos_at_a_cut_move() -> None:
    store, hashes = stored([10] * 400)
    grown, _ = stored([10] * 420)
    (_, before, _), (_, after, _) = cuts(store, (0.9, 0.1)), cuts(grown, (0.9, 0.1))
    low, high = sorted((before, after))
    assert len(set(hashes[between(low, high)(0, hashes)])) <= 4


def test_split_says_the_shares_that_it_made(shards: Path, tmp_path: Path) -> None:
    parts = ("--part", "train=0.75", "--part", "val=0.25", "--out")
    line = "split: shares of the clips: train 70.00% (asked for 75.00%), val 30.00% (asked for 25.00%)"
    assert line in must("split", shards, *parts, tmp_path / "dry", "--dry-run")
    assert line in must("split", shards, *parts, tmp_path / "out")
    made = run("split", shards, *parts, tmp_path / "out", "--json")
    shares = json.loads(made.stdout)["shares"]
    assert shares == {"train": 0.7, "val": 0.3}
    assert len(samples(tmp_path / "out" / "val")) == 0.3 * len(samples(shards))


def test_the_same_clips_are_split_alike_however_they_are_sharded(shards: Path, tmp_path: Path) -> None:
    must("merge", shards, "--shard-size", 7, "--out", tmp_path / "packed")
    for name, folder in (("a", shards), ("b", tmp_path / "packed")):
        must(
            "split", folder, "--part", "x=0.6", "--part", "y=0.4", "--shard-size", 5, "--out", tmp_path / name
        )
    for part in "xy":
        made = [list_shards(tmp_path / name / part) for name in "ab"]
        first, second = ([path.read_bytes() for path in paths] for paths in made)
        assert first == second and len(first) > 1


def test_each_part_gets_a_video_or_nothing_is_written(shards: Path, tmp_path: Path) -> None:
    must("split", shards, "--part", "train=0.999", "--part", "val=0.001", "--out", tmp_path / "out")
    assert {one.record.video_id for one in samples(tmp_path / "out" / "val").values()} != set()
    many = [word for n in range(20) for word in ("--part", f"p{n}=0.05")]
    refused = run("split", shards, *many, "--out", tmp_path / "many")
    assert refused.exit_code == 1 and "fewer videos than the 20 parts" in refused.stderr.splitlines()[-1]
    assert not (tmp_path / "many").exists()
