"""Which clip goes into which shard."""

from hypothesis import given
from hypothesis import strategies as st

from clipvip.shards.building.plan import plan_units
from clipvip.shards.format.clip import Clip
from clipvip.shards.sources.hdvila import Source


def source(line: int, num_clips: int) -> Source:
    clips = tuple(
        Clip(f"v{line}_{n:05d}", f"v{line}", f"v{line}.{n}.mp4", n, n + 1) for n in range(num_clips)
    )
    return Source(line, f"v{line}", clips, tuple(range(num_clips)))


def layout(counts: list[int], shard_size: int) -> list[tuple[int, int, list[int]]]:
    units = plan_units((source(n, count) for n, count in enumerate(counts)), shard_size=shard_size)
    return [(u.first_shard, u.num_shards, [s.line for s in u.sources]) for u in units]


def test_sources_fill_a_shard_and_large_ones_have_their_own() -> None:
    assert layout([2, 2, 1], 4) == [(0, 1, [0, 1]), (1, 1, [2])]
    assert layout([2, 9, 2, 2], 4) == [(0, 1, [0]), (1, 3, [1]), (4, 1, [2, 3])]
    assert layout([4, 4], 4) == [(0, 1, [0]), (1, 1, [1])]
    assert layout([0, 0], 4) == []
    assert layout([], 4) == []


@given(st.lists(st.integers(0, 12), max_size=40), st.integers(1, 8))
def test_every_clip_has_one_shard_in_order_and_none_overflows(counts: list[int], shard_size: int) -> None:
    units = list(plan_units((source(n, count) for n, count in enumerate(counts)), shard_size=shard_size))
    placed = [
        (u.shard_of(i), s.line) for u in units for i, s in enumerate(s for s in u.sources for _ in s.clips)
    ]
    assert [line for _, line in placed] == [n for n, count in enumerate(counts) for _ in range(count)]
    shards = [shard for shard, _ in placed]
    assert shards == sorted(shards)
    assert sorted(set(shards)) == list(range(sum(u.num_shards for u in units)))
    assert all(shards.count(shard) <= shard_size for shard in set(shards))
    for unit in units:
        assert unit.num_shards == 1 or len(unit.sources) == 1
