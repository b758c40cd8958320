"""Checking single files: nothing that is damaged passes, and nothing that is damaged raises."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipvip.shards.checking.shard import ShardCheck, check_shard, decode_all
from clipvip.shards.errors import DatasetError
from clipvip.shards.files.hashes import HashStore, key_hash, key_hashes
from clipvip.shards.format.manifest import ShardRecord
from clipvip.shards.format.record import ClipRecord
from clipvip.shards.tar.index import ShardFile
from clipvip.shards.tar.reader import Sample, read_shard
from clipvip.shards.tar.writer import write_shard
from make_shards import stored_clip
from make_videos import HEIGHT, WIDTH, make_video

NUM_CLIPS = 3
ON_ONE_FOLDER = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ShardRecord]:
    path = tmp_path_factory.mktemp("shard") / "000000.tar"
    return path, write_shard(path, [stored_clip("video", n, num_frames=2) for n in range(NUM_CLIPS)])


def check(path: Path, record: ShardRecord | None) -> ShardCheck:
    return check_shard(path, record=record, places=range, decode=decode_all)


def test_a_whole_shard_has_no_problems(written: tuple[Path, ShardRecord]) -> None:
    found = check(*written)
    assert not found.findings.counts
    assert found.keys == [f"video_{n:05d}" for n in range(NUM_CLIPS)]
    assert (found.num_frames, found.num_decoded) == (2 * NUM_CLIPS, NUM_CLIPS)


@ON_ONE_FOLDER
@given(data=st.data())
def test_any_change_of_bytes_is_found(
    data: st.DataObject, written: tuple[Path, ShardRecord], tmp_path: Path
) -> None:
    path, record = written
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=9, unique=True)):
        content[place] ^= data.draw(st.integers(1, 255))
    content = content[: data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))]
    changed = tmp_path / path.name
    changed.write_bytes(content)
    assert check(changed, record).findings.counts.keys() & {"checksum_differs", "size_differs"}
    check(changed, None)  # may find nothing, as in padding, but ends


@ON_ONE_FOLDER
@given(content=st.binary(max_size=3000))
def test_any_bytes_for_a_shard_are_no_more_than_a_problem(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "000000.tar"
    path.write_bytes(content)
    assert check(path, None).findings.counts.keys() == {"damaged_tar"} or not any(content[:512])


@pytest.mark.parametrize("lost", [b"moov", b"avcC", b"stsz"])
def test_a_damaged_mp4_is_an_error_of_the_dataset(lost: bytes, tmp_path: Path) -> None:
    """Whatever the decoder raises."""
    data = make_video(tmp_path / "clip.mp4", num_frames=5).read_bytes()
    record = ClipRecord.model_construct(width=WIDTH, height=HEIGHT, frame_seconds=[n / 30 for n in range(5)])
    decode_all(Sample("clip_00000", record, "mp4", data))
    with pytest.raises(DatasetError, match="sample clip_00000"):
        decode_all(Sample("clip_00000", record, "mp4", data.replace(lost, b"lost")))
    with pytest.raises(DatasetError, match="sample clip_00000"):
        decode_all(Sample("clip_00000", record.model_copy(update={"width": 2}), "mp4", data))


def test_spans_are_where_the_reader_finds_the_samples(written: tuple[Path, ShardRecord]) -> None:
    path, _ = written
    with ShardFile(path) as shard:
        spans = list(shard.spans())
        assert len(spans) == NUM_CLIPS
        for span, sample in zip(spans, read_shard(path), strict=True):
            assert span.extension == "mjpg"
            assert shard.read(span, "mjpg") == sample.pixels
            assert shard.read(span, "txt").decode() == sample.subtitle
            assert len(shard.read_span(span)) % 512 == 0
    assert [span.end for span in spans[:-1]] == [span.start for span in spans[1:]]


def test_a_tar_that_ends_early_gives_what_comes_before(
    written: tuple[Path, ShardRecord], tmp_path: Path
) -> None:
    path, _ = written
    with ShardFile(path) as shard:
        second = list(shard.spans())[1]
    cut = tmp_path / "cut.tar"
    cut.write_bytes(path.read_bytes()[: sum(second.members["mjpg"]) - 1])
    with ShardFile(cut) as shard:
        spans = shard.spans()
        assert next(spans).key == "video_00000"
        with pytest.raises(DatasetError, match="cut off"):
            next(spans)


@settings(max_examples=25)
@given(
    shards=st.lists(st.lists(st.integers(0, 60), max_size=20), min_size=1, max_size=5),
    at_once=st.integers(1, 20),
    seed=st.integers(0, 3),
)
def test_hashes_tell_what_repeats_and_what_is_smallest(
    shards: list[list[int]], at_once: int, seed: int
) -> None:
    """Whatever part of them is in memory at once."""
    texts = [[f"key{number}" for number in shard] for shard in shards]
    with HashStore(at_once=at_once) as store:
        for shard in reversed(range(len(texts))):
            store.add(shard, key_hashes(texts[shard], seed=seed))
        places: dict[str, list[tuple[int, int]]] = {}
        for shard, of_shard in enumerate(texts):
            assert store.of_shard(shard).tolist() == [key_hash(text, seed=seed) for text in of_shard]
            for place, text in enumerate(of_shard):
                places.setdefault(text, []).append((shard, place))
        assert sorted(store.repeated()) == sorted(group for group in places.values() if len(group) > 1)
        assert store.count_distinct() == len(places)
        values = np.sort(np.concatenate([key_hashes(of_shard, seed=seed) for of_shard in texts]))
        assert [store.nth_smallest(n) for n in range(1, len(values) + 1)] == values.tolist()
